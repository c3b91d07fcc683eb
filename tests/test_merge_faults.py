"""Whatever goes wrong in a large merge: one line that names file and tensor, no output, inputs as before."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from helpers.commands import Commands, snapshot
from helpers.folders import LLAMA, change_tensor, read_folder, write_folder, write_kept_pair

import lmcfast
from lmcfast.errors import CheckpointError
from lmcfast.io import shard_writer
from lmcfast.merging import FolderOptions, merge_checkpoints
from lmcfast.merging.journal import Journal
from lmcfast.spec import configuration
from lmcfast.spec.tables.by_config import table_for

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture(autouse=True)
def shipped_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where transformers is not installed: a table is quick, a derivation is not."""
    find = configuration.importlib.util.find_spec
    monkeypatch.setattr(
        configuration.importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )


def truncated(b: Path) -> tuple[Path, str]:
    file = b / "model-2-of-2.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    return file, "truncated: tensor '"


def missing_tensor(b: Path) -> tuple[Path, str]:
    return change_tensor(b, UP, None), f"tensor {UP!r}"


def other_dtype(b: Path) -> tuple[Path, str]:
    file = change_tensor(b, UP, read_folder(b)[UP].half())
    return file, f"tensor {UP!r} is float16 and float32 in"


def other_shape(b: Path) -> tuple[Path, str]:
    return change_tensor(b, UP, torch.zeros(24, 15)), f"tensor {UP!r} has shape (24, 15), and (24, 16) in"


def not_a_number(b: Path) -> tuple[Path, str]:
    tensor = read_folder(b)[UP].clone()
    tensor[3, 4] = torch.nan
    return change_tensor(b, UP, tensor), f"tensor {UP!r} holds NaN or infinity"


def infinity_in_what_is_not_matched(b: Path) -> tuple[Path, str]:
    return change_tensor(b, "model.norm.weight", torch.full((16,), torch.inf)), "tensor 'model.norm.weight' holds NaN"


def index_outside(b: Path) -> tuple[Path, str]:
    index = b / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][UP] = "../a/model-1-of-2.safetensors"
    index.write_text(json.dumps(content))
    return index, f"names '../a/model-1-of-2.safetensors' for tensor {UP!r}"


def missing_file(b: Path) -> tuple[Path, str]:
    (b / "model-1-of-2.safetensors").unlink()
    return b / "model-1-of-2.safetensors", "is missing, which the index"


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch ran",))


def pickle_with_code(b: Path) -> tuple[Path, str]:
    for file in b.glob("model*"):
        file.unlink()
    (b / "pytorch_model.bin").write_bytes(pickle.dumps(Code()))
    return b / "pytorch_model.bin", "a pickle can run code"


def other_tokens(b: Path) -> tuple[Path, str]:
    for folder, word in ((b, "x"), (b.parent / "a", "y")):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {word: 0}}, "version": folder.name}))
    return b / "tokenizer.json", "other tokens than"


def other_type(b: Path) -> tuple[Path, str]:
    (b / "config.json").write_text(json.dumps({**LLAMA, "model_type": "mistral"}))
    return b / "config.json", "model_type 'mistral', and 'llama' in"


def quantised_config(b: Path) -> tuple[Path, str]:
    (b / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": {"quant_method": "gptq"}}))
    return b / "config.json", "the checkpoint is quantised (gptq); merge the full-precision checkpoint"


def quantised_weight(b: Path) -> tuple[Path, str]:
    return change_tensor(b, UP, torch.zeros(24, 16, dtype=torch.int8)), f"tensor {UP!r} is quantised (i8)"


def adapter(b: Path) -> tuple[Path, str]:
    (b / "adapter_config.json").write_text("{}")
    return b / "adapter_config.json", "is an adapter (LoRA)"


def header_beyond_the_file(b: Path) -> tuple[Path, str]:
    file = b / "model-1-of-2.safetensors"
    file.write_bytes((1 << 40).to_bytes(8, "little") + file.read_bytes()[8:])
    return file, "not a safetensors file"


FAULTS: list[Callable[[Path], tuple[Path, str]]] = [
    truncated,
    missing_tensor,
    other_dtype,
    other_shape,
    not_a_number,
    infinity_in_what_is_not_matched,
    index_outside,
    missing_file,
    pickle_with_code,
    other_tokens,
    other_type,
    quantised_config,
    quantised_weight,
    adapter,
    header_beyond_the_file,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faulty_inputs(command: Commands, tmp_path: Path, fault: Callable[[Path], tuple[Path, str]]) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 2)
    file, words = fault(b)
    ran = command("merge", a, b, "-o", tmp_path / "m")
    assert ran.code == 1
    lines = [line for line in ran.err.splitlines() if not line.startswith(("match:", "merge:"))]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith(f"error: {file}: ")
    assert words in lines[0]
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "ran").exists()


