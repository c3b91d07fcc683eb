// Shortest augmenting paths in float64, one block, with lazily read rows and an argmin over chunks.
//
// Dijkstra over reduced scores u[i] - a[i,j] + p[j] >= 0 (Jonker and Volgenant, Computing 38 (1987) 325-340). A row
// that joins the tree relaxes only its list. The columns outside are at least u[i] - bound[i] away from it, so that
// distance is an event of its own: when the search gets there, the whole row is relaxed, once. key[j]: distance so far
// of a column outside the tree; of a column in the tree: the distance of its row's event. least[c]: the minimum of the
// keys of chunk c. A relaxation lowers it; taking a column refreshes the minimum of that one chunk, so a step costs
// about the same however many columns there are. One warp takes the steps; the block relaxes whole rows, begins and
// ends paths.
#pragma once

#include "tight.h"

namespace lmcfast::cuda {

// What the walking warp and the block tell each other, in shared memory.
struct Search {
  double reach;   // distance that the search has come to
  double end_at;  // distance of the nearest free column
  double from;    // of the row to relax: its distance plus its profit
  double root_event, root_profit;
  u64 best;  // reduction of the block
  u64 steps, dense_steps;
  int row;              // to relax as a whole; -1: the search has ended
  int taken;            // columns in the tree, in `order`
  int touched;          // columns whose key is finite
  int end;              // the free column
  unsigned everywhere;  // a whole row was relaxed: any key may be finite
};

template <class T>
struct Paths {
  const State<T>& s;
  u64* least;
  double* key;
  Search& search;
  int chunks;

  __device__ Paths(const State<T>& state, u64* minima, double* keys, Search& shared)
      : s(state), least(minima), key(keys), search(shared), chunks((state.columns + kChunk - 1) / kChunk) {}

  __device__ bool in_tree(int j) const { return s.distance[j] < LMCFAST_INFINITY; }

