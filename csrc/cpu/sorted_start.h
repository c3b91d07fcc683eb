// Start prices for scores that are monotone in hidden orders of rows and columns.
//
// If rows and columns can be sorted so that a[i,j] + a[k,l] >= a[i,l] + a[k,j] for i < k, j < l (an inverse Monge
// matrix: products of sorted factors, distances on a line, rank one, ...), then matching them in order is optimal
// (Hoffman, "On simple linear programming problems", 1963), and prices that prove it follow from neighbours in the
// order. Ordinary bidding is at its worst there: every row wants the same columns. The prices are only a guess, so
// noise and a wrong suspicion cost time and nothing else.
#pragma once

#include <algorithm>

#include "state.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class T>
class SortedStart {
 public:
  // The scratch memory is the workspace's.
  explicit SortedStart(const State<T>& s) : s_(s), n_(s.rows) {
    Workspace& w = Workspace::of_this_thread();
    rows_ = w.take<int>(n_);
    columns_ = w.take<int>(n_);
    row_key_ = w.take<double>(n_);
    column_key_ = w.take<double>(n_);
  }

  const int* rows() const { return rows_; }        // in order
  const int* columns() const { return columns_; }  // in order: rows()[k] belongs to columns()[k]

  // Whether a sample of the (square) scores can be sorted: nearly all adjacent 2 x 2 minors that are not zero have the
  // right sign.
  bool plausible() const {
    constexpr int kMost = 32;
    const int size = n_ > 256 ? kMost : n_ < 16 ? n_ : 16;
    double sample[kMost * kMost], row_key[kMost], column_key[kMost];
    int row[kMost], column[kMost];
    for (int k = 0; k < size; ++k)
      for (int l = 0; l < size; ++l) {
        const double a = s_.score(int((int64_t(k) * n_ + n_ / 2) / size), int((int64_t(l) * n_ + n_ / 3) / size));
        if (!(a < kInf && a > -kInf)) return false;
        sample[k * size + l] = a;
      }
    const auto at = [&](int k, int l) { return sample[k * size + l]; };
    if (!keys_by_extremes(size, at, row_key, column_key, 3)) return false;
    sort_by(row_key, size, row);
    sort_by(column_key, size, column);
    int right = 0, wrong = 0;
    for (int k = 0; k + 1 < size; ++k)
      for (int l = 0; l + 1 < size; ++l) {
        const double a = at(row[k], column[l]), b = at(row[k + 1], column[l + 1]);
        const double minor = a + b - at(row[k], column[l + 1]) - at(row[k + 1], column[l]);
        const double rounding = 1e-6 * (magnitude(a) + magnitude(b));
        right += minor > rounding;
        wrong += minor < -rounding;
      }
    // A few rows or columns of each kind leave most minors zero: then not one may be wrong.
    return wrong == 0 ? right > 0 : right >= size / 2 && wrong * 10 <= right;
  }

  // Finds the orders and writes prices, lowest 0. False when no order shows.
  bool guess(double* price) {
    const auto at = [&](int i, int j) { return s_.score(i, j); };
    if (!keys_by_extremes(n_, at, row_key_, column_key_, 16)) return false;
    sort_by(row_key_, n_, rows_);
    sum_column_keys();
    sort_by(column_key_, n_, columns_);
    sum_row_keys();
    sort_by(row_key_, n_, rows_);
    sum_column_keys();
    sort_by(column_key_, n_, columns_);
    write_prices(price);
    return true;
  }

 private:
  LMCFAST_INLINE_MEMBER static double magnitude(double x) { return x < 0 ? -x : x; }

  // Differences between the two extreme rows order the columns, and the other way round; the extremes are found by
  // repeating that until they stay (flat ends make the first choice arbitrary).
  template <class At>
  static bool keys_by_extremes(int n, At at, double* row_key, double* column_key, int most_rounds) {
    int low_row = 0, high_row = n - 1, low_column = -1, high_column = -1;
    // Two rows of one kind show no order: look for one that differs from the first.
    constexpr int kTries = 32;
    for (int t = 0; t < kTries; ++t) {
      high_row = n - 1 - int(int64_t(t) * (n - 1) / kTries);
      for (int j = 0; j < n; ++j) column_key[j] = at(high_row, j) - at(low_row, j);
      extremes(column_key, n, &low_column, &high_column);
      if (column_key[low_column] < column_key[high_column]) break;
    }
    for (int round = 0; round < most_rounds; ++round) {
      const int before[] = {low_row, high_row, low_column, high_column};
      for (int j = 0; j < n; ++j) column_key[j] = at(high_row, j) - at(low_row, j);
      extremes(column_key, n, &low_column, &high_column);
      for (int i = 0; i < n; ++i) row_key[i] = at(i, high_column) - at(i, low_column);
      extremes(row_key, n, &low_row, &high_row);
      if (low_row == high_row || low_column == high_column) return false;
      const int now[] = {low_row, high_row, low_column, high_column};
      if (std::memcmp(before, now, sizeof now) == 0) break;
    }
    for (int j = 0; j < n; ++j) column_key[j] = at(high_row, j) - at(low_row, j);
    return true;
  }

