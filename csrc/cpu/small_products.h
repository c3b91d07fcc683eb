// The scores of a small group: products of matrices with few rows, where a call of a library takes longer than the
// work.
#pragma once

#include "lmcfast/units.h"
#include "transpose.h"

namespace lmcfast::LMCFAST_LEVEL {

constexpr int kFloats = 2 * kLanes;

// Adds to a tile (kRows, kVectors * kFloats) of `to`: each number is one sum along the depth, in order.
template <int kRows, int kVectors>
LMCFAST_INLINE void add_tile(float* to, int64_t to_stride, const UnitRows& a, const float* b, int64_t b_stride,
                             int64_t depth, float weight) {
  Floats sums[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Floats row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = load_lanes(b + k * b_stride + v * kFloats);
    for (int r = 0; r < kRows; ++r) {
      const float x = a.data[r * a.unit_stride + k * a.stride];
      for (int v = 0; v < kVectors; ++v) sums[r][v] += x * row[v];
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* const at = to + r * to_stride + v * kFloats;
      store_lanes(at, load_lanes(at) + weight * sums[r][v]);
    }
}

// In blocks of the depth, of which B's is copied to have its units side by side where they are not.
static void add_product(float* to, int64_t n, int64_t depth, float weight, const UnitRows& a, const UnitRows& b) {
  constexpr int64_t kBlock = 128;
  constexpr int kRows = kFloats == 16 ? 8 : 4;  // two vectors of so many rows fit the registers
  float copied[kBlock * kMostSmall];
  for (int64_t begin = 0; begin < depth; begin += kBlock) {
    const int64_t count = depth - begin < kBlock ? depth - begin : kBlock;
    const float* rows = b.data + begin * b.stride;
    int64_t rows_stride = b.stride;
    if (b.unit_stride != 1) {
      copy_transposed(rows, count, n, b.unit_stride, copied, n);
      rows = copied;
      rows_stride = n;
    }
    for (int64_t j = 0; j < n;) {
      const bool two = j + 2 * kFloats <= n;
      for (int64_t i = 0; i < n; i += kRows) {
        const UnitRows some{a.data + i * a.unit_stride + begin * a.stride, a.unit_stride, a.stride};
        if (two) add_tile<kRows, 2>(to + i * n + j, n, some, rows + j, rows_stride, count, weight);
        else add_tile<kRows, 1>(to + i * n + j, n, some, rows + j, rows_stride, count, weight);
      }
      j += two ? 2 * kFloats : kFloats;
    }
  }
}

}  // namespace lmcfast::LMCFAST_LEVEL