  // Block: no key is finite.
  __device__ void clear_all() const {
    const u64 far = distance_key(LMCFAST_INFINITY);
    for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x)) key[j] = s.distance[j] = LMCFAST_INFINITY;
    for (int c = int(threadIdx.x); c < chunks; c += int(blockDim.x)) least[c] = far;
    __syncthreads();
  }

  // Block: the same after a path.
  __device__ void clear_touched() const {
    if (search.everywhere) return clear_all();
    const u64 far = distance_key(LMCFAST_INFINITY);
    for (int k = int(threadIdx.x); k < search.touched; k += int(blockDim.x)) {
      const int j = s.touched[k];
      key[j] = s.distance[j] = LMCFAST_INFINITY;
      store<Scope::block>(&least[j / kChunk], far);  // several threads may, for one chunk
    }
    __syncthreads();
  }

  // Block: u of a free row.
  __device__ double row_profit(int i) const {
    const int length = s.list_length[i];
    double best = -LMCFAST_INFINITY;
    for (int k = int(threadIdx.x); k < length; k += int(blockDim.x))
      best = max(best, double(s.scores_listed(i)[k]) - s.price[s.columns_listed(i)[k]]);
    best = block_max(best);
    if (best >= s.bound[i]) return best;
    best = -LMCFAST_INFINITY;
    for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x))
      best = max(best, double(s.at(i, j)) - s.price[j]);
    return block_max(best);
  }

  __device__ double block_max(double v) const {
    if (threadIdx.x == 0) search.best = 0;
    __syncthreads();
    const u64 most = warp_max(ordered(v));
    if (lane_id() == 0) atomicMax(&search.best, most);
    __syncthreads();
    const double result = value_of(search.best);
    __syncthreads();
    return result;
  }

  __device__ void begin(double profit) const {
    if (threadIdx.x == 0) {
      search.reach = 0;
      search.end_at = LMCFAST_INFINITY;
      search.root_event = LMCFAST_INFINITY;
      search.root_profit = profit;
      search.taken = search.touched = 0;
      search.everywhere = 0;
      search.end = INT_MAX;
    }
    __syncthreads();
  }

  // Warp: the chunk with the least key, and that key.
  __device__ double nearest(int& chunk) const {
    u64 best = ~0ull;
    int at = 0;
    for (int c = int(lane_id()); c < chunks; c += 32) {
      if (least[c] < best) {
        best = least[c];
        at = c;
      }
    }
    const u64 top = warp_min(best);
    chunk = int(warp_min(best == top ? unsigned(at) : ~0u));
    return distance_of(top);
  }

  // Warp: takes the column of the chunk with this key (the lowest such), gives it a new key, refreshes the minimum.
  __device__ int take(int chunk, double at) const {
    constexpr int kEach = kChunk / 32;
    const int first = chunk * kChunk + int(lane_id());
    double keys[kEach];
    int mine = INT_MAX;
    for (int k = kEach - 1; k >= 0; k--) {
      const int j = first + 32 * k;
      keys[k] = j < s.columns ? key[j] : LMCFAST_INFINITY;
      if (keys[k] == at) mine = j;
    }
    const int column = int(warp_min(unsigned(mine)));
    double rest = LMCFAST_INFINITY;
    for (int k = 0; k < kEach; k++)
      if (first + 32 * k != column) rest = min(rest, keys[k]);
    const u64 minimum = warp_min(distance_key(rest));
    __syncwarp();  // all lanes have read the minima
    if (lane_id() == 0) least[chunk] = minimum;
    return column;
  }

  // Warp: lowers keys over the list of row i; none can be below `least_key`. Returns the nearest free column's
  // distance.
  __device__ double relax_list(int i, double from, double least_key, double end_at) const {
    const int length = s.list_length[i];
    double end = LMCFAST_INFINITY;
    for (int k = int(lane_id()); k < length; k += 32) {
      const int j = s.columns_listed(i)[k];
      if (in_tree(j)) continue;
      const double through = max(least_key, from + s.price[j] - double(s.scores_listed(i)[k]));
      if (!(through < key[j]) || !(through < end_at)) continue;
      if (key[j] == LMCFAST_INFINITY) s.touched[atomicAdd(&search.touched, 1)] = j;
      key[j] = through;
      s.reached_from[j] = i;
      atomicMin(&least[j / kChunk], distance_key(through));
      if (s.row_of[j] < 0) end = min(end, through);
    }
    __syncwarp();
    return min(end_at, distance_of(warp_min(distance_key(end))));
  }

  // Warp 0: steps until the search ends or a whole row is wanted. `root`: the path has just begun, at that row.
  __device__ void walk(int root, bool begun) const {
    double reach = search.reach, end_at = search.end_at, root_event = search.root_event;
    u64 steps = 0;
    int taken = search.taken, want = -1;
    double from = 0;
    if (begun) {
      steps++;
      root_event = search.root_profit - s.bound[root];
      end_at = relax_list(root, search.root_profit, reach, end_at);
    }
    while (true) {
      int chunk;
      const double at = nearest(chunk);
      if (end_at <= min(at, root_event) || min(at, root_event) == LMCFAST_INFINITY) break;
      steps++;
      reach = max(reach, min(at, root_event));
      if (root_event <= at) {
        root_event = LMCFAST_INFINITY;
        from = search.root_profit;
        want = root;
        break;
      }
      const int column = take(chunk, at), row = s.row_of[column];
      const bool event = in_tree(column);
      const double distance = event ? s.distance[column] : at;
      from = distance + (s.score[row] - s.price[column]);
      if (event) {
        __syncwarp();
        if (lane_id() == 0) key[column] = LMCFAST_INFINITY;
        want = row;
        break;
      }
      const double next_event = max(at, from - s.bound[row]);
      __syncwarp();
      if (lane_id() == 0) {
        s.distance[column] = at;
        s.order[taken] = column;
        key[column] = next_event;
        least[chunk] = min(least[chunk], distance_key(next_event));
      }
      taken++;
      __syncwarp();
      end_at = relax_list(row, from, reach, end_at);
    }
    __syncwarp();
    if (lane_id() == 0) {
      search.reach = reach;
      search.end_at = end_at;
      search.root_event = root_event;
      search.from = from;
      search.taken = taken;
      search.row = want;
      search.steps += steps;
    }
  }

  // Block: lowers keys over the whole row search.row, a chunk for each warp.
  __device__ void relax_row() const {
    const int i = search.row;
    const double from = search.from, reach = search.reach, end_at = search.end_at;
    double end = LMCFAST_INFINITY;
    if (threadIdx.x == 0) search.best = distance_key(end_at);
    __syncthreads();
    for (int c = int(threadIdx.x / 32); c < chunks; c += int(blockDim.x / 32)) {
      double minimum = LMCFAST_INFINITY;
      for (int j = c * kChunk + int(lane_id()); j < min(s.columns, (c + 1) * kChunk); j += 32) {
        double k = key[j];
        if (!in_tree(j)) {
          const double through = max(reach, from + s.price[j] - double(s.at(i, j)));
          if (through < k && through < end_at) {
            k = key[j] = through;
            s.reached_from[j] = i;
            if (s.row_of[j] < 0) end = min(end, through);
          }
        }
        minimum = min(minimum, k);
      }
      const u64 lowest = warp_min(distance_key(minimum));
      if (lane_id() == 0) least[c] = lowest;
    }
    const u64 nearest_end = warp_min(distance_key(end));
    if (lane_id() == 0) atomicMin(&search.best, nearest_end);
    __syncthreads();
    if (threadIdx.x == 0) {
      search.end_at = distance_of(search.best);
      search.everywhere = 1;
      search.dense_steps++;
    }
    __syncthreads();
  }

  // Block: the lowest free column at the end's distance.
  __device__ void find_end() const {
    const double end_at = search.end_at;
    const int count = search.everywhere ? s.columns : search.touched;
    for (int k = int(threadIdx.x); k < count; k += int(blockDim.x)) {
      const int j = search.everywhere ? k : s.touched[k];
      if (s.row_of[j] < 0 && key[j] == end_at) atomicMin(&search.end, j);
    }
    __syncthreads();
  }

  __device__ void raise_prices() const {
    const double end_at = search.end_at;
    for (int k = int(threadIdx.x); k < search.taken; k += int(blockDim.x)) {
      const int j = s.order[k];
      s.price[j] += max(0., end_at - s.distance[j]);
    }
    __syncthreads();
  }

  // Block: assigns row `root`. False: no path exists.
  __device__ bool augment(int root) const {
    const double profit = row_profit(root);
    if (profit == -LMCFAST_INFINITY) return false;
    begin(profit);
    bool begun = true;
    while (true) {
      if (threadIdx.x < 32) walk(root, begun);
      begun = false;
      __syncthreads();
      if (search.row < 0) break;
      relax_row();
    }
    const bool found = search.end_at < LMCFAST_INFINITY;
    if (found) {
      find_end();
      raise_prices();
      if (threadIdx.x == 0) augment_tree(s, root, search.end);
    }
    __syncthreads();
    clear_touched();
    return found;
  }
};

