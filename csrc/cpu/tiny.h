// Problems of at most 8 columns, whole on the stack: the dense method without its bids, on bit masks of columns.
//
// At this size the other methods spend their time on getting ready. The scores are converted once to float64 (as
// maximised), rows padded with forbidden pairs to whole vectors; a set of columns is one integer.
#pragma once

#include "certificate.h"
#include "level.h"
#include "state.h"

namespace lmcfast::LMCFAST_LEVEL {

constexpr int kTinyColumns = 8;  // a whole number of vectors at every level

class Tiny {
 public:
  Tiny(int rows, int columns) : rows_(rows), free_((1u << columns) - 1) {
    for (int j = 0; j < kTinyColumns; ++j) price[j] = 0;
  }

  double* row(int i) { return scores_ + i * kTinyColumns; }

  // False: `left` is a row that cannot be assigned together with those before it.
  bool solve(int columns, int* left) {
    int waiting[kTinyColumns];
    int count = take_best_columns(waiting);
    if (2 * count > rows_ && rows_ == columns) count = retry_from_column_maxima(columns, waiting, count);
    for (int k = 0; k < count; ++k) {
      *left = waiting[k];
      steps += 1;
      if (!augment(waiting[k])) return false;
    }
    paths = count;
    return true;
  }

  double profit(int i) {
    Doubles best = broadcast(-kInf);
    for (int j = 0; j < kTinyColumns; j += kLanes) best = max(best, load(row(i) + j) - load(price + j));
    return reduce_max(best);
  }

  double price[kTinyColumns];
  int column_of[kTinyColumns], row_of[kTinyColumns];
  int paths = 0, steps = 0;

 private:
  // Rows take a best column while one is free; returns how many wait.
  int take_best_columns(int* waiting) {
    int count = 0;
    for (int i = 0; i < rows_; ++i) {
      const double best = profit(i);
      unsigned columns = 0;
      for (int j = 0; j < kTinyColumns; j += kLanes)
        columns |= bits(equal(load(row(i) + j) - load(price + j), broadcast(best))) << j;
      columns = best > -kInf ? columns & free_ : 0;
      if (columns) assign(i, first_bit(columns));
      else waiting[count++] = i;
    }
    return count;
  }

  // Many rows want the same columns: starts again from the column maxima, and keeps that if fewer rows wait.
  int retry_from_column_maxima(int columns, int* waiting, int count) {
    int still[kTinyColumns], columns_before[kTinyColumns], rows_before[kTinyColumns];
    const unsigned free_before = free_;
    for (int j = 0; j < kTinyColumns; j += kLanes) {
      Doubles most = broadcast(-kInf);
      for (int i = 0; i < rows_; ++i) most = max(most, load(row(i) + j));
      store(price + j, most);
    }
    double least = kInf;
    for (int j = 0; j < columns; ++j) least = smaller(least, price[j]);
    for (int j = 0; j < kTinyColumns; ++j) price[j] = j < columns ? price[j] - least : 0;
    std::memcpy(columns_before, column_of, sizeof column_of);
    std::memcpy(rows_before, row_of, sizeof row_of);
    free_ = (1u << columns) - 1;
    for (int j = 0; j < kTinyColumns; ++j) row_of[j] = -1;
    const int waits = least > -kInf ? take_best_columns(still) : rows_;  // -inf: a column without an allowed pair
    if (waits < count) {
      std::memcpy(waiting, still, sizeof still);
      return waits;
    }
    for (int j = 0; j < kTinyColumns; ++j) price[j] = 0;
    std::memcpy(column_of, columns_before, sizeof column_of);
    std::memcpy(row_of, rows_before, sizeof row_of);
    free_ = free_before;
    return count;
  }

  void assign(int i, int j) {
    column_of[i] = j;
    row_of[j] = i;
    free_ &= ~(1u << j);
  }

  // The columns at which `values` is `x`.
  static unsigned where(const double* values, double x) {
    unsigned mask = 0;
    for (int j = 0; j < kTinyColumns; j += kLanes) mask |= bits(equal(load(values + j), broadcast(x))) << j;
    return mask;
  }