  static void extremes(const double* key, int n, int* low, int* high) {
    *low = *high = 0;
    for (int k = 1; k < n; ++k) {
      if (key[k] < key[*low]) *low = k;
      if (key[k] > key[*high]) *high = k;
    }
  }

  static void sort_by(const double* key, int n, int* order) {
    for (int k = 0; k < n; ++k) order[k] = k;
    const auto before = [key](int a, int b) { return key[a] < key[b]; };
    std::sort(order, order + n, before);
  }

  // Keys that use more than the two extremes: sums of differences between rows (columns) at both ends of the order.
  int pairs() const { return n_ / 2 < 16 ? n_ / 2 : 16; }
  int from_end(int k) const { return int(int64_t(k) * n_ / (2 * pairs())); }

  void sum_column_keys() {
    for (int j = 0; j < n_; ++j) column_key_[j] = 0;
    for (int k = 0; k < pairs(); ++k) {
      const int high = rows_[n_ - 1 - from_end(k)], low = rows_[from_end(k)];
      for (int j = 0; j < n_; ++j) column_key_[j] += s_.score(high, j) - s_.score(low, j);
    }
  }

  void sum_row_keys() {
    for (int i = 0; i < n_; ++i) {
      row_key_[i] = 0;
      for (int k = 0; k < pairs(); ++k)
        row_key_[i] += s_.score(i, columns_[n_ - 1 - from_end(k)]) - s_.score(i, columns_[from_end(k)]);
    }
  }

  // The k-th row must not prefer the next column to its own, and the next row not the k-th: that leaves an interval for
  // the step from one price to the next. Its middle is taken; where the interval is no wider than the rounding of its
  // ends, steps come from one row for as long as it fits, so that their rounding errors do not add up.
  void write_prices(double* price) const {
    const double rounding = sizeof(T) == sizeof(float) ? 0x1p-23 : 0x1p-52;
    double at = 0, lowest = 0;
    int reference = -1;
    price[columns_[0]] = 0;
    for (int k = 0; k + 1 < n_; ++k) {
      const int i = rows_[k], next = rows_[k + 1], j = columns_[k], to = columns_[k + 1];
      const double a = s_.score(i, j), b = s_.score(i, to), c = s_.score(next, j), d = s_.score(next, to);
      const double low = b - a, high = d - c;
      const double width = rounding * larger(larger(magnitude(a), magnitude(b)), larger(magnitude(c), magnitude(d)));
      double step = low;
      if (high - low > 2 * width) {
        step = 0.5 * (low + high);
        reference = -1;
      } else {
        bool fits = false;
        if (reference >= 0) {
          const double x = s_.score(reference, to), y = s_.score(reference, j);
          const double tolerance = larger(width, rounding * larger(magnitude(x), magnitude(y)));
          step = x - y;
          fits = step >= low - tolerance && step <= high + tolerance;
        }
        if (!fits) {
          reference = i;
          step = low;
        }
      }
      at += step;
      price[to] = at;
      lowest = smaller(lowest, at);
    }
    for (int j = 0; j < n_; ++j) price[j] -= lowest;
  }

  const State<T>& s_;
  const int n_;
  int* rows_;
  int* columns_;
  double* row_key_;
  double* column_key_;
};

// Assigns rows in the guessed order as long as they are exactly tight; gives up after more than n / 16 misses.
// Returns the number of rows left over, or -1 when it gave up.
template <class T>
int take_in_order(State<T>& s, const SortedStart<T>& start) {
  int missed = 0;
  for (int k = 0; k < s.rows; ++k) {
    const int i = start.rows()[k], j = start.columns()[k];
    s.work->counts.scores_read += s.columns;
    if (s.margin(i, j) >= profit(s, i)) s.assign(i, j);
    else if (++missed > s.rows / 16) return -1;
  }
  return missed;
}

}  // namespace lmcfast::LMCFAST_LEVEL
