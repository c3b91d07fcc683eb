#!/usr/bin/env bash
# Builds the CUDA kernels against the emulator with sanitizers and runs tests/tools/smoke_gpu.cu with them: `address`
# (and undefined behaviour), `thread` (races of CUDA threads; then a planted one, which must be found), or both.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # the program smoke_$1, with the flags that follow
  local kind=$1 source
  shift
  for source in csrc/cuda/*.cu tests/tools/smoke_gpu.cu; do
    echo "$source" "$work/$kind-$(basename "$source" .cu).o"
  done | xargs -P "$(nproc)" -L 1 sh -c \
    "exec g++ -x c++ -std=c++17 -O1 -g $* -Wall -Wextra -Werror -Icsrc -Icsrc/include -c \$0 -o \$1"
  g++ "$@" "$work/$kind"-*.o -o "$work/smoke_$kind" -lpthread
}

if [ "${1:-address}" = address ]; then
  build address -fsanitize=address,undefined -fno-sanitize-recover=all
  "$work/smoke_address" 140
fi
if [ "${1:-thread}" = thread ]; then
  build thread -fsanitize=thread
  # The sanitizer's fixed addresses need an address space without random offsets.
  TSAN_OPTIONS=halt_on_error=1 setarch -R "$work/smoke_thread" 70
  if TSAN_OPTIONS=halt_on_error=1 setarch -R "$work/smoke_thread" 0 relaxed 2>"$work/report"; then
    echo "the planted race was not found"
    exit 1
  fi
  grep -qE 'data race .*(load|store)_owned' "$work/report" || { cat "$work/report"; exit 1; }
  echo "the planted race was found"
fi
