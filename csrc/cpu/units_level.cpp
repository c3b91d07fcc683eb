// Tensors by their units, for one vector level. Compiled once for each, with LMCFAST_LEVEL set and the processor's
// flags.
#include "units_level.h"

#include "small_products.h"
#include "vector.h"
#include "workspace.h"

namespace lmcfast::LMCFAST_LEVEL {

namespace {

LMCFAST_INLINE double total(Doubles v) {
  double sum = 0;
  for (int k = 0; k < kLanes; ++k) sum += v[k];
  return sum;
}

// The sum over pieces: `piece` gathers at most kPiece products before it is added to `whole`.
struct PieceSum {
  double whole = 0, piece = 0;
  int64_t products = 0;

  LMCFAST_INLINE_MEMBER void room_for(int64_t count) {
    products += count;
    if (products <= kPiece) return;
    whole += piece;
    piece = 0;
    products = count;
  }
};

// Adds |x|^2, |y|^2 and <x, y>.
template <class T>
LMCFAST_INLINE void add_products(const T* x, const T* y, int64_t count, double& xx, double& yy, double& xy) {
  Doubles square_x{}, square_y{}, inner{}, square_x2{}, square_y2{}, inner2{};
  int64_t k = 0;
  for (; k + 2 * kLanes <= count; k += 2 * kLanes) {
    const Doubles u = load(x + k), v = load(y + k), u2 = load(x + k + kLanes), v2 = load(y + k + kLanes);
    square_x += u * u;
    square_y += v * v;
    inner += u * v;
    square_x2 += u2 * u2;
    square_y2 += v2 * v2;
    inner2 += u2 * v2;
  }
  double a = total(square_x + square_x2), b = total(square_y + square_y2), c = total(inner + inner2);
  for (; k < count; ++k) {
    const double u = double(x[k]), v = double(y[k]);
    a += u * u;
    b += v * v;
    c += u * v;
  }
  xx += a;
  yy += b;
  xy += c;
}

// The sum of x * (y - z).
template <class T>
LMCFAST_INLINE double dot_difference(const T* x, const T* y, const T* z, int64_t count) {
  Doubles first{}, second{};
  int64_t k = 0;
  for (; k + 2 * kLanes <= count; k += 2 * kLanes) {
    first += load(x + k) * (load(y + k) - load(z + k));
    second += load(x + k + kLanes) * (load(y + k + kLanes) - load(z + k + kLanes));
  }
  double sum = total(first + second);
  for (; k < count; ++k) sum += double(x[k]) * (double(y[k]) - double(z[k]));
  return sum;
}

template <class T>
LMCFAST_INLINE void copy(T* to, const T* from, int64_t count) {
  if (count * int64_t(sizeof(T)) >= 64) {
    std::memcpy(to, from, size_t(count) * sizeof(T));
  } else {
    for (int64_t k = 0; k < count; ++k) to[k] = from[k];
  }
}

// Units on the last axis, few of them: one by one.
template <class T>
LMCFAST_INLINE double rise_of_row(const T* a, const T* b, const UnitMove& move, int64_t begin, int64_t end) {
  double even = 0, odd = 0;
  int64_t k = begin;
  for (; k + 2 <= end; k += 2) {
    const int64_t i = move.units[k], j = move.units[k + 1];
    even += double(a[i]) * (double(b[move.sources[k]]) - double(b[i]));
    odd += double(a[j]) * (double(b[move.sources[k + 1]]) - double(b[j]));
  }
  if (k < end) even += double(a[move.units[k]]) * (double(b[move.sources[k]]) - double(b[move.units[k]]));
  return even + odd;
}

// Units on the last axis. Where most of them move, a row is put into its new order first; what stays adds zeros.
template <class T>
double rise_by_columns(const T* a, const T* b, const UnitShape& shape, const UnitMove& move) {
  Workspace& workspace = Workspace::of_this_thread();
  const Workspace::Frame frame(workspace);
  const bool most = 2 * move.count >= shape.size;
  int64_t* const source_of = workspace.take<int64_t>(most ? shape.size : 0);
  T* const row = workspace.take<T>(most ? shape.size : 0);
  for (int64_t i = 0; most && i < shape.size; ++i) source_of[i] = i;
  for (int64_t k = 0; most && k < move.count; ++k) source_of[move.units[k]] = move.sources[k];
  const int64_t numbers = most ? shape.size : move.count;
  PieceSum sum;
  for (int64_t o = 0; o < shape.outer; ++o, a += shape.size, b += shape.size) {
    for (int64_t i = 0; most && i < shape.size; ++i) row[i] = b[source_of[i]];
    for (int64_t begin = 0; begin < numbers; begin += kPiece) {
      const int64_t end = begin + kPiece < numbers ? begin + kPiece : numbers;
      sum.room_for(end - begin);
      sum.piece +=
          most ? dot_difference(a + begin, row + begin, b + begin, end - begin) : rise_of_row(a, b, move, begin, end);
    }
  }
  return sum.whole + sum.piece;
}

template <class T>
double rise(const T* a, const T* b, const UnitShape& shape, const UnitMove& move) {
  if (shape.inner == 1) return rise_by_columns(a, b, shape, move);
  PieceSum sum;
  const int64_t plane = shape.size * shape.inner;
  for (int64_t o = 0; o < shape.outer; ++o, a += plane, b += plane) {
    for (int64_t k = 0; k < move.count; ++k) {
      const int64_t unit = move.units[k] * shape.inner, source = move.sources[k] * shape.inner;
      for (int64_t begin = 0; begin < shape.inner; begin += kPiece) {
        const int64_t count = shape.inner - begin < kPiece ? shape.inner - begin : kPiece;
        sum.room_for(count);
        sum.piece += dot_difference(a + unit + begin, b + source + begin, b + unit + begin, count);
      }
    }
  }
  return sum.whole + sum.piece;
}

// In place, units on the last axis: a row's new numbers are collected before any is written.
template <class T>
void move_columns(T* tensor, const UnitShape& shape, const UnitMove& move) {
  Workspace& workspace = Workspace::of_this_thread();
  const Workspace::Frame frame(workspace);
  T* const moved = workspace.take<T>(move.count);
  for (int64_t o = 0; o < shape.outer; ++o, tensor += shape.size) {
    for (int64_t k = 0; k < move.count; ++k) moved[k] = tensor[move.sources[k]];
    for (int64_t k = 0; k < move.count; ++k) tensor[move.units[k]] = moved[k];
  }
}

// In place, cycle by cycle: each unit is read and written once, and only the first of a cycle is put aside.
template <class T>
void move_rows(T* tensor, const UnitShape& shape, const UnitMove& move) {
  Workspace& workspace = Workspace::of_this_thread();
  const Workspace::Frame frame(workspace);
  int64_t* const source_of = workspace.take<int64_t>(shape.size);
  bool* const done = workspace.take<bool>(shape.size);
  T* const aside = workspace.take<T>(shape.inner);
  for (int64_t k = 0; k < move.count; ++k) source_of[move.units[k]] = move.sources[k];
  for (int64_t o = 0; o < shape.outer; ++o, tensor += shape.size * shape.inner) {
    for (int64_t k = 0; k < move.count; ++k) done[move.units[k]] = false;
    for (int64_t k = 0; k < move.count; ++k) {
      const int64_t start = move.units[k];
      if (done[start]) continue;
      copy(aside, tensor + start * shape.inner, shape.inner);
      int64_t unit = start;
      for (; source_of[unit] != start; unit = source_of[unit]) {
        copy(tensor + unit * shape.inner, tensor + source_of[unit] * shape.inner, shape.inner);
        done[unit] = true;
      }
      copy(tensor + unit * shape.inner, aside, shape.inner);
      done[unit] = true;
    }
  }
}

template <class T>
void move_units(T* to, const T* from, const UnitShape& shape, const UnitMove& move) {
  if (to == from) return shape.inner == 1 ? move_columns(to, shape, move) : move_rows(to, shape, move);
  Workspace& workspace = Workspace::of_this_thread();
  const Workspace::Frame frame(workspace);
  int64_t* const source_of = workspace.take<int64_t>(shape.size);
  for (int64_t i = 0; i < shape.size; ++i) source_of[i] = i;
  for (int64_t k = 0; k < move.count; ++k) source_of[move.units[k]] = move.sources[k];
  const int64_t plane = shape.size * shape.inner;
  for (int64_t o = 0; o < shape.outer; ++o, to += plane, from += plane) {
    if (shape.inner == 1) {
      for (int64_t i = 0; i < shape.size; ++i) to[i] = from[source_of[i]];
    } else {
      for (int64_t i = 0; i < shape.size; ++i)
        copy(to + i * shape.inner, from + source_of[i] * shape.inner, shape.inner);
    }
  }
}

template <class T>
void unit_differences(T* a_out, T* b_out, const T* a, const T* b, const UnitShape& shape, const int64_t* units,
                      const int64_t* now, const int64_t* before, int64_t count) {
  const int64_t inner = shape.inner, plane = shape.size * inner;
  for (int64_t o = 0; o < shape.outer; ++o, a += plane, b += plane, a_out += count * inner, b_out += count * inner) {
    if (inner == 1) {
      for (int64_t k = 0; k < count; ++k) a_out[k] = a[units[k]];
      for (int64_t k = 0; k < count; ++k) b_out[k] = b[now[k]] - b[before[k]];
      continue;
    }
    for (int64_t k = 0; k < count; ++k) {
      copy(a_out + k * inner, a + units[k] * inner, inner);
      const T *const plus = b + now[k] * inner, *const minus = b + before[k] * inner;
      T* const out = b_out + k * inner;
      for (int64_t i = 0; i < inner; ++i) out[i] = plus[i] - minus[i];
    }
  }
}

// From (middle, last) whose middle axis lies side by side, as that of a convolution's kernel does, to dense: in squares
// that are transposed in registers, of which the last may be read beyond its rows but never beyond the plane.
template <class T>
void copy_turned(T* to, const T* from, int64_t middle, int64_t last, int64_t stride) {
  constexpr int64_t kSide = kVectorBytes / int64_t(sizeof(T));
  const int64_t plane = (last - 1) * stride + middle;
  for (int64_t m = 0; m < middle; m += kSide) {
    const int64_t rows = middle - m < kSide ? middle - m : kSide;
    const bool worth = 2 * rows >= kSide;
    int64_t k = 0;
    for (; worth && k + kSide <= last && m + (k + kSide - 1) * stride + kSide <= plane; k += kSide) {
      decltype(load_lanes(from)) square[kSide];
      for (int64_t i = 0; i < kSide; ++i) square[i] = load_lanes(from + m + (k + i) * stride);
      transpose_square<int(kSide) / 2>(square);
      for (int64_t i = 0; i < rows; ++i) store_lanes(to + (m + i) * last + k, square[i]);
    }
    for (int64_t i = m; i < m + rows; ++i)
      for (int64_t j = k; j < last; ++j) to[i * last + j] = from[i + j * stride];
  }
}

// One index of the first axis: from (middle, last) with strides to dense.
template <class T>
void copy_plane(T* to, const T* from, const int64_t* shape, const int64_t* strides) {
  const int64_t middle = shape[1], last = shape[2];
  if (strides[2] == 1) {
    for (int64_t m = 0; m < middle; ++m) copy(to + m * last, from + m * strides[1], last);
  } else if (strides[1] == 1) {
    copy_turned(to, from, middle, last, strides[2]);
  } else {
    for (int64_t m = 0; m < middle; ++m)
      for (int64_t k = 0; k < last; ++k) to[m * last + k] = from[m * strides[1] + k * strides[2]];
  }
}

template <class T>
void hold_pair(const HeldPair<T>& pair, PairSums& sums) {
  const int64_t plane = pair.shape[1] * pair.shape[2];
  const T *a = pair.a, *b = pair.b;
  PieceSum square_a, square_b, inner;
  for (int64_t i = 0; i < pair.shape[0]; ++i) {
    if (pair.a_to) {
      T *const a_to = pair.a_to + i * pair.target_stride, *const b_to = pair.b_to + i * pair.target_stride;
      copy_plane(a_to, pair.a + i * pair.a_strides[0], pair.shape, pair.a_strides);
      copy_plane(b_to, pair.b + i * pair.b_strides[0], pair.shape, pair.b_strides);
      a = a_to;
      b = b_to;
    } else {
      a = pair.a + i * plane;
      b = pair.b + i * plane;
    }
    for (int64_t begin = 0; begin < plane; begin += kPiece) {
      const int64_t count = plane - begin < kPiece ? plane - begin : kPiece;
      square_a.room_for(count);
      square_b.room_for(count);
      inner.room_for(count);
      add_products(a + begin, b + begin, count, square_a.piece, square_b.piece, inner.piece);
    }
  }
  sums.square_a += square_a.whole + square_a.piece;
  sums.square_b += square_b.whole + square_b.piece;
  sums.inner += inner.whole + inner.piece;
}

template <class T>
constexpr UnitKernels<T> kernels() {
  return {rise<T>, move_units<T>, unit_differences<T>, hold_pair<T>};
}

#define LMCFAST_STRING_OF(x) #x
#define LMCFAST_STRING(x) LMCFAST_STRING_OF(x)

}  // namespace

extern const UnitLevel kUnits;
const UnitLevel kUnits = {LMCFAST_STRING(LMCFAST_LEVEL), kernels<float>(), kernels<double>(), add_product};

}  // namespace lmcfast::LMCFAST_LEVEL
