// Planted faults: `faults NAME` runs the kernel with that fault and prints what the launch returned. Those behind "seen
// by a sanitizer" end without an error unless the program was built with that sanitizer.
#include "check.h"

using namespace lmcfast::cuda;

__global__ void divergent_barrier() {
  if (threadIdx.x < 32) __syncthreads();  // here
  else __syncthreads();
}

__global__ void exited_lane() {
  if (threadIdx.x != 5) __syncwarp();
}

__global__ void lane_not_in_mask() { __shfl_sync(0x0000ffffu, 1, 0); }

__global__ void different_masks() { __ballot_sync(threadIdx.x == 3 ? 0xffffffffu : 0x7fffffffu, 1); }

__global__ void different_operations() {
  if (threadIdx.x < 16) __shfl_sync(~0u, 1, 0);
  else __ballot_sync(~0u, 1);
}

__global__ void deadlock() {
  if (threadIdx.x < 8) __syncthreads();
  else __syncwarp();
}

__global__ void unfinished_grid() {
  if (blockIdx.x != 2) grid_sync();
}

__global__ void livelock(unsigned* flag) {
  while (load(flag) == 0) {
  }
}

__global__ void plain_grid_sync() { grid_sync(); }

#if !defined(__CUDACC__)
__global__ void too_much_static() {
  LMCFAST_SHARED(float, half, [6 << 10]);
  LMCFAST_SHARED(float, rest, [7 << 10]);
  half[0] = rest[0] = 0;
}
#endif

// ---- seen by a sanitizer
__global__ void missing_barrier(unsigned* out) {
  LMCFAST_SHARED(unsigned, s, [64]);
  s[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = s[63 - threadIdx.x];
}

__global__ void missing_syncwarp(unsigned* data, unsigned* out) {  // a shuffle hands over a value, not memory
  if (threadIdx.x == 0) data[0] = 1;
  const unsigned from = __shfl_sync(~0u, threadIdx.x, 0);
  out[threadIdx.x] = data[from];
}

__global__ void racing_blocks(unsigned* data) {
  if (threadIdx.x == blockIdx.x) data[0] = blockIdx.x;
}

__global__ void plain_against_atomic(unsigned* data) {
  if (threadIdx.x == 0) data[0] = 0;
  atomicAdd(&data[0], 1u);
}

__global__ void handed_over(u64* word, unsigned* data) {
  if (threadIdx.x) return;
  while (load(word) != blockIdx.x) {
  }
  fetch_max(word, blockIdx.x);
  store_owned(data, load_owned(data) + 1);
  fetch_max(word, blockIdx.x + 1);
}

__global__ void shared_overflow(unsigned* out, unsigned by) {
  LMCFAST_SHARED(unsigned, s, [64]);
  unsigned* at = s;
  at[threadIdx.x + by] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

#if LMCFAST_CLUSTERS
__global__ void ended_block(unsigned* out) {
  LMCFAST_SHARED(unsigned, s, [1]);
  s[0] = 0;
  const unsigned* other = map_shared_rank(&s[0], 1);
  if (blockIdx.x == 1) return;
  __nanosleep(100);
  __nanosleep(100);
  out[0] = *other;
}
#endif

#if !defined(__CUDACC__)

namespace {

Launch cooperative(unsigned grid) {
  Launch l{grid, 32};
  l.cooperative = true;
  return l;
}

test::Array<unsigned> numbers(64);
test::Array<u64> word(1);

struct Fault {
  const char* name;
  cudaError_t (*run)();
};
const Fault faults[] = {
    {"divergent_barrier", [] { return launch(Launch{1, 64}, divergent_barrier); }},
    {"exited_lane", [] { return launch(Launch{1, 32}, exited_lane); }},
    {"missing_lane", [] { return launch(Launch{1, 20}, exited_lane); }},
    {"lane_not_in_mask", [] { return launch(Launch{1, 32}, lane_not_in_mask); }},
    {"different_masks", [] { return launch(Launch{1, 32}, different_masks); }},
    {"different_operations", [] { return launch(Launch{1, 32}, different_operations); }},
    {"deadlock", [] { return launch(Launch{1, 32}, deadlock); }},
    {"unfinished_grid", [] { return launch(cooperative(4), unfinished_grid); }},
    {"livelock", [] { return launch(Launch{2, 32}, livelock, numbers.data); }},
    {"plain_grid_sync", [] { return launch(Launch{2, 32}, plain_grid_sync); }},
    {"too_much_static", [] { return launch(Launch{1, 32}, too_much_static); }},
    {"missing_barrier", [] { return launch(Launch{1, 64}, missing_barrier, numbers.data); }},
    {"missing_syncwarp", [] { return launch(Launch{1, 32}, missing_syncwarp, &numbers[32], numbers.data); }},
    {"racing_blocks", [] { return launch(Launch{8, 32}, racing_blocks, numbers.data); }},
    {"plain_against_atomic", [] { return launch(Launch{1, 32}, plain_against_atomic, numbers.data); }},
    {"handed_over", [] { return launch(cooperative(4), handed_over, word.data, numbers.data); }},
    {"relaxed_atomic", [] { return launch(cooperative(4), handed_over, word.data, numbers.data); }},
    {"shared_in_bounds", [] { return launch(Launch{1, 64}, shared_overflow, numbers.data, 0); }},
    {"shared_overflow", [] { return launch(Launch{1, 64}, shared_overflow, numbers.data, 1); }},
    {"ended_block",
     [] {
       Launch l{2, 32};
       l.cluster = 2;
       return launch(l, ended_block, numbers.data);
     }},
};

}  // namespace

int main(int count, char** arguments) {
  lmcfast::emulation::Options options;
  options.work_limit = 100'000;
  for (const Fault& fault : faults) {
    if (count < 2 || std::strcmp(arguments[1], fault.name) != 0) continue;
    options.relaxed_fetch_max = std::strcmp(fault.name, "relaxed_atomic") == 0;
    lmcfast::emulation::configure(options);
    const cudaError_t error = fault.run();
    std::printf("%s: %s\n", cudaGetErrorName(error), cudaGetErrorString(error));
    return 0;
  }
  std::printf("no such fault\n");
  return 1;
}
#endif
