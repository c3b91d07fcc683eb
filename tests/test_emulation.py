"""The emulator of csrc/emulation: what it runs, which planted faults it finds and what it says of them.

The tests themselves are CUDA sources in tests/emulation. Rounding is tested in test_emulation_numbers.py.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers import emulation

FUNCTIONS = [
    "atomic_operations", "cooperative_grid", "data_behind_fetch_max", "exited_threads", "groups_of_a_warp",
    "last_block_done", "ring_of_a_cluster", "rounding_to_tf32", "shared_memory", "shuffles_of_eight_bytes",
    "shuffles_of_every_width", "sum_of_a_block", "tensor_core_products", "three_dimensions", "top_two_of_a_warp",
    "votes_and_reductions", "votes_of_a_block",
]  # fmt: skip
PROMISES = [
    "clean_after_an_error", "costs", "counters", "launches_ask_for_shared_memory", "limits_of_a_cooperative_grid",
    "limits_of_a_launch", "limits_of_unasked_shared_memory", "one_host_thread_after_another", "other_devices",
    "residency", "schedules", "shared_memory_is_not_zero", "undefined_shuffle",
]  # fmt: skip
AUCTION = ["floor_prices_of_crossing_bids", "late_floor_price"]  # states of the assignment's kernels
# Fault, what is said, and the source lines at the places that it names.
FAULTS = [
    ("divergent_barrier", "barrier divergence in block 0", ["else __syncthreads();", "__syncthreads();  // here"]),
    ("exited_lane", "mask 0xffffffff names lane 5, which has exited", ["__syncwarp();"]),
    ("missing_lane", "mask 0xffffffff names lane 20, which has exited or does not exist", ["__syncwarp();"]),
    ("lane_not_in_mask", "lane 16 is not in its mask 0x0000ffff", ["__shfl_sync(0x0000ffffu"]),
    ("different_masks", "warp divergence in block 0", ["__ballot_sync(", "__ballot_sync("]),
    ("different_operations", "warp divergence in block 0", ["__ballot_sync(~0u, 1)", "__shfl_sync(~0u, 1, 0)"]),
    ("deadlock", "deadlock; 8 threads (first: block 0 thread 0) in __syncthreads", ["__syncthreads", "__syncwarp"]),
    ("unfinished_grid", "deadlock; 96 threads (first: block 0 thread 0) in grid_sync", ["grid_sync();"]),
    ("livelock", "work limit exceeded (livelock?); 64 threads", ["while (load(flag) == 0)"]),
    ("plain_grid_sync", "the launch is not cooperative", ["grid_sync();"]),
    ("too_much_static", "more than 49152 bytes or 64 variables of static shared memory", []),
]
RACES = {
    "missing_barrier": "missing_barrier",
    "missing_syncwarp": "missing_syncwarp",
    "racing_blocks": "racing_blocks",
    "plain_against_atomic": "plain_against_atomic",
    "relaxed_atomic": "handed_over",
}
RACE_FREE = ["handed_over", "shared_in_bounds", "deadlock", "exited_lane"]


def folder(factory: pytest.TempPathFactory, name: str) -> Path:
    return factory.mktemp(name)


@pytest.fixture(scope="session")
def tests_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulation.build(folder(tmp_path_factory, "emulation") / "tests", ["main", "blocks", "warps", "schedules"])


@pytest.fixture(scope="session")
def faults_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulation.build(folder(tmp_path_factory, "emulation") / "faults", ["faults"])


@pytest.fixture(scope="session")
def auction_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    include = [f"-I{emulation.ROOT}/csrc", f"-I{emulation.ROOT}/csrc/include"]
    return emulation.build(folder(tmp_path_factory, "emulation") / "auction", ["main", "auction"], *include)


@pytest.mark.parametrize("name", AUCTION)
def test_auction(auction_program: Path, name: str) -> None:
    result = emulation.run(auction_program, name)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_test_is_named(tests_program: Path) -> None:
    assert sorted(emulation.run(tests_program, "--list").stdout.split()) == sorted(FUNCTIONS + PROMISES)


@pytest.mark.parametrize("name", FUNCTIONS + PROMISES)
def test_emulated(tests_program: Path, name: str) -> None:
    result = emulation.run(tests_program, name)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("name", "message", "places"), FAULTS)
def test_fault_is_found(faults_program: Path, name: str, message: str, places: list[str]) -> None:
    result = emulation.run(faults_program, name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("cudaErrorLaunchFailure: ")
    assert message in result.stdout
    source = (emulation.SOURCES / "faults.cu").read_text().splitlines()
    named = [source[int(line) - 1] for line in re.findall(r"faults\.cu:(\d+)", result.stdout)]
    assert len(named) == len(places), result.stdout
    for line, expected in zip(named, places, strict=True):
        assert expected in line, result.stdout


def test_state_belongs_to_a_library(tmp_path: Path) -> None:
    """Two libraries in one process, as two extension modules of Python: options of one are not those of the other."""
    source = tmp_path / "library.cu"
    source.write_text(
        f'#include "{emulation.ROOT}/csrc/cuda/device.h"\n'
        "namespace e = lmcfast::emulation;\n"
        "__global__ void kernel(unsigned* out) { atomicAdd(out, 1u); }\n"
        'extern "C" void configure(unsigned n) { e::Options o; o.multiprocessors = n; e::configure(o); }\n'
        'extern "C" unsigned multiprocessors() { return e::options().multiprocessors; }\n'
        'extern "C" unsigned launches() { return unsigned(e::counters().launches); }\n'
        'extern "C" unsigned go() { unsigned n = 0; '
        "return lmcfast::cuda::launch({3, 32}, kernel, &n) == cudaSuccess ? n : 0; }\n"
    )
    program = tmp_path / "load.cpp"
    program.write_text(
        "#include <dlfcn.h>\n#include <cstdio>\n#include <initializer_list>\n"
        "int main(int, char** names) {\n"
        "  void* libraries[] = {dlopen(names[1], RTLD_NOW | RTLD_LOCAL), dlopen(names[2], RTLD_NOW | RTLD_LOCAL)};\n"
        "  for (int k = 0; k < 2; ++k) {\n"
        '    reinterpret_cast<void (*)(unsigned)>(dlsym(libraries[k], "configure"))(7 + k);\n'
        '    if (k) reinterpret_cast<unsigned (*)()>(dlsym(libraries[k], "go"))();\n'
        "  }\n"
        "  for (void* library : libraries)\n"
        '    for (const char* name : {"multiprocessors", "launches", "go"})\n'
        '      std::printf("%u ", reinterpret_cast<unsigned (*)()>(dlsym(library, name))());\n'
        "}\n"
    )
    names = ["one.so", "two.so"]
    flags = ["-x", "c++", "-std=c++17", "-O1", "-shared", "-fPIC"]
    built = emulation.run("g++", *flags, source, "-o", tmp_path / names[0])
    assert built.returncode == 0, built.stderr
    shutil.copy(tmp_path / names[0], tmp_path / names[1])
    built = emulation.run("g++", program, "-o", tmp_path / "load", "-ldl")
    assert built.returncode == 0, built.stderr
    result = emulation.run(tmp_path / "load", *(tmp_path / name for name in names))
    assert result.stdout.split() == ["7", "0", "96", "8", "1", "96"]


@pytest.mark.sanitize
def test_thread_sanitizer(tmp_path: Path) -> None:
    """Finds every planted race and no other; what the address space needs is set by setarch."""
    program = emulation.build(tmp_path / "faults", ["faults"], "-fsanitize=thread", "-g")
    for name, kernel in RACES.items():
        report = emulation.run("setarch", "-R", program, name).stderr
        assert "WARNING: ThreadSanitizer: data race" in report, (name, report)
        assert re.search(rf"{kernel}\(.*faults\.cu:\d+", report), (name, report)
    for name in RACE_FREE:
        assert "ThreadSanitizer" not in emulation.run("setarch", "-R", program, name).stderr, name


@pytest.mark.sanitize
def test_address_sanitizer(tmp_path: Path) -> None:
    program = emulation.build(tmp_path / "faults", ["faults"], "-fsanitize=address", "-g")
    for name in ("shared_overflow", "ended_block"):
        report = emulation.run(program, name).stderr
        assert re.search(r"AddressSanitizer: use-after-poison .*\n.*\n.*faults\.cu:\d+", report), (name, report)
        assert name in report
    for name in ("shared_in_bounds", "exited_lane", "deadlock"):
        result = emulation.run(program, name)
        assert result.returncode == 0, (name, result.stderr)


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_own_tests_under_sanitizers(tmp_path: Path, sanitizers: str) -> None:
    flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-g"]
    program = emulation.build(tmp_path / "tests", ["main", "blocks", "warps", "schedules"], *flags)
    result = emulation.run("setarch", "-R", program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Sanitizer" not in result.stderr


@pytest.mark.sanitize
def test_without_assembly(tmp_path: Path) -> None:
    """Stacks switched by ucontext, as on processors other than x86-64."""
    program = emulation.build(
        tmp_path / "tests", ["main", "blocks", "warps", "schedules"], "-DLMCFAST_EMULATION_UCONTEXT"
    )
    result = emulation.run(program)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.sanitize
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_kernels_under_sanitizers(sanitizer: str) -> None:
    result = emulation.run(emulation.ROOT / "tests" / "tools" / "sanitize_gpu.sh", sanitizer, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
