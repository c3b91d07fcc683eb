// Problems of at most 64 columns: the dense method within the nearest cache, on bit masks of columns.
//
// At this size a solve takes microseconds, and waiting is what costs: for the allocator, for the end of a reduction,
// for a branch. So the scores are converted once to float64 (as maximised), rows padded with forbidden pairs to whole
// vectors; a set of columns is one integer, which shows at once every column that ties and every one that is free; and
// the state of a path search stays in registers.
#pragma once

#include "certificate.h"
#include "level.h"
#include "sorted_start.h"
#include "start.h"

namespace lmcfast::LMCFAST_LEVEL {

constexpr int kSmallColumns = 64;

// visit(0), ..., visit(kCount - 1), written out where arrays of vectors are to stay in registers.
template <class Visit, int... k>
LMCFAST_INLINE void visit_all(std::integer_sequence<int, k...>, [[maybe_unused]] Visit visit) {
  (visit(k), ...);
}
template <int kCount, class Visit>
LMCFAST_INLINE void repeat(Visit visit) {
  if constexpr (kCount <= 8) visit_all(std::make_integer_sequence<int, kCount>{}, visit);
  else
    for (int k = 0; k < kCount; ++k) visit(k);
}

template <int kWidth>  // of a padded row
class Small {
 public:
  Small(int rows, int columns) : rows_(rows), columns_(columns) {}

  double* row(int i) { return scores_ + i * kWidth; }
  const double* row(int i) const { return scores_ + i * kWidth; }

  // Copies the scores; false when one of them is not a number of usual size.
  template <class T>
  bool load_scores(const State<T>& s) {
    constexpr unsigned kAll = (1u << kLanes) - 1;
    const Doubles sign = broadcast(s.sign), largest = broadcast(kLargestScore);
    const int whole = columns_ / kLanes, rest = columns_ % kLanes;
    const unsigned padding = kAll & ~((1u << rest) - 1);
    unsigned usual = kAll;
    for (int i = 0; i < rows_; ++i) {
      const T* const a = s.row(i);
      int k = 0;
      for (; k < whole; ++k) {
        const Doubles v = sign * load(a + k * kLanes);
        store(row(i) + k * kLanes, v);
        usual &= bits(less(max(v, -v), largest));
      }
      if (rest) {
        const Doubles v = sign * load_partial(a + k * kLanes, rest, -s.sign * kInf);
        store(row(i) + k++ * kLanes, v);
        usual &= bits(less(max(v, -v), largest)) | padding;
      }
      for (; k < kVectors; ++k) store(row(i) + k * kLanes, broadcast(-kInf));
    }
    return usual == kAll;
  }

  // False: `left` is a row that cannot be assigned together with those before it.
  template <class T>
  bool solve(const State<T>& s, int* left) {
    choose_start(s);
    if (now_.waiting > 0) bid(rows_);
    if (now_.waiting > 0) write_margins();
    for (; now_.waiting > 0; ++paths) {
      *left = now_.row_waiting[--now_.waiting];
      if (!augment(*left)) return false;
    }
    return true;
  }

  double profit(int i) const { return reduce_max(best_margins(i)); }

  double* price() { return now_.price; }
  int* column_of() { return now_.column_of; }
  int* row_of() { return now_.row_of; }

  int64_t bids = 0, paths = 0, steps = 0, passes = 0;

 private:
  static constexpr int kVectors = kWidth / kLanes;

  // Prices, and who has which column.
  struct Position {
    alignas(64) double price[kWidth];
    int column_of[kWidth], row_of[kWidth];
    int row_waiting[kWidth];
    int waiting;
    uint64_t free;  // columns
    void assign(int i, int j) {
      column_of[i] = j;
      row_of[j] = i;
      free &= ~(uint64_t(1) << j);
    }
  };

  struct Best {
    double first, second;  // the two largest margins
    uint64_t columns;      // all where the margin is `first`; none when every pair is forbidden
  };

  static int lowest(uint64_t columns) { return __builtin_ctzll(columns); }

  Doubles margin(int i, int k) const { return load(row(i) + k * kLanes) - load(now_.price + k * kLanes); }

  Doubles best_margins(int i) const {
    Doubles best = margin(i, 0);
    for (int k = 1; k < kVectors; ++k) best = max(best, margin(i, k));
    return best;
  }

