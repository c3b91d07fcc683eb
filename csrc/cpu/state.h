// What every stage of a solve reads and changes: the scores, the prices and the partial assignment.
//
// Symbols, used in all stages: a[i,j] = sign * stored score (so the stages always maximise), p[j] the price of column
// j, u[i] = max_j (a[i,j] - p[j]) the profit of row i. A pair is *tight* when a[i,j] - p[j] = u[i].
// Invariant between stages: every assigned row is tight up to rounding, and once candidate lists exist prices only
// rise. Columns that are never assigned keep their start price, which is the lowest when rows < columns.
//
// Files of a level use no standard container, and standard algorithms only with a comparison of a type of the level:
// instances are shared by name across object files, and one compiled for a newer processor could be linked in for an
// older one. tests/tools/check_levels.py looks for such names.
#pragma once

#include "lazy_rows.h"
#include "lmcfast/assignment.h"
#include "vector.h"
#include "workspace.h"

namespace lmcfast::LMCFAST_LEVEL {

// Work counted, and the question whether to go on. Only the calling thread of a batch asks.
struct Work {
  AssignmentCounts counts;
  bool (*interrupted)(void*) = nullptr;
  void* argument = nullptr;
  int threads = 1;  // for passes over all rows
  int64_t next_question = kEffortPerQuestion;

  static constexpr int64_t kEffortPerQuestion = int64_t(1) << 25;  // some 20 ms

  bool should_stop() {
    const int64_t effort = counts.scores_read + 128 * (counts.bids + counts.path_steps);  // a list is about 64 entries
    if (effort < next_question) return false;
    next_question = effort + kEffortPerQuestion;
    return interrupted && interrupted(argument);
  }
};

template <class T>
struct State {
  const T* scores;
  int64_t row_stride;
  int rows, columns;  // rows <= columns
  double sign;
  double* price;        // padded with zeros to a whole number of vectors
  int* column_of;       // of a row; -1: free
  int* row_of;          // of a column; -1: free
  uint64_t* free_bits;  // bit j % 64 of word j / 64: column j is free; whole words, zero past the last column
  Work* work;
  bool all_finite = false;  // known to hold no forbidden pair
  int64_t column_stride = 1;
  LazyRows<T>* lazy = nullptr;  // where the column stride is not 1: then only one thread may ask for rows

