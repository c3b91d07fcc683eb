// The proof of a result, from a fresh read of the scores, and the results in the caller's orientation.
#pragma once

#include "paths.h"

namespace lmcfast::cuda {

constexpr int kRowsAtOnce = 4;  // that share each load of a price

// u[i] = max_j (a[i,j] - p[j]) in float64, and the score of the assigned pair. Workers are warps.
template <class T>
__device__ inline void read_profits(const State<T>& s, Workers w) {
  for (int64_t first = int64_t(w.rank) * kRowsAtOnce; first < s.rows; first += int64_t(w.count) * kRowsAtOnce) {
    const int rows = int(min(int64_t(kRowsAtOnce), s.rows - first));
    double best[kRowsAtOnce];
    for (int k = 0; k < kRowsAtOnce; k++) best[k] = -LMCFAST_INFINITY;
    for (int j = int(lane_id()); j < s.columns; j += 32) {
      const double price = s.price[j];
      for (int k = 0; k < kRowsAtOnce; k++)
        if (k < rows) best[k] = max(best[k], double(s.at(int(first) + k, j)) - price);
    }
    for (int k = 0; k < kRowsAtOnce; k++) {
      const double profit = warp_max(best[k]);
      if (lane_id() != 0 || k >= rows) continue;
      const int i = int(first) + k, j = s.column_of[i];
      s.profit[i] = profit;
      if (j >= 0) s.score[i] = double(s.at(i, j));
    }
  }
}

// Sums over a part of the rows and columns.
struct Proof {
  ExactSum value, gap;
  double scale = 0;
  int assigned = 0;
  bool consistent = true;  // row_of and column_of are inverse, and unassigned columns have the lowest price, 0
};

template <class T>
__device__ inline Proof prove_part(const State<T>& s) {
  Proof proof;
  for (int i = int(threadIdx.x); i < s.rows; i += int(blockDim.x)) {
    const int j = s.column_of[i];
    if (j < 0 || j >= s.columns || s.row_of[j] != i) {
      proof.consistent = false;
      continue;
    }
    proof.assigned++;
    proof.value.add(s.score[i]);
    proof.gap.add(-s.score[i]);
    proof.gap.add(s.profit[i]);
    proof.scale = max(proof.scale, fabs(s.score[i]));
  }
  for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x)) {
    const double price = s.price[j];
    proof.gap.add(price);
    proof.scale = max(proof.scale, fabs(price));
    if (s.rows < s.columns && (s.row_of[j] < 0 ? price != 0 : price < 0)) proof.consistent = false;
  }
  return proof;
}

__device__ inline void warp_join(Proof& p) {
  warp_sum(p.value);
  warp_sum(p.gap);
  p.scale = warp_max(p.scale);
  for (int d = 16; d > 0; d >>= 1) p.assigned += __shfl_xor_sync(kAll, p.assigned, d);
  p.consistent = __all_sync(kAll, p.consistent);
}

// One thread: the report, of a solve that ended in whatever way.
template <class T>
__device__ inline void write_report(const State<T>& s, const Proof& proof) {
  Control* const c = s.control;
  AssignmentReport r = {};
  r.row = r.column = -1;
  r.objective = double(s.sign) * proof.value.value();
  r.gap = proof.gap.value();
  r.scale = proof.scale;
  if (c->status & kInvalidScore) {
    r.row = int64_t(c->invalid / u64(s.columns));
    r.column = int64_t(c->invalid % u64(s.columns));
    r.value = double(s.sign) * double(s.at(int(r.row), int(r.column)));
  } else if (c->status & kInfeasible) {
    r.row = int64_t(c->infeasible_row) - 1;
  }
  if (s.swapped) {
    const int64_t row = r.row;
    r.row = r.column;
    r.column = row;
  }
  const bool proved = proof.consistent && proof.assigned == s.rows && !(c->status & kInvalidScore) &&
                      fabs(r.gap) <= 16. * s.rows * 0x1p-53 * proof.scale;
  r.status = c->status | (proved ? 0 : unsigned(kNotCertified));
  r.warm = c->warm;
  r.bids = int64_t(c->bids);
  r.lost_bids = int64_t(c->lost);
  r.scans = int64_t(c->scans);
  r.exact_scans = int64_t(c->exact_scans);
  r.tight_rounds = int64_t(c->tight_rounds);
  r.paths = int64_t(c->paths);
  r.path_steps = int64_t(c->steps);
  r.dense_steps = int64_t(c->dense_steps);
  r.phases = c->phase;
  r.free_after_bids = c->free_after_bids;
  r.free_after_phases = c->free_after_phases;
  r.free_before_paths = c->free_before_paths;
  r.left = s.rows - proof.assigned;
  *s.report = r;
}

// One block, in a fixed order.
template <class T>
__device__ inline void certify(const State<T>& s) {
  LMCFAST_SHARED(Proof, part, [32]);
  Proof proof = prove_part(s);
  warp_join(proof);
  if (lane_id() == 0) part[threadIdx.x / 32] = proof;
  __syncthreads();
  if (threadIdx.x < 32) {
    proof = Proof{};
    if (threadIdx.x < blockDim.x / 32) proof = part[threadIdx.x];
    warp_join(proof);
    if (threadIdx.x == 0) write_report(s, proof);
  }
  __syncthreads();
}

// Results in the caller's orientation. The price of a caller's column is, after a swap, the profit of a row here.
template <class T>
__device__ inline void publish(const State<T>& s, Workers w) {
  const double sign = double(s.sign);
  for (int64_t i = w.rank; i < s.rows; i += w.count) {
    if (s.swapped) s.prices_out[i] = sign * s.profit[i];
    else s.columns_out[i] = s.column_of[i];
    if (!s.swapped && s.profits_out) s.profits_out[i] = sign * s.profit[i];
  }
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    if (s.swapped) s.columns_out[j] = s.row_of[j];
    else s.prices_out[j] = sign * s.price[j];
    if (s.swapped && s.profits_out) s.profits_out[j] = sign * s.price[j];
  }
}

}  // namespace lmcfast::cuda
