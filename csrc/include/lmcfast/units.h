// Tensors by the units of one axis: holding them in a given order of axes, moving units, and what a move is worth.
//
// A tensor is seen as (outer, size, inner), dense, with the units on the middle axis. T is float or double; sums are
// float64. A sum is made of pieces of at most kPiece products, so that its rounding is bounded by that of kPiece plus
// the number of pieces additions (lmcfast/matching/sums.py has the bound). No function reads or writes beyond the
// shapes, takes the GIL, or keeps a pointer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lmcfast {

constexpr int64_t kPiece = int64_t(1) << 15;

struct UnitShape {
  int64_t outer, size, inner;
};

// From one order of the units to another: unit units[k] becomes what unit sources[k] is now, k < count; units ascend.
// The sources are the same units in another order.
struct UnitMove {
  const int64_t* units;
  const int64_t* sources;
  int64_t count;
};

// Writes the move that turns the order `before` into `now` (both permutations of `size`: position -> unit) to units and
// sources (room for `size` each) and returns its count. `scratch`: size numbers.
int64_t move_between(const int64_t* before, const int64_t* now, int64_t size, int64_t* units, int64_t* sources,
                     int64_t* scratch);

// The sum of a * (b moved - b).
template <class T>
double rise(const T* a, const T* b, const UnitShape& shape, const UnitMove& move);

// to = from moved. `to` is `from` itself, or another tensor that does not overlap with it and gets every unit.
template <class T>
void move_units(T* to, const T* from, const UnitShape& shape, const UnitMove& move);

// Of the units given: a, and b's at `now` less b's at `before`; both outputs are (outer, count, inner).
template <class T>
void unit_differences(T* a_out, T* b_out, const T* a, const T* b, const UnitShape& shape, const int64_t* units,
                      const int64_t* now, const int64_t* before, int64_t count);

// Two tensors of one shape, each to be copied from strided to (first, middle, last) order, where rows of the middle
// axis of the target are `last` apart and its first axis is `target_stride`.
template <class T>
struct HeldPair {
  const T *a, *b;
  T *a_to, *b_to;  // null: stay where they are (then they are dense in the order held)
  int64_t shape[3], a_strides[3], b_strides[3];
  int64_t target_stride;
};

struct PairSums {
  double square_a, square_b, inner;
};

// Copies a pair and adds |a|^2, |b|^2 and <a, b> to `sums`.
template <class T>
void hold_pair(const HeldPair<T>& pair, PairSums& sums);

// A matrix of float32 whose rows are units, one of its strides 1: number k of unit i is at data[i * unit_stride + k *
// stride].
struct UnitRows {
  const float* data;
  int64_t unit_stride, stride;
};

// What `add_product` takes: so many units at most, and a multiple of kSmallStep.
constexpr int64_t kMostSmall = 64, kSmallStep = 16;

// to (n, n), dense, += weight * a b^T, in float32. `b` has unit_stride 1, or stride 1.
void add_product(float* to, int64_t n, int64_t depth, float weight, const UnitRows& a, const UnitRows& b);

// Asks the system to back new memory with large pages, which it hands out hundreds of times faster. A hint.
void prefer_large_pages(void* memory, size_t bytes);

}  // namespace lmcfast
