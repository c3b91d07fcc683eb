// Two passes that make a result trustworthy: the scores are checked before a solve, and the result is proved after it.
#pragma once

#include "parallel.h"
#include "state.h"
#include "sum.h"

namespace lmcfast::LMCFAST_LEVEL {

struct ScoreCheck {
  bool valid, all_finite;
  int row, column;  // of the first invalid score
};

// Prices are sums of differences of scores: beyond this they could overflow.
constexpr double kLargestScore = 0x1p1000;

// The first score that is NaN or +inf (as maximised), which have no meaning, or too large; -inf forbids a pair.
template <class T>
ScoreCheck find_invalid(const State<T>& s) {
  bool all_finite = true;
  for (int i = 0; i < s.rows; ++i)
    for (int j = 0; j < s.columns; ++j) {
      const double a = s.score(i, j), magnitude = a < 0 ? -a : a;
      if (!(a < kInf) || (a > -kInf && magnitude > kLargestScore)) return {false, false, i, j};
      if (a == -kInf) all_finite = false;
    }
  return {true, all_finite, -1, -1};
}

// What a pass over all scores that found this largest magnitude says; an infinity asks for a closer look.
template <class T>
ScoreCheck checked_by_largest(const State<T>& s, double largest) {
  return largest <= kLargestScore ? ScoreCheck{true, true, -1, -1} : find_invalid(s);
}

// One fast pass that is enough when all scores are finite.
inline ScoreCheck check_scores(const State<float>& s) {
  Magnitude magnitude;
  for (int i = 0; i < s.rows; ++i) look_at_row(s.row(i), s.columns, magnitude);
  s.work->counts.scores_read += int64_t(s.rows) * s.columns;
  return checked_by_largest(s, magnitude.largest());
}

inline ScoreCheck check_scores(const State<double>& s) {
  Doubles largest = broadcast(0.0), rest = largest;
  for (int i = 0; i < s.rows; ++i)
    for_each_vector(s, i, 0.0, [&](Doubles a, int) {
      largest = max(largest, max(a, -a));
      rest += a - a;  // NaN from the first infinity or NaN on
    });
  s.work->counts.scores_read += int64_t(s.rows) * s.columns;
  const double most = reduce_max(largest);
  double sum = 0;
  for (int k = 0; k < kLanes; ++k) sum += rest[k];
  return checked_by_largest(s, sum == 0 ? most : kInf);
}

struct Certificate {
  double objective;  // in the caller's sign
  double gap;        // sum(u) + sum(p) - value of the assignment; what any assignment could gain at most
  bool proved;
};

// How far the gap may be from 0: the price arithmetic of 2n additions, with room for a path of several steps each.
LMCFAST_INLINE double gap_allowed(int rows, double scale) { return 16.0 * rows * 0x1p-53 * scale; }

// u[i] of all rows by a read of the whole matrix.
template <class T>
void write_profits_by_reading(const State<T>& s, double* profits) {
  if (s.lazy) s.lazy->fetch_all();
  in_ranges(s.work->threads, s.rows, 64, [&](int begin, int end) {
    for (int i = begin; i < end; ++i) profits[i] = profit(s, i);
  });
  s.work->counts.scores_read += int64_t(s.rows) * s.columns;
}

// Compares the dual bound that the prices and `profits` (each at least u[i]) give with the assignment's value. With
// `prove` false, `profits` is written from the assigned pairs and the gap is NaN.
// Unassigned columns (rows < columns) must have the lowest price, 0; the stages never raise it, and this checks it.
template <class T>
Certificate certify(const State<T>& s, bool prove, double* profits) {
  ExactSum value, prices, bound;
  double scale = 0, lowest_assigned = kInf;
  bool unassigned_are_free = true;
  for (int j = 0; j < s.columns; ++j) {
    prices.add(s.price[j]);
    scale = larger(scale, s.price[j] < 0 ? -s.price[j] : s.price[j]);
    if (s.row_of[j] >= 0) lowest_assigned = smaller(lowest_assigned, s.price[j]);
    else unassigned_are_free &= s.price[j] == 0;
  }
  for (int i = 0; i < s.rows; ++i) {
    const double a = s.score(i, s.column_of[i]);
    if (!prove) profits[i] = s.margin(i, s.column_of[i]);
    value.add(a);
    bound.add(profits[i]);
    scale = larger(scale, a < 0 ? -a : a);
  }
  if (!prove) return {s.sign * value.value(), __builtin_nan(""), true};
  bound.add(prices);
  bound.add(-value);
  const double gap = bound.value();
  const bool prices_fit = s.rows == s.columns || (unassigned_are_free && lowest_assigned >= 0);
  const bool small = (gap < 0 ? -gap : gap) <= gap_allowed(s.rows, scale);
  return {s.sign * value.value(), gap, prices_fit && small};
}

}  // namespace lmcfast::LMCFAST_LEVEL