  LMCFAST_INLINE_MEMBER Best best_two(int i, const Doubles* price) const {
    Doubles v[kVectors], first, second = broadcast(-kInf);
    const double* const a = row(i);
    first = v[0] = load(a) - price[0];
    repeat<kVectors - 1>([&](int k) __attribute__((always_inline)) {
      v[k + 1] = load(a + (k + 1) * kLanes) - price[k + 1];
      second = max(second, min(v[k + 1], first));
      first = max(first, v[k + 1]);
    });
    reduce_top_two<kLanes / 2>(first, second);
    Mask tight[kVectors];
    repeat<kVectors>([&](int k) __attribute__((always_inline)) { tight[k] = equal(v[k], first); });
    return {first[0], second[0], first[0] > -kInf ? joined<kVectors>(tight) : 0};
  }

  void start(const double* price) {
    std::memcpy(now_.price, price, sizeof now_.price);
    for (int j = 0; j < kWidth; ++j) now_.row_of[j] = -1;
    now_.free = columns_ < 64 ? (uint64_t(1) << columns_) - 1 : ~uint64_t(0);
  }

  // Every row takes a free column that is best for it, and raises the price of a strictly best one to where its second
  // best is as good. All rows see the prices of the beginning, so that none waits for the store of another.
  void take_best_columns() {
    alignas(64) double raised[kWidth];
    std::memcpy(raised, now_.price, sizeof raised);
    Doubles price[kVectors];
    repeat<kVectors>([&](int k) __attribute__((always_inline)) { price[k] = load(now_.price + k * kLanes); });
    now_.waiting = 0;
    for (int i = 0; i < rows_; ++i) {
      const Best best = best_two(i, price);
      if (const uint64_t open = best.columns & now_.free) {
        const int j = lowest(open);
        now_.assign(i, j);
        if (best.second > -kInf) raised[j] += best.first - best.second;
      } else {
        now_.column_of[i] = -1;
        now_.row_waiting[now_.waiting++] = i;
      }
    }
    std::memcpy(now_.price, raised, sizeof raised);
    bids += rows_;
  }

  // Column maxima, lowest 0, into `price`. Returns how many rows own one, 0 when a column has no allowed pair.
  int column_maxima(double* price) {
    uint64_t owners = 0;
    double least = kInf;
    alignas(64) int64_t owner[kWidth];
    repeat<kVectors>([&](int k) __attribute__((always_inline)) {
      Doubles most = load(row(0) + k * kLanes);
      Indices at = broadcast(int64_t(0));
      for (int i = 1; i < rows_; ++i) {
        const Doubles v = load(row(i) + k * kLanes);
        at = select(less(most, v), broadcast(int64_t(i)), at);
        most = max(most, v);
      }
      store(price + k * kLanes, most);
      store(owner + k * kLanes, at);
    });
    for (int j = 0; j < columns_; ++j) {
      owners |= uint64_t(1) << owner[j];
      least = smaller(least, price[j]);
    }
    ++passes;
    if (least == -kInf) return 0;
    for (int j = 0; j < kWidth; ++j) price[j] = j < columns_ ? price[j] - least : 0;
    return __builtin_popcountll(owners);
  }

  // First bids at the column maxima where more than half of the rows own one, else at zero prices, else at whichever
  // leaves fewer rows waiting.
  template <class T>
  void choose_start(const State<T>& s) {
    alignas(64) double price[kWidth];
    const int owners = rows_ == columns_ ? column_maxima(price) : 0;
    const bool suitable = owners > 0 && !prices_drown_a_row(s, price);
    if (suitable && 2 * owners >= rows_) {
      start(price);
      take_best_columns();
      return;
    }
    static constexpr double kZero[kWidth] = {};
    start(kZero);
    take_best_columns();
    if (rows_ != columns_ || 5 * now_.waiting <= 2 * rows_) return;
    if (suitable) {
      const Position zero = now_;
      start(price);
      take_best_columns();
      if (now_.waiting >= zero.waiting) now_ = zero;
    }
    if (s.all_finite && rows_ >= 24 && 2 * now_.waiting > rows_) try_sorted(s);
  }

