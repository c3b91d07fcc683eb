"""A large merge on generated checkpoints: memory, seconds per phase, bytes, and whether the hidden units are found.

    python benchmarks/bench_merge.py --gigabytes 1 --out results.json FOLDER

FOLDER gets what ``make_checkpoint.py`` writes and the merge; it is removed in the end. The baseline reads both inputs
and writes one output in pieces of 16 MiB, from and to the same disk; before it and before the merge the inputs are
taken out of the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from make_checkpoint import make

import lmcfast
from lmcfast.io import read_permutations
from lmcfast.io.shards import LazyCheckpoint
from lmcfast.merging.families import families
from lmcfast.merging.sources import bind, seen_alike
from lmcfast.merging.visits import visit
from lmcfast.spec import PermutationSpec

PIECE = 1 << 24

MERGE = """
import json, sys
import torch
torch.set_num_threads(int(sys.argv[5]))
from lmcfast.merging import FolderOptions, merge_checkpoints
options = FolderOptions(spec=sys.argv[4], residual=sys.argv[6])
done = merge_checkpoints(sys.argv[1:3], sys.argv[3], options=options)
print(json.dumps({"seconds": dict(done.seconds), "read": done.bytes_read, "written": done.bytes_written}))
"""


def forget(folder: Path) -> None:
    """Take the files of a folder out of the system's cache."""
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_seconds(a: Path, b: Path, out: Path) -> float:
    """Read two folders side by side and write one of their size."""
    out.mkdir()
    piece = bytearray(PIECE)
    started = time.perf_counter()
    for file in sorted(a.glob("*.safetensors")):
        with (
            open(file, "rb", buffering=0) as one,
            open(b / file.name, "rb", buffering=0) as other,
            open(out / file.name, "wb", buffering=0) as target,
        ):
            while count := one.readinto(piece):
                other.readinto(piece)
                target.write(memoryview(piece)[:count])
            os.fsync(target.fileno())
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def anonymous(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("RssAnon:")), 0)


def recovered(folder: Path) -> bool:
    """Whether the permutations found undo those hidden."""
    hidden = read_permutations(folder / "hidden.safetensors")
    found = read_permutations(folder / "m" / "lmcfast_permutations_1.safetensors")
    spec = PermutationSpec.from_json(hidden.spec_text)
    wanted = lmcfast.invert_permutations(spec, hidden.permutations)
    return all(torch.equal(found.permutations[name], index) for name, index in wanted.items())


def measure(folder: Path, gigabytes: float, threads: int, residual: bool, width: int | None) -> dict[str, Any]:
    make(folder, gigabytes, residual=residual, width=width)
    a, b = folder / "a", folder / "b"
    spec = PermutationSpec.from_json(read_permutations(folder / "hidden.safetensors").spec_text)
    spec.save(folder / "spec.json")
    forget(a), forget(b)
    copy = copy_seconds(a, b, folder / "copy")
    forget(a), forget(b)
    arguments = [str(folder / name) for name in ("a", "b", "m", "spec.json")]
    mode = "permute" if residual else "keep"
    child = subprocess.Popen(
        [sys.executable, "-c", MERGE, *arguments, str(threads), mode], stdout=subprocess.PIPE, text=True
    )
    peak = 0
    while child.poll() is None:
        peak = max(peak, anonymous(child.pid))
        time.sleep(0.01)
    if child.returncode:
        raise RuntimeError("the merge failed")
    assert child.stdout is not None
    figures = json.loads(child.stdout.read())
    config = json.loads((a / "config.json").read_text())
    inner = int(config["intermediate_size"])
    pair = 2 * 4 * max(32000, inner) * int(config["hidden_size"])
    return {
        "gigabytes": sum(f.stat().st_size for f in a.glob("*.safetensors")) / 1e9,
        "hidden_size": config["hidden_size"],
        "intermediate_size": inner,
        "layers": config["num_hidden_layers"],
        "residual": mode,
        "threads": threads,
        "peak_bytes": peak,
        "bound_bytes": pair + 2 * 4 * inner * inner + (1 << 30),
        **figures,
        "copy_seconds": copy,
        "recovered": recovered(folder),
    }


def group_ratio(folder: Path, width: int = 4096, units: int = 11008) -> dict[str, Any]:
    """Seconds of the processor for one visit of a feed-forward group, and for its three products alone."""
    axes = {"gate": ("units", None), "up": ("units", None), "down": (None, "units")}
    spec = lmcfast.PermutationSpec.from_axes(axes)
    generator = torch.Generator().manual_seed(0)
    shapes = {"gate": (units, width), "up": (units, width), "down": (width, units)}
    a = {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}
    order = torch.randperm(units, generator=generator)
    noisy = {name: t + 0.5 * torch.randn(t.shape, generator=generator).bfloat16() for name, t in a.items()}
    b = lmcfast.apply_permutations(spec, {"units": order}, noisy)
    folder.mkdir(parents=True)
    for name, params in (("a", a), ("b", b)):
        lmcfast.save_checkpoint(folder / f"{name}.safetensors", params)
    with LazyCheckpoint(folder / "a.safetensors") as one, LazyCheckpoint(folder / "b.safetensors") as other:
        bound, model = bind(spec, one)
        (family,) = families(bound, ["units"])
        started = time.process_time()
        found = visit(family, model, seen_alike(model, other))
        visited = time.process_time() - started
    assert torch.equal(found.permutations["units"], order.argsort())
    wide = [(t.float(), b[name].float()) for name, t in a.items()]
    pairs = [(x, y) if x.shape[0] == units else (x.T, y.T) for x, y in wide]
    started = time.process_time()
    for x, y in pairs:
        torch.matmul(x, y.T)
    products = time.process_time() - started
    return {
        "visit_seconds": visited,
        "product_seconds": products,
        "ratio": visited / products,
        "width": width,
        "units": units,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--width", type=int, help="of the residual stream, a multiple of 512")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--residual", action="store_true")
    parser.add_argument("--group", type=int, metavar="WIDTH", help="a group of WIDTH x 11008 beside its products")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    try:
        torch.set_num_threads(given.threads)
        if given.group:
            result = group_ratio(given.folder, given.group)
        else:
            result = measure(given.folder, given.gigabytes, given.threads, given.residual, given.width)
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)
    text = json.dumps(result, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