// When a series of paths stops before the last one; asked between two paths.
struct PathBudget {
  u64 steps;     // whatever happens, so many are allowed
  u64 each;      // and so many more for each path found
  u64 estimate;  // or as long as the steps so far, carried on to the rows left, stay below this
  __device__ bool allows(u64 taken, u64 found, u64 left) const {
    if (taken <= steps + each * found) return true;
    return found > 0 && taken + taken / found * left <= estimate;
  }
};

// Assigns the rows in `left`, one block, as far as the budget goes. `least` holds a word for each chunk.
template <class T>
__device__ inline void run_paths(const State<T>& s, u64* least, double* keys, PathBudget budget) {
  LMCFAST_SHARED(Search, search, [1]);
  Control* const c = s.control;
  const Paths<T> paths(s, least, keys, search[0]);
  if (threadIdx.x == 0) search[0].steps = search[0].dense_steps = 0;
  paths.clear_all();
  const unsigned all = c->left;
  unsigned left = all;
  int infeasible = 0;
  const u64 whole_row = 1 + u64(s.columns) / 8192;  // cost of relaxing one, in steps
  while (left > 0 && budget.allows(search[0].steps + whole_row * search[0].dense_steps, all - left, left)) {
    const int root = s.left[left - 1];
    if (!paths.augment(root)) {
      infeasible = root + 1;
      break;
    }
    left--;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    c->steps += search[0].steps;
    c->dense_steps += search[0].dense_steps;
    c->paths += all - left;
    c->left = left;
    if (infeasible) {
      c->infeasible_row = unsigned(infeasible);
      c->status |= kInfeasible;
      c->finished = c->settled = 1;
    }
  }
  __syncthreads();
}

// One thread: is this the end of the auction before it began? See begin_auction.
template <class T>
__device__ inline bool needs_no_auction(const State<T>& s) {
  const Control* const c = s.control;
  return c->uneven || c->left <= few_rows(s) || c->status & kInfeasible;
}

// Before any phase, one block: tight pairs, and shortest paths while they promise to be cheap; never is a nearly
// complete assignment dropped first. Where columns stay unassigned there are no phases, and prices must not be rounded.
template <class T>
__device__ inline void attempt_paths(const State<T>& s, u64* least, double* keys) {
  Control* const c = s.control;
  const bool square = s.rows == s.columns;
  forget_columns(s, block_threads());
  __syncthreads();
  if (threadIdx.x == 0) c->free_after_bids = c->left;
  read_words(s, block_threads());
  __syncthreads();
  if (square) {
    match_tight_pairs(s);
    if (c->left <= unsigned(s.rows / 4)) run_paths(s, least, keys, {200 + u64(s.rows / 50), 8, 1000 + u64(s.rows / 2)});
  }
  const bool settled = !square || needs_no_auction(s) || !write_words(s);
  __syncthreads();
  if (threadIdx.x == 0) c->settled = settled;
  __syncthreads();
}

// The rest. `first`: this is not a continuation.
template <class T>
__device__ inline void finish_paths(const State<T>& s, u64* least, double* keys, u64 step_limit, bool first) {
  Control* const c = s.control;
  if (c->status & (kInvalidScore | kInfeasible)) return;
  __syncthreads();
  if (threadIdx.x == 0) c->status &= ~unsigned(kUnfinished);
  if (first) match_tight_pairs(s);
  if (first && threadIdx.x == 0) c->free_before_paths = c->left;
  run_paths(s, least, keys, {step_limit, 0, 0});
  if (threadIdx.x == 0 && c->left > 0 && !(c->status & kInfeasible)) c->status |= kUnfinished;
  __syncthreads();
}

}  // namespace lmcfast::cuda
