"""Checks that an object file compiled for a newer processor offers no symbol that other levels could share.

The linker keeps one copy of an inline function or template instance, whichever it meets first. A copy compiled with
AVX-512 would then run on processors without it. So everything that such a file defines weakly must carry the level's
namespace in its name. Usage: check_levels.py FOLDER (for the object files).
"""

from __future__ import annotations

import platform
import subprocess
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("assignment_level", "units_level")
HARMLESS = ("DW.ref.",)  # data that every object file with exceptions refers to


def foreign_symbols(source: str, level: str, folder: Path, optimisation: str) -> list[str]:
    target = folder / f"{source}_{level}.o"
    subprocess.run(
        ["g++", "-std=gnu++17", optimisation, f"-march=x86-64-{level}", f"-DLMCFAST_LEVEL={level}", "-Wno-psabi",
         f"-I{ROOT}/csrc/include", f"-I{ROOT}/csrc/cpu", "-c", f"{ROOT}/csrc/cpu/{source}.cpp", "-o", target],
        check=True,
    )  # fmt: skip
    listing = subprocess.run(["nm", "-C", "--defined-only", target], check=True, capture_output=True, text=True).stdout
    weak = [line.split(" ", 2)[2] for line in listing.splitlines() if line.split(" ", 2)[1] in "WVu"]
    assert weak or "T" in listing, "nm listed nothing"
    return [name for name in weak if f"lmcfast::{level}::" not in name and not name.startswith(HARMLESS)]


def main() -> int:
    if platform.machine() != "x86_64":
        print(f"skipped: one vector level only on {platform.machine()}")
        return 0
    failed = 0
    for source, level, optimisation in product(SOURCES, ("v3", "v4"), ("-O1", "-O3")):
        for name in foreign_symbols(source, level, Path(sys.argv[1]), optimisation):
            print(f"{source} {level} {optimisation}: {name} can be shared with other levels")
            failed = 1
    print("failed" if failed else "levels share nothing")
    return failed


if __name__ == "__main__":
    sys.exit(main())