  // A shortest augmenting path from row `start`, as in dense.h.
  bool augment(int start) {
    double distance[kTinyColumns], open_price[kTinyColumns], scanned_at[kTinyColumns];
    int64_t from[kTinyColumns];
    int scanned[kTinyColumns], count = 0, i = start, end = -1;
    for (int j = 0; j < kTinyColumns; j += kLanes) {
      store(distance + j, broadcast(kInf));
      store(open_price + j, load(price + j));
    }
    double reach = 0, row_profit = profit(start);
    if (row_profit == -kInf) return false;
    for (;;) {
      const Doubles base = broadcast(reach + row_profit), least = broadcast(reach);
      Doubles nearest = broadcast(kInf);
      for (int j = 0; j < kTinyColumns; j += kLanes) {
        const Doubles through = max(least, base - load(row(i) + j) + load(open_price + j)), before = load(distance + j);
        store_where(less(through, before), from + j, broadcast(int64_t(i)));
        const Doubles now = min(through, before);
        store(distance + j, now);
        nearest = min(nearest, now);
      }
      reach = reduce_min(nearest);
      if (!(reach < kInf)) return false;
      const unsigned candidates = where(distance, reach);
      if (candidates & free_) {
        end = first_bit(candidates & free_);
        break;
      }
      const int j = first_bit(candidates);
      scanned[count] = j;
      scanned_at[count++] = reach;
      put(open_price, j, kInf);
      put(distance, j, kInf);
      i = row_of[j];
      row_profit = row(i)[j] - price[j];
      ++steps;
    }
    for (int k = 0; k < count; ++k) price[scanned[k]] += reach - scanned_at[k];
    for (int j = end, r = -1; r != start;) {
      r = int(from[j]);
      const int next = column_of[r];
      assign(r, j);
      j = next;
    }
    return true;
  }

  int rows_;
  unsigned free_;  // columns
  double scores_[kTinyColumns * kTinyColumns];
};

template <class T>
Status solve_tiny(const OrientedProblem<T>& problem, const SolveOptions& options, OrientedResult& out) {
  Tiny tiny(problem.rows, problem.columns);
  const Doubles sign = broadcast(problem.sign);
  constexpr unsigned kAll = (1u << kLanes) - 1;
  unsigned valid = kAll;
  for (int i = 0; i < problem.rows; ++i) {
    const T* const a = problem.scores + i * problem.row_stride;
    for (int j = 0; j < kTinyColumns; j += kLanes) {
      Doubles v = broadcast(-kInf);
      if (j + kLanes <= problem.columns) v = sign * load(a + j);
      else if (j < problem.columns) v = sign * load_partial(a + j, problem.columns - j, -problem.sign * kInf);
      store(tiny.row(i) + j, v);
      const Doubles magnitude = max(v, -v);  // NaN compares with nothing
      valid &= bits(less(magnitude, broadcast(kLargestScore))) | bits(equal(v, broadcast(-kInf)));
    }
  }
  out.counts.scores_read += int64_t(problem.rows) * problem.columns * (options.certify != Certify::none ? 2 : 1);
  out.counts.dense += 1;
  State<T> s{problem.scores, problem.row_stride, problem.rows, problem.columns, problem.sign,
             tiny.price,     tiny.column_of,     tiny.row_of,  nullptr,         nullptr};
  if (valid != kAll) {
    const ScoreCheck check = find_invalid(s);
    if (!check.valid) {
      out.row = check.row;
      out.column = check.column;
      out.value = double(s.row(check.row)[check.column]);
      return Status::invalid_score;
    }
  }
  for (int j = 0; j < kTinyColumns; ++j) tiny.row_of[j] = -1;
  const bool solved = tiny.solve(problem.columns, &out.row);
  out.counts.bids += problem.rows;
  out.counts.paths += tiny.paths;
  out.counts.path_steps += tiny.steps;
  if (!solved) return Status::infeasible;
  const bool prove = options.certify != Certify::none;
  for (int i = 0; i < problem.rows; ++i) {
    out.column_of[i] = tiny.column_of[i];
    if (prove) out.profits[i] = tiny.profit(i);
  }
  const Certificate proof = certify(s, prove, out.profits);
  std::memcpy(out.prices, tiny.price, size_t(problem.columns) * sizeof(double));
  out.objective = proof.objective;
  out.gap = out.value = proof.gap;
  return proof.proved ? Status::ok : Status::not_certified;
}

}  // namespace lmcfast::LMCFAST_LEVEL
