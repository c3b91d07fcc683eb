#!/usr/bin/env bash
# Builds the solver with the address and undefined-behaviour sanitizers for every vector level that this processor has,
# and solves problems of all methods with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-std=gnu++17 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-psabi -Icsrc/include -Icsrc/cpu"
defines=""
levels="baseline"
if [ "$(uname -m)" = x86_64 ]; then
  levels="baseline v3 v4"
  defines="-DLMCFAST_X86_LEVELS"
fi
for level in $levels; do
  march=""
  [ "$level" = baseline ] || march="-march=x86-64-$level"
  g++ $flags $march -DLMCFAST_LEVEL=$level -c csrc/cpu/assignment_level.cpp -o "$work/$level.o"
done
sources=$(ls csrc/cpu/*.cpp | grep -v assignment_level)
g++ $flags $defines $sources tests/tools/smoke.cpp "$work"/*.o -o "$work/smoke" -lpthread
for level in $levels; do LMCFAST_CPU=$level "$work/smoke"; done
