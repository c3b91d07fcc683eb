// The kinds of products: what a word in shared memory is, and how a warp multiplies a strip of words.
//
// Each kind has
//   Word, Sum: a word in shared memory, a number of the result; kPerWord: depths that a word holds;
//   load(operand, first, second): the word with the numbers at two offsets (the second only where kPerWord is 2), of
//     which an offset kOutside gives zero;
//   multiply: adds to `sums`, the 32 x 32 quarter of a tile that the warp owns, the products of `kStepWords` words.
#pragma once

#include <climits>
#include <cstdint>

#include "cuda/numbers.h"
#include "lmcfast/cuda_similarity.h"

// Below compute capability 8.0 plain arithmetic is the fast way.
#if defined(LMCFAST_AMPERE) && !LMCFAST_AMPERE
#define LMCFAST_TENSOR_CORES 0
#else
#define LMCFAST_TENSOR_CORES 1
#endif

namespace lmcfast::cuda {

constexpr int64_t kOutside = INT64_MIN;

constexpr int kStepWords = 16;
// Words from one unit to the next in shared memory. Sixteen and four more, so that the eight units and four words that
// a warp reads at once, 20 q + r, lie in 32 different banks.
constexpr int kPitch = kStepWords + 4;

// The layout of mma.sync (PTX ISA, "Matrix fragments for mma.m16n8k8" and "m16n8k16"), in words. Lane 4 q + r holds of
// A the words (row q, word r), (q + 8, r), (q, r + 4), (q + 8, r + 4), of B the words (column q, word r), (q, r + 4),
// of the result the numbers (row q, columns 2 r and 2 r + 1) and the same of row q + 8. A word is one TF32 number, or
// two 16-bit numbers whose depths follow each other: a row of A or a column of B is eight words in either case.
//
// A lane's share of a quarter: fragment (u, v) has the rows from 16 u and the columns from 8 v on.
template <class T>
using Quarter = T[2][4][4];

__device__ __forceinline__ int fragment_row(int lane, int u, int z) { return 16 * u + lane / 4 + 8 * (z >> 1); }
__device__ __forceinline__ int fragment_column(int lane, int v, int z) { return 8 * v + 2 * (lane % 4) + (z & 1); }

template <class Visit>
__device__ __forceinline__ void for_quarter(Visit visit) {
  LMCFAST_UNROLL
  for (int k = 0; k < 32; ++k) visit(k / 16, k / 4 % 4, k % 4);
}

// Without tensor cores: the same lanes own the same numbers, so that only this function differs.
template <class Kind, class Sum, class Word>
__device__ __forceinline__ void multiply_plainly(Quarter<Sum>& sums, const Word* a, const Word* b, int lane) {
  for (int depth = 0; depth < kStepWords * Kind::kPerWord; ++depth) {
    const int word = depth / Kind::kPerWord, half = depth % Kind::kPerWord;
    Sum x[4], y[8];
    LMCFAST_UNROLL
    for (int k = 0; k < 4; ++k) x[k] = Kind::number(a[fragment_row(lane, k / 2, k % 2 * 2) * kPitch + word], half);
    LMCFAST_UNROLL
    for (int k = 0; k < 8; ++k) y[k] = Kind::number(b[fragment_column(lane, k / 2, k % 2) * kPitch + word], half);
    for_quarter([&](int u, int v, int z) { sums[u][v][z] += x[2 * u + z / 2] * y[2 * v + z % 2]; });
  }
}

struct DoubleProducts {
  using Word = double;
  using Sum = double;
  static constexpr int kPerWord = 1;

  static __device__ __forceinline__ double load(const ProductOperand& x, int64_t first, int64_t) {
    return first == kOutside ? 0.0 : stored_value<double>(x.data, Dtype(x.dtype), first);
  }

  static __device__ __forceinline__ double number(double word, int) { return word; }