  template <class T>
  void try_sorted(const State<T>& s) {
    alignas(64) double price[kWidth];
    SortedStart<T> sorted(s);
    if (!sorted.plausible() || !sorted.guess(price)) return;
    for (int j = columns_; j < kWidth; ++j) price[j] = 0;
    const Position before = now_;
    start(price);
    now_.waiting = 0;
    for (int k = 0; k < rows_; ++k) {
      const int i = sorted.rows()[k], j = sorted.columns()[k];
      now_.column_of[i] = -1;
      if (row(i)[j] - now_.price[j] >= profit(i)) now_.assign(i, j);
      else now_.row_waiting[now_.waiting++] = i;
    }
    if (now_.waiting >= before.waiting) now_ = before;
  }

  // Bids that may take a column from its owner, who then bids in turn; at most `limit`.
  void bid(int limit) {
    constexpr int kLongestChain = 4;
    int aside[kWidth], left = 0, chain = 0;
    Doubles price[kVectors];
    repeat<kVectors>([&](int k) __attribute__((always_inline)) { price[k] = load(now_.price + k * kLanes); });
    const auto raise = [&](int j, double by) __attribute__((always_inline)) {
      now_.price[j] += by;
      if constexpr (kVectors <= 8) {
        repeat<kVectors>([&](int k) __attribute__((always_inline)) {
          price[k] = select(mask_of(uint64_t(1) << j >> (k * kLanes)), price[k] + broadcast(by), price[k]);
        });
      } else put((double*)price, j, now_.price[j]);
    };
    while (now_.waiting > 0 && limit-- > 0) {
      const int i = now_.row_waiting[--now_.waiting];
      const Best best = best_two(i, price);
      ++bids;
      const uint64_t open = best.columns & now_.free;
      const int j = open ? lowest(open) : best.columns ? lowest(best.columns) : 0, owner = now_.row_of[j];
      const double by = best.second > -kInf ? best.first - best.second : 0;
      if (!open && !(now_.price[j] + by > now_.price[j])) {
        aside[left++] = i;  // trading places at equal prices, or at any price, settles nothing
        chain = 0;
        continue;
      }
      if (by > 0) raise(j, by);
      now_.assign(i, j);
      if (open) {
        chain = 0;
        continue;
      }
      now_.column_of[owner] = -1;
      if (++chain < kLongestChain) now_.row_waiting[now_.waiting++] = owner;
      else aside[left++] = owner, chain = 0;
    }
    while (left > 0) now_.row_waiting[now_.waiting++] = aside[--left];
  }

  void write_margins() {
    for (int j = 0; j < columns_; ++j)
      if (!(now_.free >> j & 1)) margin_[j] = row(now_.row_of[j])[j] - now_.price[j];
  }

  // Columns that a path search has scanned. In memory, as infinities, where registers are full.
  class Closed {
   public:
    LMCFAST_INLINE_MEMBER Closed() {
      if constexpr (!kByMask) std::memset(at_, 0, sizeof at_);
    }
    LMCFAST_INLINE_MEMBER void add(int j) {
      if constexpr (kByMask) columns_ |= uint64_t(1) << j;
      else put(at_, j, kInf);
    }
    // The distances of vector k, which are not negative, infinite where the column is closed.
    LMCFAST_INLINE_MEMBER Doubles leave_out(int k, Doubles distance) const {
      if constexpr (kByMask) return select(mask_of(columns_ >> (k * kLanes)), broadcast(kInf), distance);
      else return max(distance, load(at_ + k * kLanes));
    }

   private:
    static constexpr bool kByMask = kVectors <= 8;
    uint64_t columns_ = 0;
    alignas(64) double at_[kByMask ? 1 : kWidth];
  };

