// Start prices for square problems. Any prices are a legal start; a good guess saves most of the work.
#pragma once

#include "parallel.h"
#include "state.h"

namespace lmcfast::LMCFAST_LEVEL {

// Column maxima, lowest 0: right where some columns are wanted by all rows, wrong where many rows are alike.
// `out` has room for padded(columns). False when a column has no allowed pair.
template <class T>
bool column_maxima(const State<T>& s, double* out) {
  constexpr int kBlock = 1024;  // columns whose maxima stay in the first-level cache while the rows pass by
  const int64_t size = padded(s.columns);
  const int whole = s.columns / kLanes * kLanes;
  const Doubles sign = broadcast(s.sign);
  in_ranges(s.work->threads, int(size), kBlock, [&](int begin, int end) {
    for (int j0 = begin; j0 < end; j0 += kBlock) {
      const int block_end = j0 + kBlock < end ? j0 + kBlock : end, whole_end = block_end < whole ? block_end : whole;
      for (int j = j0; j < block_end; j += kLanes) store(out + j, broadcast(-kInf));
      for (int i = 0; i < s.rows; ++i) {
        const T* const a = s.row(i);
        for (int j = j0; j < whole_end; j += kLanes) store(out + j, max(load(out + j), sign * load(a + j)));
        for (int j = whole; j < s.columns && j < block_end; ++j) out[j] = larger(out[j], s.score(i, j));
      }
    }
  });
  s.work->counts.scores_read += int64_t(s.rows) * s.columns;
  double least = kInf;
  for (int j = 0; j < s.columns; ++j) least = smaller(least, out[j]);
  if (least == -kInf) return false;
  for (int64_t j = 0; j < size; ++j) out[j] = j < s.columns ? out[j] - least : 0.0;
  return true;
}

// How many of about `sample` rows, evenly spaced, get a column of their own when each takes one that is best for it.
template <class T>
int rows_satisfied(State<T>& s, int sample) {
  int satisfied = 0;
  for (int t = 0; t < sample; ++t) {
    const int i = int(int64_t(t) * s.rows / sample);
    const double best = profit(s, i);
    s.work->counts.scores_read += s.columns;
    const int j = best > -kInf ? free_tight_column(s, i, best) : -1;
    if (j < 0) continue;
    s.assign(i, j);
    ++satisfied;
  }
  s.clear_assignment();
  return satisfied;
}

// Keeps the zero prices in `s`, or replaces them by the column maxima, by what a sample of the rows says. Returns
// whether the prices are still zero. Assumes that nothing is assigned.
template <class T>
bool keep_zero_prices(State<T>& s) {
  const int sample = s.rows <= 1024 ? 64 : 128;
  const int at_zero = rows_satisfied(s, sample);
  if (s.rows != s.columns || at_zero * 10 >= sample * 7) return true;
  const Workspace::Frame frame(Workspace::of_this_thread());
  double* const maxima = Workspace::of_this_thread().take<double>(padded(s.columns));
  if (!column_maxima(s, maxima)) return true;
  State<T> other = s;
  other.price = maxima;
  if (rows_satisfied(other, sample) * 5 <= at_zero * 6) return true;
  std::memcpy(s.price, maxima, size_t(padded(s.columns)) * sizeof(double));
  return false;
}

}  // namespace lmcfast::LMCFAST_LEVEL
