"""The compiler's report is read, and what takes more than the table allows is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent / "tools"
sys.path.insert(0, str(TOOLS))
try:
    import check_registers
finally:
    sys.path.remove(str(TOOLS))

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Zscan' for 'sm_90'
ptxas info    : Function properties for _Zscan
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 56 bytes cumulative stack size, 2560 bytes smem
ptxas info    : Compiling entry function '_Zscan' for 'sm_75'
ptxas info    : Function properties for _Zscan
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for _Zhelper
    400 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
"""
MEASURED = {
    "90": {"_Zscan": {"stack": 16, "spills": 20, "registers": 64}},
    "75": {"_Zscan": {"stack": 0, "spills": 0, "registers": 40}},
}


def test_the_report_of_the_compiler_is_read():
    assert check_registers.parse(REPORT) == MEASURED


@pytest.mark.parametrize(
    ("changed", "slack", "found"),
    [
        ({}, 0, []),
        ({"registers": 63}, 0, ["sm_90 _Zscan: registers 64, the table allows 63"]),
        ({"registers": 63}, 8, []),
        ({"spills": 19}, 8, ["sm_90 _Zscan: spills 20, the table allows 19"]),
        ({"stack": 32, "registers": 70}, 0, []),
    ],
)
def test_what_exceeds_the_table_is_found(changed, slack, found):
    table = {**MEASURED, "90": {"_Zscan": {**MEASURED["90"]["_Zscan"], **changed}}}
    assert check_registers.faults(table, MEASURED, slack) == found


def test_kernels_that_come_or_go_are_found():
    assert check_registers.faults(MEASURED, {"90": MEASURED["90"]}, 0) == ["sm_75 _Zscan: no longer compiled"]
    assert check_registers.faults({"90": MEASURED["90"]}, MEASURED, 0) == ["sm_75 _Zscan: not in the table"]


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        ("void lmcfast::cuda::scan<float>(lmcfast::cuda::Scan)", "scan<float>"),
        ("lmcfast::cuda::(anonymous namespace)::clear(int*, long)", "clear"),
        ("void lmcfast::f<(lmcfast::Dtype)0, a::b<int> >(a::b<int>)", "f<(Dtype)0, b<int> >"),
    ],
)
def test_names_are_short(demangled, short):
    assert check_registers.short_name(demangled) == short
