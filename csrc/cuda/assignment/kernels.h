// The kernels of one problem on the whole device. Each is one stage; all decisions stand in Control.
#pragma once

#include "certificate.h"

namespace lmcfast::cuda {

// Shared memory of the kernels with shortest paths, where they fit: chunk minima, and the keys beside them.
__host__ __device__ constexpr size_t path_bytes(int64_t columns, bool keys) {
  const int64_t chunks = (columns + kChunk - 1) / kChunk;
  return size_t(8 * (chunks + (keys ? columns : 0)));
}

template <class T>
struct PathMemory {
  u64* least;
  double* keys;
  __device__ PathMemory(const State<T>& s, unsigned char* shared)
      : least(s.least ? s.least : reinterpret_cast<u64*>(shared)),
        keys(s.key ? s.key : reinterpret_cast<double*>(least + (s.columns + kChunk - 1) / kChunk)) {}
};

template <class T>
__global__ void clear_kernel(State<T> s) {
  clear_state(s, grid_threads());
}

template <class T>
__global__ void read_start_prices_kernel(State<T> s) {
  read_start_prices(s, grid_threads());
}

template <class T>
__global__ void shift_start_prices_kernel(State<T> s) {
  shift_start_prices(s);
}

// A block for each row.
template <class T>
__global__ void scan_kernel(State<T> s) {
  LMCFAST_SHARED(unsigned, scratch, [kScanScratch]);
  const Team<true> team = {threadIdx.x, blockDim.x, scratch};
  for (int64_t i = blockIdx.x; i < s.rows; i += gridDim.x) scan<Scope::device>(s, int(i), team, Stage::start);
}

// The same with the row held in shared memory.
constexpr int kHeldThreads = 1024;  // at most
template <class T>
__global__ void __launch_bounds__(kHeldThreads) scan_held_kernel(State<T> s) {
  LMCFAST_DYNAMIC_SHARED(shared);
  LMCFAST_SHARED(unsigned, scratch, [kScanScratch]);
  const Team<true> team = {threadIdx.x, blockDim.x, scratch};
  for (int64_t i = blockIdx.x; i < s.rows; i += gridDim.x)
    scan_row<Scope::device>(s, RowHeld<T>(s, int(i), shared), team, Stage::start);
}

// A warp for each row: the order of a list does not depend on who comes first.
template <class T>
__global__ void scan_in_order_kernel(State<T> s) {
  const Workers w = grid_warps();
  for (int64_t i = w.rank; i < s.rows; i += w.count) scan<Scope::device>(s, int(i), warp_team(), Stage::start);
}

template <class T>
__global__ void plan_kernel(State<T> s) {
  plan(s);
}

template <class T>
__global__ void begin_phase_kernel(State<T> s) {
  begin_phase(s, grid_threads());
}

template <class T>
__global__ void chains_kernel(State<T> s) {
  if (!s.control->finished) run_chains<Scope::device>(s, s.control->eps);
}

template <class T>
__global__ void attempt_kernel(State<T> s) {
  LMCFAST_DYNAMIC_SHARED(shared);
  const PathMemory<T> memory(s, shared);
  if (!s.control->finished) attempt_paths(s, memory.least, memory.keys);
}

template <class T>
__global__ void advance_kernel(State<T> s) {
  if (threadIdx.x == 0) advance(s);
}

template <class T>
__global__ void forget_columns_kernel(State<T> s) {
  if (!s.control->settled) forget_columns(s, grid_threads());
}

template <class T>
__global__ void read_owners_kernel(State<T> s) {
  if (!s.control->settled) read_owners(s, grid_threads());
}

template <class T>
__global__ void release_loose_rows_kernel(State<T> s) {
  if (!s.control->settled) release_loose_rows<Scope::device>(s, grid_warps());
}

template <class T>
__global__ void begin_exact_bids_kernel(State<T> s) {
  if (threadIdx.x == 0 && !s.control->settled) begin_exact_bids(s);
}

template <class T>
__global__ void exact_bids_kernel(State<T> s) {
  if (!s.control->settled) run_chains<Scope::device>(s, 0.);
}

template <class T>
__global__ void read_words_kernel(State<T> s) {
  if (!s.control->settled) read_words(s, grid_threads());
}

template <class T>
__global__ void write_profits_kernel(State<T> s) {
  if (!s.control->settled) write_profits<Scope::device>(s, grid_warps());
}

template <class T>
__global__ void lower_free_columns_kernel(State<T> s) {
  if (!s.control->settled) lower_free_columns(s, grid_warps());
}

template <class T>
__global__ void rebuild_exceeded_lists_kernel(State<T> s) {
  if (!s.control->settled) rebuild_exceeded_lists<Scope::device>(s, grid_warps());
}

template <class T>
__global__ void paths_kernel(State<T> s, u64 step_limit, bool first) {
  LMCFAST_DYNAMIC_SHARED(shared);
  const PathMemory<T> memory(s, shared);
  finish_paths(s, memory.least, memory.keys, step_limit, first);
}

template <class T>
__global__ void read_profits_kernel(State<T> s) {
  read_profits(s, grid_warps());
}

template <class T>
__global__ void certify_kernel(State<T> s) {
  certify(s);
}

template <class T>
__global__ void publish_kernel(State<T> s) {
  publish(s, grid_threads());
}

}  // namespace lmcfast::cuda
