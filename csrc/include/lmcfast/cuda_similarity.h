// Sums of products on a GPU: the score matrices of many groups in one launch; inner products in float64; magnitudes.
//
// Everything is described by tables in device memory, made of 8-byte fields alone, so that the caller can write them as
// arrays of int64. All functions enqueue on the given stream of the current device, never wait, allocate nothing and
// may be captured in a graph; tables, operands, results and workspace belong to the caller and must live until the
// stream has passed the call. Results must not overlap operands. Strides count elements and may have any sign; offsets
// are 64 bits wide. Nothing is checked: addresses outside what was allocated, or gathers outside their axis, are
// undefined.
//
// Each function returns 0, or the code of a CUDA error (`error_text` of cuda_devices.h).
#pragma once

#include <cstdint>

#include "dtype.h"

namespace lmcfast::cuda {

// ---- score matrices: out[i, j] (+)= sum over terms of weight * sum over (q, r) of a[i, q, r] * b[j, q, r]

// A (units, blocks, positions) view: number (i, q, r) lies at i * unit_stride + q * block_stride + p * position_stride,
// where p is gather[r], or r without one. Both strides are of use: for the last axis of a tensor (O, 9, I) the units
// are I, the blocks 9 and the positions O, so that a permutation of O is a gather of positions, and nothing is copied.
struct ProductOperand {
  const void* data;
  const int64_t* gather;  // or null
  int64_t unit_stride, block_stride, position_stride;
  int64_t dtype;  // a Dtype
};

struct ProductTerm {
  ProductOperand a, b;
  int64_t blocks, positions;  // blocks * positions < 2^31
  double weight;
};

constexpr int kProductTile = 64;  // a group has ceil(rows / 64) * ceil(columns / 64) tiles

struct ProductGroup {
  void* out;  // (rows, columns): float64 where products are float64, else float32
  int64_t row_stride, column_stride, rows, columns;  // rows and columns < 2^31
  int64_t first_term, terms;                         // in the table of terms
  int64_t accumulate;                                // 1: add to what is there; 0: overwrite it (with 0 without terms)
  int64_t first_tile;                                // tiles of the groups before it
};

struct ProductCall {
  const ProductGroup* groups;
  const ProductTerm* terms;
  int64_t group_count, tiles;  // tiles of all groups, < 2^31
  // How the terms of this call are multiplied.
  //   float32: operands of any storage but float64. Both are split in two TF32 parts, and the three products that
  //   matter
  //     are added up: as exact as float32 arithmetic.
  //   bfloat16, float16: both operands stored so. Exact products, float32 sums.
  //   float64: operands of any storage.
  // Sums of 16 (float32) or 32 (16-bit storage) products are formed in the tensor cores, and added to one another in
  // float32, round to nearest, sixteen of them first, and these by compensated summation: in the tensor cores additions
  // are truncated, which over a long sum would be a bias.
  Dtype products;
  // False: multiply and add in float32 without tensor cores (always so below compute capability 8.0). No use but tests.
  bool tensor_cores = true;
  void* stream = nullptr;
};

int similarity(const ProductCall&);

// ---- inner products in float64: values[k] = sum over (x, y, z) of a * (b - less)

// A view of up to three axes, each of which may be gathered.
struct InnerOperand {
  const void* data;
  const int64_t* gather[3];  // or null
  int64_t stride[3];
  int64_t dtype;
};

constexpr int kInnerChunk = 8192;  // numbers that one block adds up; an inner product of none has no chunk

struct InnerProduct {
  InnerOperand a, b, less;  // less.data null: nothing is taken off
  int64_t size[3];          // each < 2^31 - kInnerChunk
  int64_t first_chunk;  // ceil(size[0] * size[1] * size[2] / kInnerChunk) chunks each, those of the products before it
};

struct InnerCall {
  const InnerProduct* products;
  int64_t count, chunks;
  double* partial;  // (chunks): workspace
  double* values;   // (count)
  void* stream = nullptr;
};

// The order of the additions depends on the sizes alone, so values repeat to the last bit. Each value is off by at most
// gamma(k) * sum |a (b - less)| with k = 44 (docs of lmcfast/matching/sums.py), however many numbers it sums up.
int inner_products(const InnerCall&);

// ---- magnitudes: the largest finite |x| of a tensor, and where its first NaN or infinity is

struct MagnitudeEntry {
  InnerOperand x;
  int64_t size[3];
  int64_t first_chunk;
};

struct Magnitude {
  double largest;      // 0 where no number is finite
  int64_t not_finite;  // in row-major order of (size[0], size[1], size[2]); -1: none
};

struct MagnitudeCall {
  const MagnitudeEntry* entries;
  int64_t count, chunks;
  Magnitude* partial;  // (chunks): workspace
  Magnitude* values;   // (count)
  void* stream = nullptr;
};

int magnitudes(const MagnitudeCall&);

}  // namespace lmcfast::cuda
