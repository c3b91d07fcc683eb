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

// A tile side: a cache line of float32.
constexpr int64_t kTile = 16;

// Entries [0, rows) x [0, columns) of a tile, one by one.
template <class T>
inline void copy_tile(const T* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, T* to,
                      int64_t to_stride) {
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = 0; i < rows; ++i) to[i * to_stride + j] = from[i * row_stride + j * column_stride];
}

inline void copy_tile(const float* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                      float* to, int64_t to_stride) {
  if (row_stride != 1 || rows < kTile || columns < kTile)
    return copy_tile<float>(from, rows, columns, row_stride, column_stride, to, to_stride);
  // By way of a small block, so that a line of either side is touched once: where strides are powers of two, the lines
  // of a tile compete for the same few places of the first-level cache.
  alignas(64) float block[kTile * kTile];
  for (int64_t j = 0; j < kTile; j += 4)
    for (int64_t i = 0; i < kTile; i += 4)
      transpose_4x4(from + i + j * column_stride, column_stride, block + i * kTile + j, kTile);
  for (int64_t i = 0; i < kTile; ++i)
    for (int64_t j = 0; j < kTile; j += 4) store(to + i * to_stride + j, load(block + i * kTile + j));
}

}  // namespace transpose_detail

// Writes the (rows, columns) matrix at `from` to contiguous rows at `to`. Tile by tile, so that cache lines of both
// sides are used whole while they are near.
template <class T>
void make_contiguous(const T* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, T* to) {
  using transpose_detail::kTile;
  for (int64_t i = 0; i < rows; i += kTile)
    for (int64_t j = 0; j < columns; j += kTile)
      transpose_detail::copy_tile(from + i * row_stride + j * column_stride, std::min(kTile, rows - i),
                                  std::min(kTile, columns - j), row_stride, column_stride, to + i * columns + j,
                                  columns);
}

}  // namespace lmcfast
