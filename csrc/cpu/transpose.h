// A matrix whose columns lie side by side -> contiguous rows.
#pragma once

#include "vector.h"

namespace lmcfast::LMCFAST_LEVEL {

LMCFAST_INLINE Floats load_lanes(const float* p) { return load_floats(p); }
LMCFAST_INLINE Doubles load_lanes(const double* p) { return load(p); }
LMCFAST_INLINE void store_lanes(float* p, Floats v) { *reinterpret_cast<UnalignedFloats*>(p) = v; }
LMCFAST_INLINE void store_lanes(double* p, Doubles v) { store(p, v); }

// Lanes of a followed by those of b, picked by number.
template <int... k>
LMCFAST_INLINE Floats pick(Floats a, Floats b, std::integer_sequence<int, k...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, k...);
#else
  typedef int32_t Order __attribute__((vector_size(kVectorBytes)));
  return __builtin_shuffle(a, b, Order{k...});
#endif
}
template <int... k>
LMCFAST_INLINE Doubles pick(Doubles a, Doubles b, std::integer_sequence<int, k...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, k...);
#else
  return __builtin_shuffle(a, b, Indices{k...});
#endif
}

// Rows a and b are `kDistance` apart: exchanges the blocks of so many lanes that lie off the diagonal.
template <int kDistance, class V, int... k>
LMCFAST_INLINE void exchange_blocks(V& a, V& b, std::integer_sequence<int, k...>) {
  constexpr int kCount = int(sizeof...(k));
  const V upper = pick(a, b, std::integer_sequence<int, (k & kDistance ? kCount + k - kDistance : k)...>{});
  b = pick(a, b, std::integer_sequence<int, (k & kDistance ? kCount + k : k + kDistance)...>{});
  a = upper;
}
template <int kDistance, class V, int... pair>
LMCFAST_INLINE void exchange_all(V* rows, std::integer_sequence<int, pair...>) {
  constexpr std::make_integer_sequence<int, 2 * int(sizeof...(pair))> lanes{};
  // Pairs are numbered without the bit `kDistance`, which tells their two rows apart.
  (exchange_blocks<kDistance>(rows[pair / kDistance * 2 * kDistance + pair % kDistance],
                              rows[pair / kDistance * 2 * kDistance + pair % kDistance + kDistance], lanes),
   ...);
}

// As many vectors as each has lanes: transposed by exchanging ever smaller blocks off the diagonal.
template <int kDistance, class V>
LMCFAST_INLINE void transpose_square(V* rows) {
  exchange_all<kDistance>(rows, std::make_integer_sequence<int, int(sizeof(V) / sizeof(rows[0][0])) / 2>{});
  if constexpr (kDistance > 1) transpose_square<kDistance / 2>(rows);
}

// Writes the (rows, columns) matrix with element (i, j) at from[i + j * column_stride] to rows at `to`, `row_stride`
// apart. By blocks, of which both sides' cache lines and pages stay near, in squares of one cache line or less a side.
template <class T>
void copy_transposed(const T* from, int64_t rows, int64_t columns, int64_t column_stride, T* to, int64_t row_stride) {
  constexpr int64_t kBlock = 128, kSide = kVectorBytes / int64_t(sizeof(T));
  const auto copy_one_by_one = [&](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    for (int64_t i = i0; i < i1; ++i)
      for (int64_t j = j0; j < j1; ++j) to[i * row_stride + j] = from[i + j * column_stride];
  };
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock)
    for (int64_t j0 = 0; j0 < columns; j0 += kBlock) {
      const int64_t i1 = i0 + kBlock < rows ? i0 + kBlock : rows, j1 = j0 + kBlock < columns ? j0 + kBlock : columns;
      const int64_t whole_i = i1 - (i1 - i0) % kSide, whole_j = j1 - (j1 - j0) % kSide;
      for (int64_t i = i0; i < whole_i; i += kSide)
        for (int64_t j = j0; j < whole_j; j += kSide) {
          decltype(load_lanes(from)) square[kSide];
          for (int64_t k = 0; k < kSide; ++k) square[k] = load_lanes(from + i + (j + k) * column_stride);
          transpose_square<int(kSide) / 2>(square);
          for (int64_t k = 0; k < kSide; ++k) store_lanes(to + (i + k) * row_stride + j, square[k]);
        }
      copy_one_by_one(whole_i, i1, j0, j1);
      copy_one_by_one(i0, whole_i, whole_j, j1);
    }
}

}  // namespace lmcfast::LMCFAST_LEVEL
