// Two passes that make a result trustworthy: the scores are checked before a solve, and the result is proved after it.
#pragma once

#include "state.h"
#include "sum.h"

namespace lmcfast::LMCFAST_LEVEL {

struct ScoreCheck {
  bool valid;
  int row, column;  // of the first invalid score
  double largest;   // largest finite |a[i,j]|
};

// NaN and +inf (as maximised) have no meaning; -inf forbids a pair.
template <class T>
ScoreCheck check_scores(const State<T>& s) {
  constexpr unsigned kAll = (1u << kLanes) - 1;
  Doubles largest = broadcast(0.0);
  for (int i = 0; i < s.rows; ++i) {
    unsigned finite_or_forbidden = kAll;
    for_each_vector(s, i, 0.0, [&](Doubles a, int) {
      finite_or_forbidden &= bits(less(a, broadcast(kInf)));
      const Doubles finite = select(less(broadcast(-kInf), a), a, broadcast(0.0));
      largest = max(largest, max(finite, -finite));
    });
    if (finite_or_forbidden == kAll) continue;
    int j = 0;
    while (s.score(i, j) < kInf) ++j;
    return {false, i, j, kInf};
  }
  return {true, -1, -1, reduce_max(largest)};
}

struct Certificate {
  double objective;  // in the caller's sign
  double gap;        // sum(u) + sum(p) - value of the assignment; what any assignment could gain at most
  bool proved;
};

// How far the gap may be from 0: the price arithmetic of 2n additions, with room for a path of several steps each.
LMCFAST_INLINE double gap_allowed(int rows, double scale) { return 16.0 * rows * 0x1p-53 * scale; }

// Writes u[i] to `profits` and compares the dual bound with the assignment's value. With `read_scores` false, u[i] is
// taken from the assigned pair (no proof; gap is NaN).
// Unassigned columns (rows < columns) must have the lowest price, 0; the stages never raise it, and this checks it.
template <class T>
Certificate certify(const State<T>& s, bool read_scores, double* profits) {
  ExactSum value, bound;
  double scale = 0, lowest_assigned = kInf;
  bool unassigned_are_free = true;
  for (int j = 0; j < s.columns; ++j) {
    bound.add(s.price[j]);
    scale = larger(scale, s.price[j] < 0 ? -s.price[j] : s.price[j]);
    if (s.row_of[j] >= 0) lowest_assigned = smaller(lowest_assigned, s.price[j]);
    else unassigned_are_free &= s.price[j] == 0;
  }
  for (int i = 0; i < s.rows; ++i) {
    const double a = s.score(i, s.column_of[i]);
    profits[i] = read_scores ? profit(s, i) : s.margin(i, s.column_of[i]);
    value.add(a);
    bound.add(profits[i]);
    bound.add(-a);
    scale = larger(scale, a < 0 ? -a : a);
  }
  if (!read_scores) return {s.sign * value.value(), __builtin_nan(""), true};
  const double gap = bound.value();
  const bool prices_fit = s.rows == s.columns || (unassigned_are_free && lowest_assigned >= 0);
  const bool small = (gap < 0 ? -gap : gap) <= gap_allowed(s.rows, scale);
  return {s.sign * value.value(), gap, prices_fit && small};
}

}  // namespace lmcfast::LMCFAST_LEVEL
