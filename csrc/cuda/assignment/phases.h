// The stages around the chains: scales, the schedule of tolerances, and the passage from words to the float64 state.
#pragma once

#include "bids.h"

namespace lmcfast::cuda {

constexpr double kFirstEps = 0.1, kWarmEps = 1e-3, kLastEps = 1e-5;  // in units of sigma
constexpr double kFall = 0.2;                                        // from one phase to the next
constexpr int kSlots = 16;        // phases enqueued at most; surplus ones end at once
constexpr int kEarly = 200;       // a phase ends when 1 in so many rows is free: its last rows take most of its time
constexpr int kEarlyLast = 1000;  // the last phase goes on for longer
constexpr int kPatience = 10;     // bids per row after which the first tolerance is too small for these scores

template <class T>
__device__ inline void clear_state(const State<T>& s, Workers w) {
  if (w.rank == 0) {
    Control c = {};
    c.invalid = ~0ull;
    *s.control = c;
  }
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    s.word[j] = 0;
    s.floor_price[j] = 0;
    s.price[j] = 0;
    s.row_of[j] = -1;
  }
  for (int64_t i = w.rank; i < s.rows; i += w.count) {
    s.queue[i] = int(i);
    s.column_of[i] = -1;
  }
}

// ---- start prices ----

// Prices of the solver's columns from the caller's. Where those are of the solver's rows, u[i]: p[j] = max_i (a[i,j] -
// u[i]), one thread a column.
template <class T>
__device__ inline void read_start_prices(const State<T>& s, Workers w) {
  const double sign = double(s.sign);
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    if (!s.swapped) {
      s.price[j] = sign * s.start_prices[j];
      continue;
    }
    double price = -LMCFAST_INFINITY;
    for (int i = 0; i < s.rows; i++) price = max(price, double(s.at(i, int(j))) - sign * s.start_prices[i]);
    s.price[j] = price;
  }
}

// One block: shifts the start prices so that the lowest is 0. Prices that are not finite are dropped.
template <class T>
__device__ inline void shift_start_prices(const State<T>& s) {
  LMCFAST_SHARED(u64, lowest, [1]);
  const unsigned t = threadIdx.x;
  if (t == 0) lowest[0] = ~0ull;
  __syncthreads();
  double low = LMCFAST_INFINITY;
  bool finite = true;
  for (int j = int(t); j < s.columns; j += int(blockDim.x)) {
    finite = finite && fabs(s.price[j]) <= 0x1p1000;
    low = min(low, s.price[j]);
  }
  const u64 key = warp_min(ordered(low));
  if (lane_id() == 0) atomicMin(&lowest[0], key);
  finite = __syncthreads_and(finite);
  low = value_of(lowest[0]);
  for (int j = int(t); j < s.columns; j += int(blockDim.x)) {
    s.price[j] = finite ? s.price[j] - low : 0;
    s.floor_price[j] = __double2float_rd(s.price[j]);
  }
  if (t == 0) s.control->warm = finite;
  __syncthreads();
}

// Words from the start prices, rounded up: prices may only rise once lists exist.
template <class T>
__device__ inline void start_words(const State<T>& s, Workers w) {
  const Control* const c = s.control;
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    const u64 units = u64(ceil(s.price[j] * c->inverse_delta));
    s.word[j] = make_word(units, -1);
    s.floor_price[j] = __double2float_rd(price_of(units, c->delta));
  }
}

// ---- scales ----

// Of a grid of 64 x 64 scores in units of 2^exponent, so that sums cannot overflow: this thread's part of the sum of
// |a - center|, and of the number of allowed pairs.
template <class T>
__device__ inline double sample_sum(const State<T>& s, int exponent, bool absolute, double center, double& allowed) {
  const double inverse_unit = ldexp(1., -exponent);
  const int row_step = max(1, s.rows / 64), column_step = max(1, s.columns / 64);
  const int rows = (s.rows + row_step - 1) / row_step, columns = (s.columns + column_step - 1) / column_step;
  double sum = 0;
  allowed = 0;
  for (int k = int(threadIdx.x); k < rows * columns; k += int(blockDim.x)) {
    const double a = double(s.at(k / columns * row_step, k % columns * column_step)) * inverse_unit - center;
    if (!(fabs(a) < LMCFAST_INFINITY)) continue;
    sum += absolute ? fabs(a) : a;
    allowed += 1;
  }
  return sum;
}

