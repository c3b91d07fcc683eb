// Candidate lists: a row's best columns at its last scan, and a bound on its value in all others.
//
// The list holds every column whose key reaches a threshold, the least of 16 class maxima; the threshold itself bounds
// the rest. Prices only rise, so the bound stays valid. Keys are 32 bits, rounded so that the bound is rigorous: scores
// up to float32 as a[i,j] - p[j] in float32, rounded up; float64 scores as the upper half of the float64 difference.
#pragma once

#include "keys.h"
#include "rows.h"
#include "words.h"

namespace lmcfast::cuda {

// When a row is scanned: before the auction, at start prices; in it, at the prices in words; after it, at the float64
// prices of the shortest paths.
enum class Stage { start, auction, paths };

// The prices that a scan sees. Here and below `scope`: the threads that share the problem's words and lists; those of
// one block find them in the cache of its multiprocessor.
template <Scope scope, class T>
struct ScanPrices {
  const State<T>& s;
  Stage stage;
  bool zero;
  double delta;
  __device__ ScanPrices(const State<T>& state, Stage at)
      : s(state), stage(at), zero(at == Stage::start && !state.start_prices), delta(state.control->delta) {}
  __device__ double exact_price(int j) const {
    if (zero) return 0;
    return stage == Stage::auction ? word_price(load<scope>(&s.word[j]), delta) : s.price[j];
  }
  __device__ float floor_price(int j) const { return zero ? 0.f : load<scope>(&s.floor_price[j]); }
};

// Keys of values, by how scores are stored.
template <class E>
struct Keys;

template <>
struct Keys<float> {
  template <class Prices>
  __device__ static unsigned key(float score, const Prices& prices, int j, float& price) {
    price = prices.floor_price(j);
    return ordered(__fsub_ru(score, price));
  }
  __device__ static double bound(unsigned key) { return double(value_of(key)); }
  // Are values this far apart told apart by their keys?
  __device__ static bool resolved(double top, double threshold, double magnitude) {
    return top - threshold > 1e-6 * (fabs(top) + magnitude);
  }
};

template <>
struct Keys<double> {
  template <class Prices>
  __device__ static unsigned key(double score, const Prices& prices, int j, double& price) {
    price = prices.exact_price(j);
    return unsigned(ordered(score - price) >> 32);
  }
  __device__ static double bound(unsigned key) { return value_of(u64(key) << 32); }
  __device__ static bool resolved(double top, double threshold, double) {
    return top - threshold > 1e-5 * (fabs(top) + fabs(threshold));
  }
};

template <class E>
__device__ inline unsigned forbidden_key() {
  if constexpr (sizeof(E) == 4) return ordered(float(-LMCFAST_INFINITY));
  else return unsigned(ordered(-LMCFAST_INFINITY) >> 32);
}

__device__ inline bool valid_score(float s) { return s < float(LMCFAST_INFINITY); }
__device__ inline bool valid_score(double s) { return s <= 0x1p1000 && (s >= -0x1p1000 || s == -LMCFAST_INFINITY); }

// What a first look at a row found.
struct RowSummary {
  unsigned top, threshold, low;  // keys of the best, of what a list must reach, of the worst allowed pair
  double magnitude;              // largest |score| and price among allowed pairs
};

template <class T>
__device__ inline void look_at_score(const State<T>& s, Exact<T> score, unsigned key, Exact<T> price, int64_t index,
                                     unsigned& top, unsigned& low, Exact<T>& magnitude) {
  top = max(top, key);
  if (key > forbidden_key<Exact<T>>()) low = min(low, key);
  const Exact<T> size = fabs(score);
  if (size < Exact<T>(LMCFAST_INFINITY)) magnitude = max(magnitude, max(size, price));
  if (!valid_score(score)) atomicMin(&s.control->invalid, u64(index));
}

// The first pass over a row: class maxima of the keys, and the checks.
template <Scope scope, class Row, bool Block, class T>
__device__ inline RowSummary summarise_row(const State<T>& s, const Row& row, const Team<Block>& team,
                                           const ScanPrices<scope, T>& prices) {
  unsigned top = 0, low = ~0u;
  Exact<T> magnitude = 0;
  row.first_look(team, [&](int j, Exact<T> score) {
    Exact<T> price;
    const unsigned key = Keys<Exact<T>>::key(score, prices, j, price);
    look_at_score(s, score, key, price, int64_t(row.row) * s.columns + j, top, low, magnitude);
  });
  top = max(top, __shfl_xor_sync(kAll, top, 16));  // lanes l and l + 16 are one class
  low = warp_min(low);
  u64 largest = warp_max(ordered(double(magnitude)));
  if (Block) {
    team.sync();
    if (team.rank < kScanScratch) team.scratch[team.rank] = 0;
    team.sync();
    if (lane_id() < kClasses) atomicMax(&team.scratch[lane_id()], top);
    // The upper half is enough for a magnitude; rounded up.
    if (lane_id() == 0) {
      atomicMax(&team.scratch[kClasses], unsigned(largest >> 32));
      atomicMax(&team.scratch[kClasses + 2], ~low);
    }
    team.sync();
    top = team.scratch[lane_id() % kClasses];
    largest = (u64(team.scratch[kClasses]) << 32) + 0xffffffffu;
    low = ~team.scratch[kClasses + 2];
  }
  return {warp_max(top), warp_min(top), low, value_of(largest)};
}

// The second pass: entries whose key reaches the threshold. Returns how many there are; only the first `capacity` are
// kept.
template <Scope scope, class Row, bool Block, class T>
__device__ inline int collect(const State<T>& s, const Row& row, const Team<Block>& team,
                              const ScanPrices<scope, T>& prices, unsigned threshold) {
  int* const columns = s.columns_listed(row.row);
  Exact<T>* const scores = s.scores_listed(row.row);
  const unsigned forbidden = forbidden_key<Exact<T>>();
  unsigned* const counter = Block ? &team.scratch[kClasses + 1] : nullptr;
  int count = 0;
  for (int first = 0; first < s.columns; first += int(team.size)) {
    const int j = first + int(team.rank);
    const bool inside = j < s.columns;
    const Exact<T> score = inside ? row.again(j) : Exact<T>(0);
    Exact<T> price;
    const unsigned key = inside ? Keys<Exact<T>>::key(score, prices, j, price) : 0;
    const bool take = inside && key >= threshold && key > forbidden;
    const unsigned taken = __ballot_sync(kAll, take);
    if (taken == 0) continue;
    int base = count;
    if (Block) {
      if (lane_id() == 0) base = int(atomicAdd(counter, unsigned(__popc(taken))));
      base = __shfl_sync(kAll, base, 0);
    } else {
      count += __popc(taken);
    }
    const int at = base + __popc(taken & ((1u << lane_id()) - 1));
    if (take && at < s.capacity) {
      store_owned<scope>(&columns[at], j);
      store_owned<scope>(&scores[at], score);
    }
  }
  team.sync();
  return Block ? int(*counter) : count;
}

// Ties, or values closer than keys can tell apart: the columns in 128 classes, the best of each in float64, and the
// best of all that were left out as an exact bound. One warp.
template <Scope scope, class Row, class T>
__device__ inline void scan_exactly(const State<T>& s, const Row& row, const ScanPrices<scope, T>& prices) {
  const unsigned lane = lane_id();
  double best[4], excluded = -LMCFAST_INFINITY;
  int column[4];
  for (int c = 0; c < 4; c++) best[c] = -LMCFAST_INFINITY, column[c] = -1;
  const int turn = int(u64(row.row) * 2654435761u % u64(s.columns));  // an order of the row's own spreads ties
  for (int first = 0; first < s.columns; first += 128) {
    for (int c = 0; c < 4; c++) {
      const int i = first + 32 * c + int(lane);
      if (i >= s.columns) continue;
      const int j = i + turn < s.columns ? i + turn : i + turn - s.columns;
      const double v = double(row.again(j)) - prices.exact_price(j);
      if (v > best[c]) {
        excluded = max(excluded, best[c]);
        best[c] = v;
        column[c] = j;
      } else {
        excluded = max(excluded, v);
      }
    }
  }
  const double bound = warp_max(excluded);
  int count = 0;
  for (int c = 0; c < 4; c++) {
    const unsigned has = __ballot_sync(kAll, column[c] >= 0);
    const int at = count + __popc(has & ((1u << lane) - 1));
    if (column[c] >= 0) {
      store_owned<scope>(&s.columns_listed(row.row)[at], column[c]);
      store_owned<scope>(&s.scores_listed(row.row)[at], row.again(column[c]));
    }
    count += __popc(has);
  }
  if (lane == 0) {
    store_owned<scope>(&s.list_length[row.row], count);
    store_owned<scope>(&s.bound[row.row], bound);
    atomicAdd(&s.control->exact_scans, 1ull);
  }
}

// The scale of a row: how far its best value lies above those that a list must reach; a part of its range on ties.
template <class E>
__device__ inline double row_unit(const RowSummary& found) {
  if (found.low > found.top) return 0;  // no allowed pair
  const double top = Keys<E>::bound(found.top), range = top - Keys<E>::bound(found.low);
  const double spread = found.threshold > forbidden_key<E>() ? top - Keys<E>::bound(found.threshold) : 0;
  return spread > 1e-6 * range ? spread : 1e-3 * range;
}

template <class T>
__device__ inline void count_scan(const State<T>& s) {
  atomicAdd(&s.control->scans, 1ull);
  atomicAdd(&s.control->spent, 8ull);  // a scan is paid for like 8 bids
}

// Builds the list of a row.
template <Scope scope, class Row, bool Block, class T>
__device__ inline void scan_row(const State<T>& s, const Row& row, const Team<Block>& team, Stage stage) {
  const ScanPrices<scope, T> prices(s, stage);
  team.sync();
  const RowSummary found = summarise_row(s, row, team, prices);
  const unsigned forbidden = forbidden_key<Exact<T>>();
  const unsigned threshold = s.columns <= s.full_list ? 0 : found.threshold;
  const int count = collect(s, row, team, prices, threshold);
  const bool whole = threshold <= forbidden;
  const double top = Keys<Exact<T>>::bound(found.top);
  const double rest = whole ? -LMCFAST_INFINITY : Keys<Exact<T>>::bound(threshold);
  if (count > s.capacity || !(whole || Keys<Exact<T>>::resolved(top, rest, found.magnitude))) {
    if (team.rank < 32) scan_exactly(s, row, prices);
  } else if (team.rank == 0) {
    store_owned<scope>(&s.list_length[row.row], count);
    store_owned<scope>(&s.bound[row.row], rest);
  }
  if (team.rank == 0 && stage == Stage::start) {
    s.unit[row.row] = row_unit<Exact<T>>(found);
    s.magnitude[row.row] = found.magnitude;
  }
  if (team.rank == 0 && stage != Stage::start) count_scan(s);
  team.sync();
}

template <Scope scope, bool Block, class T>
__device__ inline void scan(const State<T>& s, int row, const Team<Block>& team, Stage stage) {
  scan_row<scope>(s, RowInPlace<T>{s, row}, team, stage);
}

// One warp: the same in the auction, without keys.
template <Scope scope, class T>
__device__ inline void scan_again_exactly(const State<T>& s, int row) {
  __syncwarp();
  scan_exactly(s, RowInPlace<T>{s, row}, ScanPrices<scope, T>(s, Stage::auction));
  if (lane_id() == 0) count_scan(s);
  __syncwarp();
}

}  // namespace lmcfast::cuda
