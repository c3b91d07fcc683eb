"""Running commands in this process, and small checkpoint files for them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import lmcfast
from lmcfast.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit code, and the text on both streams."""

    code: int
    out: str
    err: str


class Commands:
    """Runs ``lmcfast`` commands; asserts the rules that hold for every one of them."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self.capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return Ran(code, out, err)

    def works(self, *arguments: object) -> Ran:
        ran = self(*arguments)
        assert ran.code == 0, ran.err
        assert "error" not in ran.err
        return ran

    def fails(self, *arguments: object, folder: Path, code: int = 1) -> str:
        """The one line that a failing command prints; it prints nothing else and leaves ``folder`` as it was."""
        before = snapshot(folder)
        ran = self(*arguments)
        assert ran.code == code
        assert ran.out == ""
        lines = [line for line in ran.err.splitlines() if not line.startswith(("note: ", "match: "))]
        assert len(lines) == 1, ran.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in ran.err
        assert snapshot(folder) == before
        return lines[0]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every name under a folder, with the bytes of the files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def mlp(seed: int, sizes: tuple[int, ...] = (6, 9, 7, 4)) -> dict[str, torch.Tensor]:
    """The state dict of a plain feed-forward network as nn.Sequential names it: 0.weight, 0.bias, 2.weight, ..."""
    generator = torch.Generator().manual_seed(seed)
    params = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        params[f"{2 * layer}.weight"] = torch.randn(outputs, inputs, generator=generator)
        params[f"{2 * layer}.bias"] = torch.randn(outputs, generator=generator)
    return params


def write_planted_pair(folder: Path, suffix: str = ".safetensors") -> tuple[Path, Path]:
    """Checkpoints A and B where B is A with its hidden units shuffled."""
    params = mlp(seed=0)
    spec = lmcfast.spec_from_params(params).bind(params)
    shuffled = lmcfast.apply_permutations(spec, spec.random_permutations(seed=1), params)
    a, b = folder / f"a{suffix}", folder / f"b{suffix}"
    lmcfast.save_checkpoint(a, params)
    lmcfast.save_checkpoint(b, shuffled)
    return a, b


def assert_same_params(path: Path, wanted: Path) -> None:
    got, expected = lmcfast.load_checkpoint(path), lmcfast.load_checkpoint(wanted)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor)