// Block: the mean deviation of the sampled scores from their mean.
template <class T>
__device__ inline double mean_deviation(const State<T>& s, int exponent) {
  double allowed;
  const double sum = block_sum(sample_sum(s, exponent, false, 0, allowed)), count = max(block_sum(allowed), 1.);
  const double deviation = block_sum(sample_sum(s, exponent, true, sum / count, allowed)) / count;
  return ldexp(deviation, exponent);
}

template <class T>
__device__ inline double largest_magnitude(const State<T>& s) {
  LMCFAST_SHARED(u64, largest, [1]);
  if (threadIdx.x == 0) largest[0] = 0;
  __syncthreads();
  double most = 0;
  for (int i = int(threadIdx.x); i < s.rows; i += int(blockDim.x)) most = max(most, s.magnitude[i]);
  // Start prices may take up to half of a word's range.
  if (s.start_prices)
    for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x)) most = max(most, s.price[j] / 32);
  const u64 key = warp_max(distance_key(most));
  if (lane_id() == 0) atomicMax(&largest[0], key);
  __syncthreads();
  return distance_of(largest[0]);
}

// One thread. `sigma`: the unit of the tolerance.
template <class T>
__device__ inline void set_scales(const State<T>& s, double sigma, double largest, int exponent) {
  Control* const c = s.control;
  c->largest = largest;
  c->delta = ldexp(1., exponent - 40);
  c->inverse_delta = ldexp(1., 40 - exponent);
  c->sigma = sigma;
  c->eps = 0;
  c->eps_end = max(kLastEps * c->sigma, 2 * c->delta);
  c->head = c->done = c->left = 0;
  c->count = c->target = unsigned(s.rows);
  c->spent = 0;
  c->spent_limit = (s.rows == s.columns ? 4ull : 40ull) * u64(s.rows) + 1000;
  c->bid_limit = u64(s.bid_limit) * u64(s.rows);
  if (c->invalid != ~0ull) {
    c->status |= kInvalidScore;
    c->count = 0;
    c->finished = c->settled = 1;
  }
}

// One block.
template <class T>
__device__ inline void plan(const State<T>& s) {
  const double largest = largest_magnitude(s);
  int exponent = 1;
  if (largest > 0) frexp(largest, &exponent);
  exponent = max(exponent, -900);  // so that the inverse of delta is finite
  double units = 0;
  for (int i = int(threadIdx.x); i < s.rows; i += int(blockDim.x)) units += s.unit[i] / s.rows;
  double sigma = max(block_sum(units), 0.01 * mean_deviation(s, exponent));
  sigma = max(sigma, 1e-6 * largest);
  double small = 0;
  for (int i = int(threadIdx.x); i < s.rows; i += int(blockDim.x)) small += s.unit[i] < 0.01 * sigma;
  small = block_sum(small);
  if (threadIdx.x == 0) {
    s.control->uneven = small > s.rows / 16.;
    set_scales(s, sigma, largest, exponent);
  }
  __syncthreads();
  if (s.start_prices) start_words(s, block_threads());
  __syncthreads();
}

// ---- the schedule ----

// The queue of the next phase: all rows, without their columns, or those left over.
template <class T>
__device__ inline void begin_phase(const State<T>& s, Workers w) {
  const Control* const c = s.control;
  if (c->finished) return;
  if (c->keep_owners) {
    for (unsigned k = w.rank; k < c->count; k += w.count) s.queue[k] = s.left[k];
    return;
  }
  for (int64_t j = w.rank; j < s.columns; j += w.count) s.word[j] &= ~kOwnerMask;
  for (int64_t i = w.rank; i < s.rows; i += w.count) s.queue[i] = int(i);
}

// Free rows that are not worth another phase: the last ones take most of its time.
template <class T>
__device__ inline unsigned few_rows(const State<T>& s) {
  return max(1u, unsigned(s.rows / kEarly));
}

// One thread, when the bids without a tolerance and the paths after them left too many rows: the first phase. There is
// none on rows of very different scales: one tolerance does not fit them, and from prices that no small row has driven
// their paths are short. Nor where columns stay unassigned, whose prices must not rise.
template <class T>
__device__ inline void begin_auction(const State<T>& s) {
  Control* const c = s.control;
  c->eps = max((c->warm ? kWarmEps : kFirstEps) * c->sigma, c->eps_end);
  c->keep_owners = 0;
}