def test_outputs_that_are_refused(command: Commands, tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for out, words in ((a, "overwrite an input"), (tmp_path / "full", "not empty"), (a / "config.json", "is a file")):
        if out.suffix:
            with pytest.raises(CheckpointError, match=words):
                merge_checkpoints([a, b], out)
        else:
            assert words in command.fails("merge", a, b, "-o", out, folder=tmp_path)


def test_a_full_disk_is_told_before_the_work(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("lmcfast.merging.run.shutil.disk_usage", lambda path: usage)
    message = command.fails("merge", a, b, "-o", tmp_path / "m", folder=tmp_path)
    assert "0.00 GB are free on its disk" in message


def test_a_disk_that_fills_up_leaves_what_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 3)
    merge_checkpoints([a, b], tmp_path / "whole")
    write, left = shard_writer.os.write, [20_000]

    def limited(descriptor: int, data: memoryview) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.os, "write", limited)
        with pytest.raises(CheckpointError, match=r"model-\d-of-3\.safetensors: cannot write: no space left on device"):
            merge_checkpoints([a, b], tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.rglob("*.part"))
    done = merge_checkpoints([a, b], tmp_path / "m")
    assert done.resumed >= 4
    assert snapshot(tmp_path / "m") == snapshot(tmp_path / "whole")


def test_a_run_whose_inputs_changed_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 2)

    def stop(phase: str, what: str, done: int, total: int) -> None:
        if phase == "merge":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_checkpoints([a, b], tmp_path / "m", callback=stop)
    change_tensor(b, UP, read_folder(b)[UP].flip(0).contiguous())
    assert merge_checkpoints([a, b], tmp_path / "m").resumed == 0


def test_two_runs_at_one_output(tmp_path: Path) -> None:
    with Journal(tmp_path / "work", {}), pytest.raises(CheckpointError, match="another run is at work"):
        Journal(tmp_path / "work", {})


def test_a_torn_line_of_the_journal_does_not_count(tmp_path: Path) -> None:
    with Journal(tmp_path / "work", {"run": 1}) as journal:
        journal.add({"kind": "shard", "name": "one"})
    with open(tmp_path / "work" / "journal.jsonl", "ab") as file:
        file.write(b'{"kind": "shard", "name": "tw')
    with Journal(tmp_path / "work", {"run": 1}) as journal:
        assert [line["name"] for line in journal.lines] == ["one"]
        journal.add({"kind": "shard", "name": "three"})
    with Journal(tmp_path / "work", {"run": 1}) as journal:
        assert [line["name"] for line in journal.lines] == ["one", "three"]
    with Journal(tmp_path / "work", {"run": 2}) as journal:
        assert journal.lines == []


SERVER = """
import json, os, sys, traceback
import torch
torch.set_num_threads(1)
from lmcfast.merging import FolderOptions, merge_checkpoints
import lmcfast.merging.run, lmcfast.matching.weight_matching
for line in sys.stdin:
    sources, out, spec = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            merge_checkpoints(sources, out, options=FolderOptions(spec=spec, residual="permute"))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path) -> None:
    """A fork of one process is a run, so that twenty of them do not start Python twenty times."""
    a, b = write_kept_pair(tmp_path, "llama", 3)
    table_for(LLAMA).save(tmp_path / "spec.json")
    inputs = snapshot(tmp_path)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def run(out: str, kill_after: float | None = None) -> tuple[int, float]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps([[str(a), str(b)], str(tmp_path / out), str(tmp_path / "spec.json")]) + "\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        started = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it was done before
                os.kill(pid, signal.SIGKILL)
        return int(server.stdout.readline()), time.perf_counter() - started

    try:
        assert run("whole")[0] == 0
        status, seconds = run("again")
        assert status == 0
        wanted = snapshot(tmp_path / "whole")
        assert snapshot(tmp_path / "again") == wanted
        generator, killed = random.Random(5), 0
        for k in range(20):
            status, _ = run(f"m{k}", generator.uniform(0.0, seconds))
            killed += status == signal.SIGKILL
            assert not (tmp_path / f"m{k}").exists() or snapshot(tmp_path / f"m{k}") == wanted
            assert run(f"m{k}")[0] == 0
            assert snapshot(tmp_path / f"m{k}") == wanted
        assert killed >= 5
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()
    after = snapshot(tmp_path)
    assert {path: after[path] for path in inputs} == inputs
    assert not [path for path in after if path.startswith(".")]


def test_float8_is_kept_or_converted(tmp_path: Path) -> None:
    spec = lmcfast.PermutationSpec.from_axes({"0.weight": ("h", None), "1.weight": (None, "h")})
    tensors = {"0.weight": torch.randn(8, 4).to(torch.float8_e4m3fn), "1.weight": torch.randn(4, 8)}
    for name in ("a", "b"):
        write_folder(tmp_path / name, {"model_type": "own"}, tensors)
    paths = [tmp_path / "a", tmp_path / "b"]
    merge_checkpoints(paths, tmp_path / "m", options=FolderOptions(spec=spec))
    assert read_folder(tmp_path / "m")["0.weight"].dtype == torch.float8_e4m3fn
    merge_checkpoints(paths, tmp_path / "w", options=FolderOptions(spec=spec, dtype="bfloat16"))
    assert torch.equal(read_folder(tmp_path / "w")["0.weight"], tensors["0.weight"].bfloat16())
