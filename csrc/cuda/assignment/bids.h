// Bids on candidate lists, as asynchronous chains.
//
// A warp takes a row, bids, and goes on with the row that it displaced, until a free column ends the chain. A bid
// formed with older, lower prices is only a lower bid: the row keeps eps-complementary slackness. If the price has
// passed it meanwhile the atomic maximum fails, and the row bids again.
#pragma once

#include "lists.h"

namespace lmcfast::cuda {

constexpr double kResolved = 16;  // units of the prices that a row's scale must have

struct BestTwo {
  double first, second;
  int column;  // -1: the list is empty
  u64 word;
  double score;
};

// Of equal columns a free one, else one that depends on the row.
template <Scope scope, class T>
__device__ inline BestTwo best_two(const State<T>& s, int row, double delta) {
  const unsigned lane = lane_id();
  const int length = load_owned<scope>(&s.list_length[row]);
  const int* const columns = s.columns_listed(row);
  const Exact<T>* const scores = s.scores_listed(row);
  double first = -LMCFAST_INFINITY, second = -LMCFAST_INFINITY, score = 0;
  int column = -1;
  u64 word = 0;
  for (int k = int(lane); k < length; k += 32) {
    const int j = load_owned<scope>(&columns[k]);
    const double a = double(load_owned<scope>(&scores[k]));
    const u64 w = load<scope>(&s.word[j]);
    const double v = a - word_price(w, delta);
    if (v > first || (v == first && is_free(w) && !is_free(word))) {
      second = first;
      first = v;
      column = j;
      word = w;
      score = a;
    } else {
      second = max(second, v);
    }
  }
  const u64 key = ordered(first), top = warp_max(key);
  const unsigned best = __ballot_sync(kAll, key == top);
  const unsigned open = __ballot_sync(kAll, key == top && column >= 0 && is_free(word));
  const unsigned choice = open ? open : best, turn = unsigned(row) % 32;
  const unsigned turned = turn ? choice >> turn | choice << (32 - turn) : choice;
  const int from = (__ffs(int(turned)) - 1 + int(turn)) % 32;
  const u64 next = warp_max(ordered(int(lane) == from ? second : first));
  return {value_of(top), value_of(next), __shfl_sync(kAll, column, from), __shfl_sync(kAll, word, from),
          __shfl_sync(kAll, score, from)};
}

// Scans the row again until its list proves the best value, i.e. reaches the bound on all other columns. Keys may give
// a bound that the best value does not reach, at a price that rose between the passes or a floor price on its way;
// float64 gives none unless prices rise again, so that the loop ends.
template <Scope scope, class T>
__device__ inline BestTwo proven_best_two(const State<T>& s, int row, double delta) {
  for (bool exactly = false;; exactly = true) {
    BestTwo best = best_two<scope>(s, row, delta);
    const double bound = load_owned<scope>(&s.bound[row]);
    if (best.first >= bound) {
      best.second = max(best.second, bound);
      return best;
    }
    if (exactly) scan_again_exactly<scope>(s, row);
    else scan<scope>(s, row, warp_team(), Stage::auction);
  }
}

// What a row offers for its best column: the price at which it would as soon have its second best, plus eps.
struct Offer {
  u64 units;
  bool possible;
};

__device__ inline Offer make_offer(const BestTwo& best, double eps, double delta, double inverse_delta,
                                   unsigned* status) {
  if (best.column < 0) return {0, false};
  const double second = best.second == -LMCFAST_INFINITY ? best.first : best.second;
  u64 raise = u64(min((best.first - second + eps) * inverse_delta, 1e18)), units = units_of(best.word) + raise;
  if (eps == 0) {
    // Rounded down, the bidder's slackness stays exact.
    if (raise > 0 && best.score - price_of(units, delta) < second) units--, raise--;
    if (raise == 0 && !is_free(best.word)) return {units, false};  // a tie without a free column: for the paths
  }
  if (units >= kPriceLimit) {
    if (lane_id() == 0) atomicOr(status, unsigned(kPriceOverflow));
    return {units, false};
  }
  return {units, true};
}

// Rows below the resolution of the prices bid without a tolerance, and are left to the paths where they tie: with one,
// they would only drive prices.
template <class T>
__device__ inline double tolerance(const State<T>& s, int row, double eps, double delta) {
  return eps == 0 || s.unit[row] < kResolved * delta ? 0 : eps;
}

struct ChainCounts {
  u64 bids = 0, lost = 0;
};

// A maximum, since a later bid's price may get there first. Prices in words are not negative: bits are ordered like
// values.
__device__ inline void raise_floor_price(float* at, float price) {
  atomicMax(reinterpret_cast<unsigned*>(at), __float_as_uint(price));
}

// Lane 0 places the bid. Returns the row to go on with: the displaced one, -1 after a free column, or the same again.
template <Scope scope, class T>
__device__ inline int place_bid(const State<T>& s, int row, const BestTwo& best, u64 units, double delta,
                                ChainCounts& counts) {
  Control* const c = s.control;
  const u64 mine = make_word(units, row), old = fetch_max<scope>(&s.word[best.column], mine);
  counts.bids++;
  if (counts.bids % 8 == 0) atomicAdd(&c->spent, 8ull);
  if (old >= mine) {
    counts.lost++;
    return row;
  }
  raise_floor_price(&s.floor_price[best.column], __double2float_rd(price_of(units, delta)));
  if (is_free(old)) atomicAdd(&c->done, 1u);
  return owner_of(old);
}

// The next row of the queue, or -1.
template <class T>
__device__ inline int take_from_queue(const State<T>& s, unsigned count) {
  unsigned at = 0;
  if (lane_id() == 0) at = atomicAdd(&s.control->head, 1u);
  at = __shfl_sync(kAll, at, 0);
  return at < count ? s.queue[at] : -1;
}

template <Scope scope, class T>
__device__ inline void run_chains(const State<T>& s, double eps) {
  Control* const c = s.control;
  const double delta = c->delta, inverse_delta = c->inverse_delta;
  const unsigned count = c->count, target = c->target;
  const u64 limit = c->spent_limit;
  ChainCounts counts;
  bool stop = false;
  int row = -1, made = 0;
  while (true) {
    if (row < 0) {
      row = take_from_queue(s, count);
      if (row < 0) break;
      made = 0;
    }
    if (!stop) stop = __shfl_sync(kAll, int(load<scope>(&c->done) >= target || load<scope>(&c->spent) >= limit), 0);
    int next = -1;
    bool placed = false;
    const double own = tolerance(s, row, eps, delta);
    if (own == 0) made++;
    if (!stop && made <= kExactChain) {
      const BestTwo best = proven_best_two<scope>(s, row, delta);
      const Offer offer = make_offer(best, own, delta, inverse_delta, &c->status);
      placed = offer.possible;
      __syncwarp();  // every lane has read this row's list before the row can be displaced
      if (placed && lane_id() == 0) next = place_bid<scope>(s, row, best, offer.units, delta, counts);
    }
    if (!placed && lane_id() == 0) s.left[atomicAdd(&c->left, 1u)] = row;
    __syncwarp();  // a shuffle alone would not hand the next row's list to the other lanes
    row = __shfl_sync(kAll, next, 0);
  }
  if (lane_id() == 0) {
    atomicAdd(&c->bids, counts.bids);
    atomicAdd(&c->lost, counts.lost);
  }
}

}  // namespace lmcfast::cuda
