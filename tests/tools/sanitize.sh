#!/usr/bin/env bash
# Runs the tests of the assignment solver on an extension built with the address and undefined-behaviour sanitizers, at
# every vector level that this processor has; then a C++ program at every level with the same sanitizers, and one for the
# threads with the thread sanitizer. Any finding ends it with an error.
# Usage: sanitize.sh [options and files for pytest]; PYTHON names an interpreter with the test requirements and pybind11.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- tests/test_assignment*.py tests/test_sparse_assignment.py
step() { echo "== $1 ($(date +%T))"; }

build() {  # folder, sanitizers, targets
  cmake -S . -B "$1" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE="-O1 -D_GLIBCXX_ASSERTIONS" \
    -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF -DLMCFAST_SANITIZE="$2" -DLMCFAST_PROGRAMS=ON -DPython_EXECUTABLE="$work/venv/bin/python" \
    -Dpybind11_DIR="$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')" >"$1.log" &&
    cmake --build "$1" -j "$(nproc)" --target $3 >>"$1.log" || { cat "$1.log"; exit 1; }
}

step "build with -fsanitize=address,undefined"
# An environment of its own, which finds the packages of the other one but not an editable lmcfast among them.
"$python" -m venv --without-pip "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' >"$site/others.pth"
build "$work/address" address,undefined "_core smoke"
cp -r lmcfast "$site/"
cp "$work"/address/_core.*so "$site/lmcfast/"
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$work/address/CMakeCache.txt")
# The sanitizer must be the first library of the process, and finds the C++ runtime only if that is there as early.
runtime="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)"
sanitized() {
  PYTHONSAFEPATH=1 LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    "$work/venv/bin/python" "$@"
}
levels=$(sanitized -c 'from lmcfast import _native; info = _native.build_info(); built = info["levels_built"]
print(*built[: built.index(info["level_in_use"]) + 1])')

for level in $levels; do
  step "pytest $* at $level"
  LMCFAST_CPU=$level sanitized -m pytest -q -p no:cacheprovider "$@"
done
step "the core without Python"
for level in $levels; do LMCFAST_CPU=$level "$work/address/smoke"; done

step "threads with -fsanitize=thread"
build "$work/thread" thread threads
# Without address randomisation, which some versions of the thread sanitizer cannot bear; the forked child makes threads.
TSAN_OPTIONS=die_after_fork=0 setarch -R "$work/thread/threads"
step "nothing found"
