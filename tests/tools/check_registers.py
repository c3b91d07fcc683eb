"""Compiles the CUDA kernels with warnings as errors, and compares the registers that they take and spill with a table.

Registers decide how many warps a processor holds, and a spill is a detour through memory: both change silently. The
table `registers.json` beside this file holds what each kernel may take; the compiler's own report (`ptxas -v`) must not
exceed it. Other compilers than the recorded one get SLACK registers, but no spills.

    check_registers.py            # compare
    check_registers.py --record   # write the table anew, after a change that is meant
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("registers.json")
ARCHITECTURES = (75, 80, 86, 89, 90)
SLACK = 8

# registers, bytes of spill stores and loads, bytes of stack: for each architecture, for each kernel
Figures = dict[str, int]
Report = dict[str, dict[str, Figures]]

ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def parse(text: str) -> Report:
    """What `ptxas -v` says, by architecture and mangled name. A kernel's lines follow the one that names it."""
    found: Report = {}
    figures: Figures = {}
    for line in text.splitlines():
        if entry := ENTRY.search(line):
            figures = found.setdefault(entry[2], {}).setdefault(entry[1], {})
        elif (spills := SPILLS.search(line)) and "stack" not in figures:
            figures["stack"], figures["spills"] = int(spills[1]), int(spills[2]) + int(spills[3])
        elif used := REGISTERS.search(line):
            figures["registers"] = int(used[1])
    return found


def short_name(demangled: str) -> str:
    """`void lmcfast::cuda::scan<float>(lmcfast::cuda::Scan)` -> `scan<float>`."""
    depth = 0
    for end, letter in enumerate(demangled):  # the arguments begin at the first bracket outside <>
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0 and not demangled[end:].startswith("(anonymous namespace)"):
            demangled = demangled[:end]
            break
    return re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", demangled)


def named(report: Report) -> Report:
    mangled = sorted({name for kernels in report.values() for name in kernels})
    if not mangled:
        return report
    shown = subprocess.run(["c++filt", *mangled], check=True, capture_output=True, text=True).stdout.splitlines()
    names = dict(zip(mangled, map(short_name, shown), strict=True))
    if len(set(names.values())) < len(names):
        sys.exit(f"two kernels have one name: {sorted(names.values())}")
    return {arch: {names[name]: figures for name, figures in kernels.items()} for arch, kernels in report.items()}


def compile_file(source: Path) -> str:
    """The compiler's report on one file. A warning ends the program with the compiler's text."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHITECTURES]
    command = ["nvcc", "-std=c++17", "-O3", "-Xptxas=-v", "-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror",
               "--threads=0", f"-I{ROOT}/csrc/include", f"-I{ROOT}/csrc", "-c", str(source), "-o", "/dev/null",
               *targets]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source.relative_to(ROOT)} does not compile without warnings:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def compiler() -> str:
    text = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"V(\d+\.\d+)", text)
    return found[1] if found else "unknown"


def faults(recorded: Report, measured: Report, slack: int) -> list[str]:
    """Kernels that take more than the table allows, that it does not know, and that are gone."""
    wrong = []
    for arch in sorted({*recorded, *measured}):
        allowed, found = recorded.get(arch, {}), measured.get(arch, {})
        for name in sorted({*allowed, *found}):
            if name not in found or name not in allowed:
                wrong.append(f"sm_{arch} {name}: {'not in the table' if name in found else 'no longer compiled'}")
                continue
            for key, limit in allowed[name].items():
                limit += slack if key == "registers" else 0
                if found[name][key] > limit:
                    wrong.append(f"sm_{arch} {name}: {key} {found[name][key]}, the table allows {limit}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Registers and spills of the CUDA kernels against a recorded table.")
    parser.add_argument("--record", action="store_true", help="write the table anew")
    options = parser.parse_args()
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    # The emulator's own tests are CUDA too, but for those of the emulator's controls; they are not in the table.
    tests = sorted((ROOT / "tests" / "emulation").glob("*.cu"))
    others = [source for source in tests if "lmcfast::emulation" not in source.read_text()]
    with ThreadPoolExecutor(2) as pool:
        reports = pool.map(compile_file, sources)
        list(pool.map(compile_file, others))
        measured = named(parse("\n".join(reports)))
    if options.record:
        table = {"nvcc": compiler(), "kernels": measured}
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    table = json.loads(TABLE.read_text())
    wrong = faults(table["kernels"], measured, 0 if table["nvcc"] == compiler() else SLACK)
    print("\n".join(wrong) if wrong else f"{sum(map(len, measured.values()))} kernels take what the table allows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