  // A shortest augmenting path from row `start`, as in dense.h.
  bool augment(int start) {
    double scanned_at[kWidth];
    int scanned[kWidth], count = 0, i = start;
    Doubles distance[kVectors];
    Indices from[kVectors];
    repeat<kVectors>([&](int k) __attribute__((always_inline)) {
      distance[k] = broadcast(kInf);
      from[k] = broadcast(int64_t(start));
    });
    double row_profit = profit(start);
    if (row_profit == -kInf) return false;
    Doubles reach = broadcast(0.0);
    uint64_t ends;
    Closed closed;
    for (;;) {
      Doubles key[kVectors], nearest;
      const Doubles u = broadcast(row_profit);
      Indices here = broadcast(int64_t(i));
      keep_in_register(here);
      const double* const a = row(i);
      repeat<kVectors>([&](int k) __attribute__((always_inline)) {
        // Never below `reach`, where the distances of scanned columns end: these stay as they are.
        const Doubles slack = max(u - (load(a + k * kLanes) - load(now_.price + k * kLanes)), broadcast(0.0));
        const Doubles through = reach + slack;
        const Mask shorter = less(through, distance[k]);
        from[k] = select(shorter, here, from[k]);
        distance[k] = select(shorter, through, distance[k]);
        key[k] = closed.leave_out(k, distance[k]);
        nearest = k ? min(nearest, key[k]) : key[k];
      });
      ++steps;
      if (!at_least(reach, nearest)) {  // else there are columns left at this distance
        reach = least_of_all(nearest);
        if (!(reach[0] < kInf)) return false;
      }
      Mask at_reach[kVectors];
      repeat<kVectors>([&](int k) __attribute__((always_inline)) { at_reach[k] = equal(key[k], reach); });
      const uint64_t candidates = joined<kVectors>(at_reach);
      ends = candidates & now_.free;
      if (ends) break;
      const int j = lowest(candidates);
      scanned[count] = j;
      scanned_at[count++] = reach[0];
      closed.add(j);
      i = now_.row_of[j];
      row_profit = margin_[j];
    }
    alignas(64) int64_t reached_from[kWidth];
    repeat<kVectors>([&](int k) __attribute__((always_inline)) { store(reached_from + k * kLanes, from[k]); });
    for (int k = 0; k < count; ++k) now_.price[scanned[k]] += reach[0] - scanned_at[k];
    const int end = lowest(ends);
    for (int j = end, r = -1; r != start;) {
      r = int(reached_from[j]);
      const int next = now_.column_of[r];
      now_.assign(r, j);
      j = next;
    }
    margin_[end] = row(now_.row_of[end])[end] - now_.price[end];
    for (int k = 0; k < count; ++k) {
      const int j = scanned[k];
      margin_[j] = row(now_.row_of[j])[j] - now_.price[j];
    }
    return true;
  }

  const int rows_, columns_;
  Position now_;
  alignas(64) double margin_[kWidth];  // of each column's owner there, which is the owner's profit
  alignas(64) double scores_[kWidth * kWidth];
};

template <int kWidth, class T>
Status solve_small(const OrientedProblem<T>& problem, const SolveOptions& options, OrientedResult& out) {
  Small<kWidth> small(problem.rows, problem.columns);
  Work work;
  State<T> s{problem.scores, problem.row_stride,
             problem.rows,   problem.columns,
             problem.sign,   nullptr,
             nullptr,        nullptr,
             nullptr,        &work};
  s.all_finite = small.load_scores(s);
  if (!s.all_finite) {
    const ScoreCheck check = find_invalid(s);
    if (!check.valid) {
      out.row = check.row;
      out.column = check.column;
      out.value = double(s.row(check.row)[check.column]);
      return Status::invalid_score;
    }
  }
  const bool solved = small.solve(s, &out.row);
  const bool prove = options.certify != Certify::none;
  const int64_t size = int64_t(problem.rows) * problem.columns;
  out.counts.dense += 1;
  out.counts.bids += small.bids;
  out.counts.paths += small.paths;
  out.counts.path_steps += small.steps;
  out.counts.scores_read += size * (1 + small.passes + prove) + problem.columns * (small.bids + small.steps);
  if (!solved) return Status::infeasible;
  s.price = small.price();
  s.column_of = small.column_of();
  s.row_of = small.row_of();
  std::memcpy(out.prices, s.price, size_t(problem.columns) * sizeof(double));
  std::memcpy(out.column_of, s.column_of, size_t(problem.rows) * sizeof(int));
  Certificate proof{0, __builtin_nan(""), true};
  if (prove) {
    for (int i = 0; i < problem.rows; ++i) out.profits[i] = small.profit(i);
    proof = certify(s, true, out.profits);
  } else {  // the proof's sums would take a tenth of the time
    ExactSum value;
    for (int i = 0; i < problem.rows; ++i) {
      const double a = small.row(i)[s.column_of[i]];
      value.add(a);
      out.profits[i] = a - s.price[s.column_of[i]];
    }
    proof.objective = problem.sign * value.value();
  }
  out.objective = proof.objective;
  out.gap = out.value = proof.gap;
  return proof.proved ? Status::ok : Status::not_certified;
}

}  // namespace lmcfast::LMCFAST_LEVEL