  static __device__ __forceinline__ void multiply(Quarter<double>& sums, const double* a, const double* b, int lane) {
    multiply_plainly<DoubleProducts>(sums, a, b, lane);
  }
};

// x = big + small + a rest below 2^-24 |x|, both of 11 significant bits. The product of two small parts, below 2^-24 of
// the whole, is left out, so three products are as exact as one in float32.
struct SingleProducts {
  using Word = float;
  using Sum = float;
  static constexpr int kPerWord = 1;

  static __device__ __forceinline__ float load(const ProductOperand& x, int64_t first, int64_t) {
    return first == kOutside ? 0.0f : stored_value<float>(x.data, Dtype(x.dtype), first);
  }

  static __device__ __forceinline__ float number(float word, int) { return word; }

  static __device__ __forceinline__ void split(float x, uint32_t& big, uint32_t& small) {
    big = to_tf32(x);
    small = to_tf32(x - __uint_as_float(big));
  }

  static __device__ __forceinline__ void multiply(Quarter<float>& sums, const float* a, const float* b, int lane) {
    const int q = lane / 4, r = lane % 4;
    for (int word = 0; word < kStepWords; word += 8) {
      uint32_t big_a[2][4], small_a[2][4], big_b[4][2], small_b[4][2];
      for (int u = 0; u < 2; ++u)
        for (int z = 0; z < 4; ++z)
          split(a[(16 * u + q + 8 * (z & 1)) * kPitch + word + r + 4 * (z >> 1)], big_a[u][z], small_a[u][z]);
      for (int v = 0; v < 4; ++v)
        for (int z = 0; z < 2; ++z) split(b[(8 * v + q) * kPitch + word + r + 4 * z], big_b[v][z], small_b[v][z]);
      for (int u = 0; u < 2; ++u)
        for (int v = 0; v < 4; ++v) {  // the small ones first: they lose nothing while the sum is small
          mma_tf32(sums[u][v], small_a[u], big_b[v]);
          mma_tf32(sums[u][v], big_a[u], small_b[v]);
          mma_tf32(sums[u][v], big_a[u], big_b[v]);
        }
    }
  }
};

template <Dtype storage>  // bfloat16 or float16
struct HalfProducts {
  using Word = uint32_t;
  using Sum = float;
  static constexpr int kPerWord = 2;

  static __device__ __forceinline__ uint32_t load(const ProductOperand& x, int64_t first, int64_t second) {
    const uint16_t* const data = static_cast<const uint16_t*>(x.data);
    const uint32_t low = first == kOutside ? 0 : data[first], high = second == kOutside ? 0 : data[second];
    return low | high << 16;
  }

  static __device__ __forceinline__ float number(uint32_t word, int half) {
    const uint16_t bits = uint16_t(word >> (16 * half));
    return storage == Dtype::bfloat16 ? bfloat16_value(bits) : float16_value(bits);
  }

  static __device__ __forceinline__ void multiply(Quarter<float>& sums, const uint32_t* a, const uint32_t* b,
                                                  int lane) {
    const int q = lane / 4, r = lane % 4;
    for (int word = 0; word < kStepWords; word += 8) {
      uint32_t fragment_a[2][4], fragment_b[4][2];
      for (int u = 0; u < 2; ++u)
        for (int z = 0; z < 4; ++z) fragment_a[u][z] = a[(16 * u + q + 8 * (z & 1)) * kPitch + word + r + 4 * (z >> 1)];
      for (int v = 0; v < 4; ++v)
        for (int z = 0; z < 2; ++z) fragment_b[v][z] = b[(8 * v + q) * kPitch + word + r + 4 * z];
      for (int u = 0; u < 2; ++u)
        for (int v = 0; v < 4; ++v) {
          if constexpr (storage == Dtype::bfloat16) mma_bfloat16(sums[u][v], fragment_a[u], fragment_b[v]);
          else mma_half(sums[u][v], fragment_a[u], fragment_b[v]);
        }
    }
  }
};

using Bfloat16Products = HalfProducts<Dtype::bfloat16>;
using Float16Products = HalfProducts<Dtype::float16>;

}  // namespace lmcfast::cuda
