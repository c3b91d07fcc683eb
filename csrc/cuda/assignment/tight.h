// Augmenting paths of tight pairs, from all free rows at once: where scores tie, most free rows end here, and need no
// shortest path each.
//
// A forest grows from the free rows over pairs with a[i,j] - p[j] = u[i], level by level, a warp for each row of the
// level. The first row to reach a column has it, so trees are disjoint, and every tree that meets a free column can be
// augmented. Rounds go on until none is. Prices stay as they are. Only listed columns are looked at: what the lists
// leave out is left to the shortest paths.
#pragma once

#include "lower.h"

namespace lmcfast::cuda {

struct Forest {
  int rows[2];  // of this level and of the next
  int augmented;
};

// Warp: u of a row without a column.
template <class T>
__device__ inline double free_row_profit(const State<T>& s, int i) {
  double best = -LMCFAST_INFINITY;
  for (int k = int(lane_id()); k < s.list_length[i]; k += 32)
    best = max(best, double(s.scores_listed(i)[k]) - s.price[s.columns_listed(i)[k]]);
  best = warp_max(best);
  if (best >= s.bound[i]) return best;
  for (int j = int(lane_id()); j < s.columns; j += 32) best = max(best, double(s.at(i, j)) - s.price[j]);
  return warp_max(best);
}

// Block: the roots, and no column reached. Workers are warps.
template <class T>
__device__ inline void plant_forest(const State<T>& s, Forest& forest, int* level, Workers warps) {
  const int left = int(s.control->left);
  for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x)) store(&s.reached_from[j], -1);
  for (int k = int(warps.rank); k < left; k += int(warps.count)) {
    const int root = s.left[k];
    const double profit = free_row_profit(s, root);
    if (lane_id() != 0) continue;
    level[k] = root;
    s.profit[root] = profit;
    s.label[root] = root;
    store(&s.tree_end[root], -1);
  }
  if (threadIdx.x == 0) {
    forest.rows[0] = left;
    forest.rows[1] = 0;
    forest.augmented = 0;
  }
  __syncthreads();
}

// Warp: the tight columns of row i that nobody has reached.
template <class T>
__device__ inline void grow_row(const State<T>& s, int i, int* next, int* next_rows) {
  const unsigned lane = lane_id();
  const int root = s.label[i], own = s.column_of[i], length = s.list_length[i];
  const double profit = own < 0 ? s.profit[i] : s.score[i] - s.price[own];
  for (int first = 0; first < length; first += 32) {
    if (__any_sync(kAll, load(&s.tree_end[root]) >= 0)) return;
    const int k = first + int(lane);
    int j = -1;
    if (k < length) {
      j = s.columns_listed(i)[k];
      const bool tight = double(s.scores_listed(i)[k]) - s.price[j] == profit;
      if (!tight || load(&s.reached_from[j]) != -1 || atomicCAS(&s.reached_from[j], -1, i) != -1) j = -1;
    }
    const int owner = j < 0 ? -1 : s.row_of[j];
    const unsigned ends = __ballot_sync(kAll, j >= 0 && owner < 0), grows = __ballot_sync(kAll, owner >= 0);
    if (ends) {
      if (int(lane) == __ffs(int(ends)) - 1) atomicCAS(&s.tree_end[root], -1, j);
      return;
    }
    int base = 0;
    if (lane == 0 && grows) base = atomicAdd(next_rows, __popc(grows));
    base = __shfl_sync(kAll, base, 0);
    if (owner >= 0) {
      next[base + __popc(grows & ((1u << lane) - 1))] = owner;
      s.label[owner] = root;
    }
  }
}

// One thread: takes the path that ends in column j.
template <class T>
__device__ inline void augment_tree(const State<T>& s, int root, int j) {
  for (int i = -1; i != root;) {
    i = s.reached_from[j];
    const int next = s.column_of[i];
    s.row_of[j] = i;
    s.column_of[i] = j;
    s.score[i] = double(s.at(i, j));
    j = next;
  }
}

// Block: augments every tree that has an end, and keeps the other roots in `left`.
template <class T>
__device__ inline void harvest_forest(const State<T>& s, Forest& forest, int* kept) {
  Control* const c = s.control;
  const int left = int(c->left);
  for (int k = int(threadIdx.x); k < left; k += int(blockDim.x)) {
    const int root = s.left[k], end = s.tree_end[root];
    if (end < 0) continue;
    augment_tree(s, root, end);
    atomicAdd(&forest.augmented, 1);
  }
  __syncthreads();
  if (threadIdx.x < 32) {  // in order
    int count = 0;
    for (int first = 0; first < left; first += 32) {
      const int k = first + int(lane_id()), root = k < left ? s.left[k] : -1;
      const unsigned stays = __ballot_sync(kAll, root >= 0 && s.column_of[root] < 0);
      if (stays >> lane_id() & 1) kept[count + __popc(stays & ((1u << lane_id()) - 1))] = root;
      count += __popc(stays);
    }
    __syncwarp();
    for (int k = int(lane_id()); k < count; k += 32) s.left[k] = kept[k];
    if (lane_id() == 0) c->left = unsigned(count);
  }
  __syncthreads();
}

// Block, on the float64 state: rounds until no tree meets a free column.
template <class T>
__device__ inline void match_tight_pairs(const State<T>& s) {
  LMCFAST_SHARED(Forest, forest, [1]);
  constexpr int kRounds = 64;
  Control* const c = s.control;
  const Workers warps = s.deterministic ? Workers{threadIdx.x / 32, 1} : block_warps();
  const bool works = warps.rank < warps.count;
  for (int round = 0; round < kRounds && c->left > 0; round++) {
    plant_forest(s, forest[0], s.order, works ? warps : Workers{~0u >> 1, 1});
    int now = 0;
    while (forest[0].rows[now] > 0) {
      int *const level = now ? s.touched : s.order, *const next = now ? s.order : s.touched;
      if (works)
        for (int k = int(warps.rank); k < forest[0].rows[now]; k += int(warps.count))
          grow_row(s, level[k], next, &forest[0].rows[1 - now]);
      __syncthreads();
      if (threadIdx.x == 0) forest[0].rows[now] = 0;
      now = 1 - now;
      __syncthreads();
    }
    harvest_forest(s, forest[0], s.order);
    if (threadIdx.x == 0) c->tight_rounds++;
    const int augmented = forest[0].augmented;
    __syncthreads();
    if (augmented == 0) return;
  }
}

}  // namespace lmcfast::cuda
