// Between the auction and the shortest paths: the prices of free columns fall as far as they can.
//
// In the auction a column that nobody wants any more keeps its price, and every path to it has to make up for that.
// Here p[j] of a free column becomes max_i (a[i,j] - u[i]): prices and profits still prove a bound, a smaller one, and
// some row now finds the column as good as its own. Where a row's bound does not cover a lowered column, its list is
// built again, since bounds are for prices that only rise.
#pragma once

#include "phases.h"

namespace lmcfast::cuda {

// u[i] of all rows at the prices in words, which the float64 state repeats. Workers are warps.
template <Scope scope, class T>
__device__ inline void write_profits(const State<T>& s, Workers w) {
  const double delta = s.control->delta;
  for (int64_t i = w.rank; i < s.rows; i += w.count) {
    const int j = s.column_of[i];
    const double profit = j >= 0 ? s.score[i] - s.price[j] : proven_best_two<scope>(s, int(i), delta).first;
    if (lane_id() == 0) s.profit[i] = profit;
  }
}

// Workers are warps. Lowered columns are noted in `order`.
template <class T>
__device__ inline void lower_free_columns(const State<T>& s, Workers w) {
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    if (s.row_of[j] >= 0) continue;
    double best = -LMCFAST_INFINITY;
    for (int i = int(lane_id()); i < s.rows; i += 32) best = max(best, double(s.at(i, int(j))) - s.profit[i]);
    best = warp_max(best);
    if (lane_id() != 0 || !(best < s.price[j]) || best == -LMCFAST_INFINITY) continue;
    s.price[j] = best;
    store(&s.floor_price[j], __double2float_rd(best));
    s.order[atomicAdd(&s.control->lowered, 1u)] = int(j);
  }
}

// Workers are warps.
template <Scope scope, class T>
__device__ inline void rebuild_exceeded_lists(const State<T>& s, Workers w) {
  const int lowered = int(s.control->lowered);
  if (lowered == 0) return;
  for (int64_t i = w.rank; i < s.rows; i += w.count) {
    double best = -LMCFAST_INFINITY;
    for (int k = int(lane_id()); k < lowered; k += 32) {
      const int j = s.order[k];
      best = max(best, double(s.at(int(i), j)) - s.price[j]);
    }
    if (warp_max(best) > s.bound[i]) scan<scope>(s, int(i), warp_team(), Stage::paths);
  }
}

}  // namespace lmcfast::cuda
