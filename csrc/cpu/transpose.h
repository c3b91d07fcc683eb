// A matrix with any strides -> contiguous rows.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lmcfast {

namespace transpose_detail {

typedef float Four __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));

inline Four load(const float* p) { return *reinterpret_cast<const UnalignedFour*>(p); }
inline void store(float* p, Four v) { *reinterpret_cast<UnalignedFour*>(p) = v; }

#if defined(__clang__)
#define LMCFAST_PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t Order __attribute__((vector_size(16)));
#define LMCFAST_PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, Order{i, j, k, l})
#endif

// 4 x 4 floats; strides between the columns of `from` and between the rows of `to`.
inline void transpose_4x4(const float* from, int64_t column_stride, float* to, int64_t row_stride) {
  const Four a = load(from), b = load(from + column_stride);
  const Four c = load(from + 2 * column_stride), d = load(from + 3 * column_stride);
  const Four low_ab = LMCFAST_PICK(a, b, 0, 4, 1, 5), high_ab = LMCFAST_PICK(a, b, 2, 6, 3, 7);
  const Four low_cd = LMCFAST_PICK(c, d, 0, 4, 1, 5), high_cd = LMCFAST_PICK(c, d, 2, 6, 3, 7);
  store(to, LMCFAST_PICK(low_ab, low_cd, 0, 1, 4, 5));
  store(to + row_stride, LMCFAST_PICK(low_ab, low_cd, 2, 3, 6, 7));
  store(to + 2 * row_stride, LMCFAST_PICK(high_ab, high_cd, 0, 1, 4, 5));
  store(to + 3 * row_stride, LMCFAST_PICK(high_ab, high_cd, 2, 3, 6, 7));
}

#undef LMCFAST_PICK

// Entries [0, rows) x [0, columns) of a tile, one by one.
template <class T>
inline void copy_tile(const T* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, T* to,
                      int64_t to_stride) {
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = 0; i < rows; ++i) to[i * to_stride + j] = from[i * row_stride + j * column_stride];
}

inline void copy_tile(const float* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                      float* to, int64_t to_stride) {
  const int64_t whole_rows = row_stride == 1 ? rows / 4 * 4 : 0, whole_columns = columns / 4 * 4;
  for (int64_t i = 0; i < whole_rows; i += 4)
    for (int64_t j = 0; j < whole_columns; j += 4)
      transpose_4x4(from + i + j * column_stride, column_stride, to + i * to_stride + j, to_stride);
  copy_tile<float>(from + whole_columns * column_stride, whole_rows, columns - whole_columns, row_stride, column_stride,
                   to + whole_columns, to_stride);
  copy_tile<float>(from + whole_rows * row_stride, rows - whole_rows, columns, row_stride, column_stride,
                   to + whole_rows * to_stride, to_stride);
}

}  // namespace transpose_detail

// Writes the (rows, columns) matrix at `from` to contiguous rows at `to`. Tile by tile, so that cache lines of both
// sides are used whole while they are near.
template <class T>
void make_contiguous(const T* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, T* to) {
  constexpr int64_t kTile = 64;
  for (int64_t i = 0; i < rows; i += kTile)
    for (int64_t j = 0; j < columns; j += kTile)
      transpose_detail::copy_tile(from + i * row_stride + j * column_stride, std::min(kTile, rows - i),
                                  std::min(kTile, columns - j), row_stride, column_stride, to + i * columns + j,
                                  columns);
}

}  // namespace lmcfast
