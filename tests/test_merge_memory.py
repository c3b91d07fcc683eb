"""The memory of a large merge does not grow with the model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from helpers.folders import random_params, write_folder

import lmcfast
from lmcfast.spec.tables.by_config import table_for

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 48,
    "intermediate_size": 1024,
    "vocab_size": 4000,
    "tie_word_embeddings": True,
}

MERGE = """
import json, sys
import torch
torch.set_num_threads(1)
from lmcfast.merging import FolderOptions, merge_checkpoints
import lmcfast.matching.weight_matching
import lmcfast.spec.tables.by_config
print("ready", flush=True)
sys.stdin.readline()
done = merge_checkpoints(sys.argv[1:3], sys.argv[3], options=FolderOptions(spec=sys.argv[4]))
print(json.dumps({"cosines": [f.cosine_after for f in done.families]}))
"""


def anonymous(pid: int) -> int:
    """Bytes of a process that no file backs; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("RssAnon:")), 0)


def test_memory_is_bounded_by_the_largest_group(tmp_path: Path) -> None:
    """Beside what the program takes: the largest pair of tensors in float32, twice the largest scores, a constant.

    Both models take 170 MB as stored and 340 MB in float32, and the constant is set below the half of that.
    """
    spec = table_for(CONFIG)
    params = {name: tensor.bfloat16() for name, tensor in random_params(spec, 0).items()}
    setting = spec.random_permutations(1) | {"stream": torch.arange(256)}
    shuffled = lmcfast.apply_permutations(spec, setting, params)
    for name, some in (("a", params), ("b", shuffled)):
        write_folder(tmp_path / name, CONFIG, {key: t for key, t in some.items() if key != "lm_head.weight"}, 4)
    spec.save(tmp_path / "spec.json")
    stored = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert stored > 160e6
    arguments = [str(tmp_path / name) for name in ("a", "b", "m", "spec.json")]
    child = subprocess.Popen(
        [sys.executable, "-c", MERGE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    before = peak = anonymous(child.pid)
    child.stdin.write("\n")
    child.stdin.flush()
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(0.002)
    text = child.stdout.read()
    child.stdin.close()
    child.stdout.close()
    assert child.returncode == 0
    assert min(json.loads(text)["cosines"]) > 0.99
    pair, scores = 2 * 4 * 4000 * 256, 4 * 1024 * 1024
    assert peak - before < pair + 2 * scores + (64 << 20), f"{(peak - before) / 1e6:.0f} MB"
