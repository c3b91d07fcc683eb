// Inner products of permuted tensors in float64, and magnitudes (`cuda_similarity.h`). Both run in two launches: a
// block for each chunk of numbers, then a block for each tensor, which combines the chunks in their order.
#include <cfloat>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/similarity/chunks.h"
#include "lmcfast/cuda_similarity.h"

namespace lmcfast::cuda {

namespace {

template <class Entry>
__device__ __forceinline__ int64_t chunks_of(const Entry& entry) {
  return (numbers_of(entry.size) + kInnerChunk - 1) / kInnerChunk;
}

// Calls visit(position, number of the element) for the thread's elements of chunk `chunk` of an entry.
template <class Entry, class Visit>
__device__ __forceinline__ void visit_chunk(const Entry& entry, int64_t chunk, Visit visit) {
  const int64_t start = (chunk - entry.first_chunk) * kInnerChunk, left = numbers_of(entry.size) - start;
  const unsigned end = unsigned(left < kInnerChunk ? left : kInnerChunk);
  const Position first = Position::at(entry.size, start);
  for (unsigned step = threadIdx.x; step < end; step += kChunkThreads)
    visit(first.moved(entry.size, step), start + step);
}

__global__ void __launch_bounds__(kChunkThreads)
    inner_chunks_kernel(const InnerProduct* products, int64_t count, double* partial) {
  LMCFAST_SHARED(double, sums, [kChunkThreads]);
  const InnerProduct& product = products[entry_of(products, count, blockIdx.x)];
  double sum = 0;
  visit_chunk(product, blockIdx.x, [&](const Position& p, int64_t) {
    double b = number_at(product.b, p);
    if (product.less.data) b -= number_at(product.less, p);
    sum = fma(number_at(product.a, p), b, sum);
  });
  sum = reduce_block(sums, sum, [](double& to, double from) { to += from; });
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kChunkThreads)
    inner_sums_kernel(const InnerProduct* products, const double* partial, double* values) {
  LMCFAST_SHARED(LongSum, sums, [kChunkThreads]);
  const InnerProduct& product = products[blockIdx.x];
  const int64_t chunks = chunks_of(product);
  LongSum sum{0, 0};
  for (int64_t k = threadIdx.x; k < chunks; k += kChunkThreads) sum.add({partial[product.first_chunk + k], 0});
  sum = reduce_block(sums, sum, [](LongSum& to, const LongSum& from) { to.add(from); });
  if (threadIdx.x == 0) values[blockIdx.x] = sum.sum + sum.rest;
}

// The larger magnitude, and the place that comes first.
__device__ __forceinline__ void merge(Magnitude& to, const Magnitude& from) {
  if (from.largest > to.largest) to.largest = from.largest;
  if (from.not_finite >= 0 && (to.not_finite < 0 || from.not_finite < to.not_finite)) to.not_finite = from.not_finite;
}

__global__ void __launch_bounds__(kChunkThreads)
    magnitude_chunks_kernel(const MagnitudeEntry* entries, int64_t count, Magnitude* partial) {
  LMCFAST_SHARED(Magnitude, found, [kChunkThreads]);
  const MagnitudeEntry& entry = entries[entry_of(entries, count, blockIdx.x)];
  Magnitude mine{0, -1};
  visit_chunk(entry, blockIdx.x, [&](const Position& p, int64_t number) {
    const double size = fabs(number_at(entry.x, p));
    merge(mine, size <= DBL_MAX ? Magnitude{size, -1} : Magnitude{0, number});
  });
  mine = reduce_block(found, mine, [](Magnitude& to, const Magnitude& from) { merge(to, from); });
  if (threadIdx.x == 0) partial[blockIdx.x] = mine;
}

__global__ void __launch_bounds__(kChunkThreads)
    magnitudes_kernel(const MagnitudeEntry* entries, const Magnitude* partial, Magnitude* values) {
  LMCFAST_SHARED(Magnitude, found, [kChunkThreads]);
  const MagnitudeEntry& entry = entries[blockIdx.x];
  const int64_t chunks = chunks_of(entry);
  Magnitude mine{0, -1};
  for (int64_t k = threadIdx.x; k < chunks; k += kChunkThreads) merge(mine, partial[entry.first_chunk + k]);
  mine = reduce_block(found, mine, [](Magnitude& to, const Magnitude& from) { merge(to, from); });
  if (threadIdx.x == 0) values[blockIdx.x] = mine;
}

Launch blocks(int64_t count, void* stream) {
  Launch configuration;
  configuration.grid = dim3(unsigned(count));
  configuration.block = dim3(kChunkThreads);
  configuration.stream = static_cast<cudaStream_t>(stream);
  return configuration;
}

}  // namespace

int inner_products(const InnerCall& call) {
  if (call.count == 0) return 0;
  if (call.chunks > 0) {
    const int status =
        int(launch(blocks(call.chunks, call.stream), inner_chunks_kernel, call.products, call.count, call.partial));
    if (status) return status;
  }
  return int(launch(blocks(call.count, call.stream), inner_sums_kernel, call.products, call.partial, call.values));
}

int magnitudes(const MagnitudeCall& call) {
  if (call.count == 0) return 0;
  if (call.chunks > 0) {
    const int status =
        int(launch(blocks(call.chunks, call.stream), magnitude_chunks_kernel, call.entries, call.count, call.partial));
    if (status) return status;
  }
  return int(launch(blocks(call.count, call.stream), magnitudes_kernel, call.entries, call.partial, call.values));
}

}  // namespace lmcfast::cuda