  const T* row(int i) const { return lazy ? lazy->row(i) : scores + i * row_stride; }
  double score(int i, int j) const { return sign * double(scores[i * row_stride + j * column_stride]); }
  double margin(int i, int j) const { return score(i, j) - price[j]; }
  void assign(int i, int j) {
    column_of[i] = j;
    row_of[j] = i;
    free_bits[j / 64] &= ~(uint64_t(1) << (j % 64));
  }
  void release(int i) {
    const int j = column_of[i];
    column_of[i] = row_of[j] = -1;
    free_bits[j / 64] |= uint64_t(1) << (j % 64);
  }
  void clear_assignment() {
    for (int i = 0; i < rows; ++i) column_of[i] = -1;
    for (int j = 0; j < columns; ++j) row_of[j] = -1;
    for (int k = 0; k < words(columns); ++k) free_bits[k] = ~uint64_t(0);
    if (columns % 64) free_bits[columns / 64] = (uint64_t(1) << (columns % 64)) - 1;
  }
  static int words(int columns) { return (columns + 63) / 64; }
};

LMCFAST_INLINE int64_t padded(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// One pass over row i that hands vectors of a[i,j] to `visit(vector, first column)`. Lanes past the end hold `fill`.
template <class T, class Visit>
LMCFAST_INLINE void for_each_vector(const State<T>& s, int i, double fill, Visit visit) {
  const T* a = s.row(i);
  const Doubles sign = broadcast(s.sign);
  const int whole = s.columns / kLanes * kLanes;
  for (int j = 0; j < whole; j += kLanes) visit(sign * load(a + j), j);
  if (whole < s.columns) visit(sign * load_partial(a + whole, s.columns - whole, s.sign * fill), whole);
}

// Shows every score of a row to `magnitude`.
LMCFAST_INLINE void look_at_row(const float* a, int columns, Magnitude& magnitude) {
  int j = 0;
  for (; j + kFloatLanes <= columns; j += kFloatLanes) magnitude.look(load_floats(a + j));
  for (; j < columns; ++j) magnitude.look(a[j]);
}

// u[i]; -inf when every pair of the row is forbidden. Counts nothing, since several threads may be at it.
template <class T>
LMCFAST_INLINE double profit(const State<T>& s, int i) {
  Doubles best = broadcast(-kInf);
  for_each_vector(s, i, -kInf, [&](Doubles a, int j) { best = max(best, a - load(s.price + j)); });
  return reduce_max(best);
}

struct BestTwo {
  double first, second;  // the two largest margins; -inf where there are no such pairs
  int column;            // of the first; -1 when every pair is forbidden
};

// From the two best of each lane to the two best of all. `column_in(lane)` is asked for the lane of the best.
template <class ColumnIn>
LMCFAST_INLINE BestTwo top_two(Doubles first, Doubles second, ColumnIn column_in) {
  Doubles most = first;
  reduce_top_two<kLanes / 2>(most, second);
  return {most[0], second[0], column_in(first_bit(bits(equal(first, most))))};
}

// The best column of row i and what the second best is worth. Of several best columns, any.
template <class T>
LMCFAST_INLINE BestTwo best_two(const State<T>& s, int i) {
  Doubles first = broadcast(-kInf), second = first;
  Indices at = broadcast(int64_t(-1)), column = lane_numbers();
  s.work->counts.scores_read += s.columns;
  for_each_vector(s, i, -kInf, [&](Doubles a, int j) {
    const Doubles v = a - load(s.price + j);
    const Mask better = less(first, v);
    second = max(second, min(v, first));
    at = select(better, column, at);
    first = max(first, v);
    column += kLanes;
  });
  return top_two(first, second, [&](int lane) { return int(at[lane]); });
}

// The same at zero prices, where float32 scores can be compared as they are.
LMCFAST_INLINE BestTwo best_two_at_zero(const State<double>& s, int i) { return best_two(s, i); }
LMCFAST_INLINE BestTwo best_two_at_zero(const State<float>& s, int i) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const float* const a = s.row(i);
  const Floats sign = broadcast(float(s.sign));
  const int whole = s.columns / kFloatLanes * kFloatLanes;
  Floats first = broadcast(kNone), second = first;
  for (int j = 0; j < whole; j += kFloatLanes) {
    const Floats v = sign * load_floats(a + j);
    second = max(second, min(v, first));
    first = max(first, v);
  }
  if (whole < s.columns) {
    const Floats v = sign * load_partial_floats(a + whole, s.columns - whole, float(s.sign) * kNone);
    second = max(second, min(v, first));
    first = max(first, v);
  }
  s.work->counts.scores_read += s.columns;
  reduce_top_two<kFloatLanes / 2>(first, second);
  BestTwo best{first[0], second[0], -1};
  if (best.first == -kInf) return best;
  const Floats target = first * sign;
  int j = 0;
  for (; j < whole; j += kFloatLanes)
    if (const unsigned hit = at_least(load_floats(a + j), target) & at_least(target, load_floats(a + j))) {
      best.column = j + first_bit(hit);
      return best;
    }
  while (j + 1 < s.columns && s.score(i, j) != best.first) ++j;  // always found, unless the scores change meanwhile
  best.column = j;
  return best;
}

// A free column that is exactly as good for row i as its best one, or -1.
template <class T>
LMCFAST_INLINE int free_tight_column(const State<T>& s, int i, double best) {
  const T* a = s.row(i);
  const Doubles sign = broadcast(s.sign), target = broadcast(best);
  for (int k = 0; k < State<T>::words(s.columns); ++k) {
    uint64_t left = s.free_bits[k];
    while (left) {  // one vector that has a free column in it at a time
      const int first = k * 64 + __builtin_ctzll(left) / kLanes * kLanes;
      const uint64_t here = left >> (first % 64) & ((uint64_t(1) << kLanes) - 1);
      const Doubles scores =
          first + kLanes <= s.columns ? load(a + first) : load_partial(a + first, s.columns - first, 0);
      if (const uint64_t tie = bits(equal(sign * scores - load(s.price + first), target)) & here)
        return first + __builtin_ctzll(tie);
      left &= ~(here << (first % 64));
    }
  }
  return -1;
}

}  // namespace lmcfast::LMCFAST_LEVEL
