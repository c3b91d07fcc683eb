"""Builds CUDA sources as C++ against the emulator (csrc/emulation) and runs them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "emulation"
FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror")


def build(program: Path, names: Sequence[str], *flags: str) -> Path:
    """Compiles tests/emulation/NAME.cu for every name, two at a time, and links `program`."""
    objects = [program.with_name(f"{program.name}_{name}.o") for name in names]
    commands = [
        ["g++", "-x", "c++", *FLAGS, *flags, "-c", str(SOURCES / f"{name}.cu"), "-o", str(target)]
        for name, target in zip(names, objects, strict=True)
    ]
    for k in range(0, len(commands), 2):
        for command, compiler in [(c, subprocess.Popen(c, stderr=subprocess.PIPE)) for c in commands[k : k + 2]]:
            _, errors = compiler.communicate()
            assert compiler.returncode == 0, f"{' '.join(command)}\n{errors.decode()}"
    subprocess.run(["g++", *flags, *map(str, objects), "-o", str(program), "-lpthread"], check=True)
    return program


def run(*command: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs to the end, whatever comes of it; `timeout` in seconds."""
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=timeout, check=False)
