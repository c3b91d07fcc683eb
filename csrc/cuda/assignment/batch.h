// Many small problems: one block for each, its words and keys in shared memory, all stages in one launch.
#pragma once

#include "kernels.h"
#include "layout.h"

namespace lmcfast::cuda {

// Most threads of a block. Two such blocks leave enough registers for a thread not to spill: 96, and 128 for float64.
template <class T>
constexpr int kBatchThreads = sizeof(Exact<T>) == 8 ? 256 : 320;

struct BatchArguments {
  AssignmentProblem base;
  const AssignmentEntry* table;  // null: problems of one shape
  int64_t batch_stride;
  size_t workspace_stride;  // bytes of each problem, without a table
  unsigned char* workspace;
  AssignmentReport* reports;
  u64 step_limit;
  int64_t bid_limit;
  int full_list;
  bool maximize, deterministic;
};

// Bytes of shared memory for problems whose longer side has so many columns.
constexpr size_t batch_shared_bytes(int64_t columns) {
  const size_t even = size_t(columns + 1) / 2 * 2;  // so that all parts are aligned
  return even * (sizeof(u64) + sizeof(double) + sizeof(float)) + path_bytes(columns, false);
}

template <class T>
__device__ inline State<T> batch_state(const BatchArguments& a, unsigned char* shared) {
  const int64_t k = blockIdx.x;
  AssignmentEntry e = {};
  if (a.table) {
    e = a.table[k];
  } else {
    e.scores = int64_t(reinterpret_cast<uintptr_t>(static_cast<const T*>(a.base.scores) + k * a.batch_stride));
    e.rows = a.base.rows;
    e.columns = a.base.columns;
    e.row_stride = a.base.row_stride;
    e.column_stride = a.base.column_stride;
    e.first_row = k * a.base.rows;
    e.first_column = k * a.base.columns;
    e.workspace = k * int64_t(a.workspace_stride);
  }
  State<T> s = {};
  s.scores = reinterpret_cast<const T*>(uintptr_t(e.scores));
  s.sign = a.maximize ? 1 : -1;
  orient(s, e.rows, e.columns, e.row_stride, e.column_stride);
  s.full_list = a.full_list;
  s.deterministic = a.deterministic;
  s.bid_limit = a.bid_limit;
  if (a.base.start_prices && s.rows == s.columns) s.start_prices = a.base.start_prices + e.first_column;
  s.columns_out = a.base.columns_out + e.first_row;
  s.prices_out = a.base.prices_out + e.first_column;
  if (a.base.profits_out) s.profits_out = a.base.profits_out + e.first_row;
  s.report = a.reports + k;
  Layout at(a.workspace + e.workspace);
  lay_out(s, at, true);
  const int even = (s.columns + 1) / 2 * 2;
  s.word = reinterpret_cast<u64*>(shared + path_bytes(s.columns, false));
  s.key = reinterpret_cast<double*>(s.word + even);
  s.floor_price = reinterpret_cast<float*>(s.key + even);
  return s;
}

template <class T>
__device__ inline void write_empty(const State<T>& s, int64_t rows, int64_t columns) {
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) {
    s.columns_out[i] = -1;
    if (s.profits_out) s.profits_out[i] = 0;
  }
  for (int64_t j = threadIdx.x; j < columns; j += blockDim.x) s.prices_out[j] = 0;
  if (threadIdx.x != 0) return;
  AssignmentReport r = {};
  r.row = r.column = -1;
  *s.report = r;
}

// Chains by all warps, or by one.
template <class T>
__device__ inline void chains_in_block(const State<T>& s, double eps) {
  if (!s.deterministic || threadIdx.x < 32) run_chains<Scope::block>(s, eps);
  __syncthreads();
}

template <class T>
__device__ inline void auction_in_block(const State<T>& s, u64* least) {
  Control* const c = s.control;
  while (true) {
    begin_phase(s, block_threads());
    __syncthreads();
    if (c->finished) return;
    chains_in_block(s, c->eps);
    if (c->phase == 0) attempt_paths(s, least, s.key);
    __syncthreads();
    if (threadIdx.x == 0) advance(s);
    __syncthreads();
  }
}

template <class T>
__device__ inline void tighten_in_block(const State<T>& s) {
  forget_columns(s, block_threads());
  __syncthreads();
  read_owners(s, block_threads());
  __syncthreads();
  if (!s.deterministic) release_loose_rows<Scope::block>(s, block_warps());
  else if (threadIdx.x < 32) release_loose_rows<Scope::block>(s, Workers{0, 1});
  __syncthreads();
  if (threadIdx.x == 0) begin_exact_bids(s);
  __syncthreads();
  chains_in_block(s, 0.);
  forget_columns(s, block_threads());
  __syncthreads();
  read_words(s, block_threads());
  __syncthreads();
  write_profits<Scope::block>(s, block_warps());
  __syncthreads();
  lower_free_columns(s, block_warps());
  __syncthreads();
  rebuild_exceeded_lists<Scope::block>(s, block_warps());
  __syncthreads();
}

template <class T>
__device__ inline void solve_in_block(const State<T>& s, u64* least, u64 step_limit) {
  clear_state(s, block_threads());
  __syncthreads();
  if (s.start_prices) {
    read_start_prices(s, block_threads());
    __syncthreads();
    shift_start_prices(s);
  }
  const Workers warps = block_warps();
  for (int i = int(warps.rank); i < s.rows; i += int(warps.count)) scan<Scope::block>(s, i, warp_team(), Stage::start);
  __syncthreads();
  plan(s);
  auction_in_block(s, least);
  if (!s.control->settled && s.rows == s.columns) tighten_in_block(s);
  __syncthreads();
  finish_paths(s, least, s.key, step_limit, true);
  __syncthreads();
  read_profits(s, block_warps());
  __syncthreads();
  certify(s);
  publish(s, block_threads());
}

template <class T>
__global__ void __launch_bounds__(kBatchThreads<T>, 2) batch_kernel(BatchArguments a) {
  LMCFAST_DYNAMIC_SHARED(shared);
  LMCFAST_SHARED(State<T>, state, [1]);  // in registers it would leave too few for the rest
  if (threadIdx.x == 0) state[0] = batch_state<T>(a, shared);
  __syncthreads();
  const State<T>& s = state[0];
  if (s.rows == 0) {
    const int64_t rows = s.swapped ? s.columns : s.rows, columns = s.swapped ? s.rows : s.columns;
    write_empty(s, rows, columns);
    return;
  }
  solve_in_block(s, reinterpret_cast<u64*>(shared), a.step_limit);
}

}  // namespace lmcfast::cuda
