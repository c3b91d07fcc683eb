// Tensors cut in chunks of kInnerChunk numbers, one for each block; and what a block makes of its threads' values.
#pragma once

#include <cstdint>

#include "cuda/numbers.h"
#include "lmcfast/cuda_similarity.h"

namespace lmcfast::cuda {

constexpr int kChunkThreads = 256;

// The last entry of a table that starts at or before `chunk`: entries without numbers have no chunk and are passed
// over.
template <class Entry>
__device__ __forceinline__ int64_t entry_of(const Entry* entries, int64_t count, int64_t chunk) {
  int64_t low = 0, high = count - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (entries[middle].first_chunk <= chunk) low = middle;
    else high = middle - 1;
  }
  return low;
}

__host__ __device__ __forceinline__ int64_t numbers_of(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

// A position in an array of up to 2^93 numbers. Moving on from the start of a chunk takes divisions of 32 bits only.
struct Position {
  unsigned x, y, z;

  __device__ __forceinline__ static Position at(const int64_t (&size)[3], int64_t number) {
    const int64_t row = number / size[2];
    return {unsigned(row / size[1]), unsigned(row % size[1]), unsigned(number % size[2])};
  }

  // step < kInnerChunk
  __device__ __forceinline__ Position moved(const int64_t (&size)[3], unsigned step) const {
    const unsigned along = z + step, rows = y + along / unsigned(size[2]);
    return {x + rows / unsigned(size[1]), rows % unsigned(size[1]), along % unsigned(size[2])};
  }
};

__device__ __forceinline__ int64_t gathered(const InnerOperand& x, int axis, unsigned index) {
  return (x.gather[axis] ? x.gather[axis][index] : int64_t(index)) * x.stride[axis];
}

__device__ __forceinline__ double number_at(const InnerOperand& x, const Position& p) {
  const int64_t offset = gathered(x, 0, p.x) + gathered(x, 1, p.y) + gathered(x, 2, p.z);
  return stored_value<double>(x.data, Dtype(x.dtype), offset);
}

// A float64 sum and the rest that its roundings left (Knuth's two-sum): as exact as in twice the precision.
struct LongSum {
  double sum, rest;

  __device__ __forceinline__ void add(const LongSum& other) {
    const double total = sum + other.sum, shown = total - sum;
    rest += (sum - (total - shown)) + (other.sum - shown) + other.rest;
    sum = total;
  }
};

// Combines the values of a block's threads by a tree of fixed shape. `shared`: one value for each thread.
template <class T, class Combine>
__device__ __forceinline__ T reduce_block(T* shared, const T& value, Combine combine) {
  shared[threadIdx.x] = value;
  for (int half = kChunkThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) combine(shared[threadIdx.x], shared[threadIdx.x + half]);
  }
  __syncthreads();
  return shared[0];
}

}  // namespace lmcfast::cuda