// One thread: the next tolerance, or the end of the auction.
template <class T>
__device__ inline bool next_tolerance(const State<T>& s) {
  Control* const c = s.control;
  if (c->bids > c->bid_limit || c->status & kPriceOverflow) {
    c->status |= kBudgetSpent;
    return false;
  }
  if (c->spent >= c->spent_limit && c->left > unsigned(s.rows / kEarly) && !c->falling) {
    c->eps *= 5;
    c->keep_owners = 1;
    return true;
  }
  if (c->eps <= c->eps_end) return false;
  c->eps = max(kFall * c->eps, c->eps_end);
  c->keep_owners = 0;
  c->falling = 1;
  return true;
}

template <class T>
__device__ inline void advance(const State<T>& s) {
  Control* const c = s.control;
  if (c->settled) c->finished = 1;
  if (c->finished) return;
  if (c->phase == 0) {
    begin_auction(s);
  } else if (!next_tolerance(s)) {
    c->finished = 1;
    return;
  }
  const unsigned early = unsigned(s.rows / (c->eps <= c->eps_end ? kEarlyLast : kEarly));
  c->count = c->keep_owners ? c->left : unsigned(s.rows);
  c->target = c->count > early ? c->count - early : 1;
  c->phase++;
  c->spent = 0;
  c->spent_limit = (c->falling ? 100ull : u64(kPatience)) * u64(s.rows);
  c->head = c->done = c->left = 0;
}

// ---- after the auction ----

template <class T>
__device__ inline void forget_columns(const State<T>& s, Workers w) {
  if (w.rank == 0) s.control->count = 0;
  for (int64_t i = w.rank; i < s.rows; i += w.count) s.column_of[i] = -1;
}

// row_of and column_of as the words have them.
template <class T>
__device__ inline void read_owners(const State<T>& s, Workers w) {
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    const int i = owner_of(load(&s.word[j]));
    s.row_of[j] = i;
    if (i >= 0) s.column_of[i] = int(j);
  }
}

// Frees every row whose column is not exactly its best, and queues the free rows. Workers are warps.
template <Scope scope, class T>
__device__ inline void release_loose_rows(const State<T>& s, Workers w) {
  Control* const c = s.control;
  const double delta = c->delta;
  for (int64_t i = w.rank; i < s.rows; i += w.count) {
    const BestTwo best = proven_best_two<scope>(s, int(i), delta);
    if (lane_id() != 0) continue;
    int j = s.column_of[i];
    if (j >= 0) {
      const u64 word = load<scope>(&s.word[j]);
      if (double(s.at(int(i), j)) - word_price(word, delta) < best.first) {
        store<scope>(&s.word[j], word & ~kOwnerMask);
        j = -1;
      }
    }
    if (j < 0) s.queue[atomicAdd(&c->count, 1u)] = int(i);
  }
}

// One thread: the bids without a tolerance that follow.
template <class T>
__device__ inline void begin_exact_bids(const State<T>& s) {
  Control* const c = s.control;
  c->free_after_phases = c->target = c->count;
  c->head = c->done = c->left = 0;
  c->spent = 0;
  c->spent_limit = 20ull * u64(s.rows) + 1000;
  c->eps = 0;
}

// The float64 state from the words.
template <class T>
__device__ inline void read_words(const State<T>& s, Workers w) {
  const double delta = s.control->delta;
  for (int64_t j = w.rank; j < s.columns; j += w.count) {
    const u64 word = load(&s.word[j]);
    const int i = owner_of(word);
    s.price[j] = word_price(word, delta);
    s.row_of[j] = i;
    if (i < 0) continue;
    s.column_of[i] = int(j);
    s.score[i] = double(s.at(i, int(j)));
  }
}

// Words from the float64 state, prices rounded up. One block; false when a price does not fit.
template <class T>
__device__ inline bool write_words(const State<T>& s) {
  const Control* const c = s.control;
  bool fits = true;
  for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x))
    fits = fits && s.price[j] * c->inverse_delta < double(kPriceLimit - 1);
  if (!__syncthreads_and(fits)) return false;
  for (int j = int(threadIdx.x); j < s.columns; j += int(blockDim.x)) {
    const u64 units = u64(ceil(s.price[j] * c->inverse_delta));
    s.word[j] = make_word(units, s.row_of[j]);
    s.floor_price[j] = __double2float_rd(price_of(units, c->delta));
  }
  return true;
}

}  // namespace lmcfast::cuda
