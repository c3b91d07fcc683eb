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

// The maxima of the columns of kVectors vectors from column j on, and the first row that has each.
template <int kVectors, class T>
LMCFAST_INLINE void maxima_of_vectors(const State<T>& s, int j, double* out, int64_t* owner) {
  const int rest = s.columns - j;
  Doubles most[kVectors];
  Indices at[kVectors];
  for (int k = 0; k < kVectors; ++k) most[k] = broadcast(-kInf), at[k] = broadcast(int64_t(0));
  for (int i = 0; i < s.rows; ++i) {
    const T* const a = s.row(i) + j;
    for (int k = 0; k < kVectors; ++k) {
      const Doubles v = s.sign * (kVectors > 1 || rest >= kLanes ? load(a + k * kLanes) : load_partial(a, rest, 0));
      at[k] = select(less(most[k], v), broadcast(int64_t(i)), at[k]);
      most[k] = max(most[k], v);
    }
  }
  for (int k = 0; k < kVectors; ++k) store(out + j + k * kLanes, most[k]), store(owner + j + k * kLanes, at[k]);
}

// Column maxima, lowest 0, and how many rows own one: more than half of them where rows differ as columns do, few where
// some rows outdo the others everywhere. 0 when a column has no allowed pair. For matrices within the caches.
template <class T>
int column_maxima_and_owners(const State<T>& s, double* out) {
  Workspace& w = Workspace::of_this_thread();
  const Workspace::Frame frame(w);
  const int size = int(padded(s.columns));
  int64_t* const owner = w.take<int64_t>(size);
  uint64_t* const owners = w.take<uint64_t>(State<T>::words(s.rows));
  constexpr int kAtOnce = 4;  // vectors: whole cache lines
  int j = 0;
  for (; j + kAtOnce * kLanes <= s.columns; j += kAtOnce * kLanes) maxima_of_vectors<kAtOnce>(s, j, out, owner);
  for (; j < s.columns; j += kLanes) maxima_of_vectors<1>(s, j, out, owner);
  s.work->counts.scores_read += int64_t(s.rows) * s.columns;
  double least = kInf;
  for (int k = 0; k < s.columns; ++k) least = smaller(least, out[k]);
  if (least == -kInf) return 0;
  for (int k = 0; k < size; ++k) out[k] = k < s.columns ? out[k] - least : 0.0;
  std::memset(owners, 0, size_t(State<T>::words(s.rows)) * sizeof(uint64_t));
  for (int k = 0; k < s.columns; ++k) owners[owner[k] / 64] |= uint64_t(1) << (owner[k] % 64);
  int count = 0;
  for (int k = 0; k < State<T>::words(s.rows); ++k) count += __builtin_popcountll(owners[k]);
  return count;
}

// Whether one of a few rows hardly tells columns apart beside what these prices (lowest 0) differ. At such prices all
// rows of its kind want the same columns, however different their scores are.
template <class T>
bool prices_drown_a_row(const State<T>& s, const double* price) {
  constexpr int kSample = 8;
  double highest = 0;
  for (int j = 0; j < s.columns; ++j) highest = larger(highest, price[j]);
  for (int t = 0; t < kSample; ++t) {
    const int i = int(int64_t(t) * s.rows / kSample);
    Doubles least = broadcast(kInf), most = broadcast(-kInf);
    for_each_vector(s, i, s.score(i, 0), [&](Doubles a, int) { least = min(least, a), most = max(most, a); });
    if (4 * (reduce_max(most) - reduce_min(least)) < highest) return true;
  }
  return false;
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
  if (s.rows != s.columns) return true;
  const int sample = s.rows <= 1024 ? 64 : 128;
  const int at_zero = rows_satisfied(s, sample);
  if (at_zero * 10 >= sample * 7) return true;
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
