// Score matrices of many groups in one launch (`cuda_similarity.h`).
//
// A block of four warps forms 64 x 64 numbers of one group, over all terms of the group; each warp owns a quarter.
// Which group a block works for it finds by a binary search over the groups' first tiles, so groups of any sizes share
// a launch without a list of tiles. No block depends on another: the additions come in a fixed order, so results
// repeat.
#include <cstdint>

#include "cuda/device.h"
#include "cuda/similarity/elements.h"
#include "cuda/similarity/tile.h"
#include "lmcfast/cuda_similarity.h"

namespace lmcfast::cuda {

namespace {

// The last entry that starts at or before `at`; entries without extent are passed over.
__device__ __forceinline__ const ProductGroup& group_of(const ProductGroup* groups, int64_t count, int64_t at) {
  int64_t low = 0, high = count - 1;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (groups[middle].first_tile <= at) low = middle;
    else high = middle - 1;
  }
  return groups[low];
}

template <class Kind, bool tensor_cores>
__device__ __forceinline__ void multiply_tile(Quarter<typename Kind::Sum>& sums, const typename Kind::Word* a,
                                              const typename Kind::Word* b, int lane) {
  if constexpr (tensor_cores && LMCFAST_TENSOR_CORES) Kind::multiply(sums, a, b, lane);
  else multiply_plainly<Kind>(sums, a, b, lane);
}

template <class Sum>
__device__ __forceinline__ void clear(Quarter<Sum>& sums) {
  for_quarter([&](int u, int v, int z) { sums[u][v][z] = 0; });
}

// The rounding of a long float32 sum grows with its length, or with the root of it: so the sums of kBatchSteps steps
// are added to one another first, and these to the total. What an addition to the total rounds off begins the next
// batch (Kahan's summation), so the error does not grow with the number of batches.
constexpr int kBatchSteps = 16;

// What a thread adds up.
template <class Sum>
struct Totals {
  static constexpr bool kInBatches = sizeof(Sum) == 4;

  Quarter<Sum> total, batch;
  int steps = 0;

  __device__ __forceinline__ Totals() {
    clear(total);
    clear(batch);
  }

  __device__ __forceinline__ void add(const Quarter<Sum>& sums, Sum weight) {
    if constexpr (kInBatches) {
      for_quarter([&](int u, int v, int z) { batch[u][v][z] += weight * sums[u][v][z]; });
      if (++steps % kBatchSteps == 0) close_batch();
    } else {
      for_quarter([&](int u, int v, int z) { total[u][v][z] += weight * sums[u][v][z]; });
    }
  }

  __device__ __forceinline__ void close_batch() {
    if constexpr (kInBatches) {
      for_quarter([&](int u, int v, int z) {
        const Sum sum = total[u][v][z] + batch[u][v][z];
        batch[u][v][z] -= sum - total[u][v][z];
        total[u][v][z] = sum;
      });
    }
  }
};

template <class Sum>
__device__ __forceinline__ void write(const ProductGroup& group, const Quarter<Sum>& totals, int row, int column,
                                      int lane) {
  for_quarter([&](int u, int v, int z) {
    const int i = row + fragment_row(lane, u, z), j = column + fragment_column(lane, v, z);
    if (i >= group.rows || j >= group.columns) return;
    Sum* const out = static_cast<Sum*>(group.out) + i * group.row_stride + j * group.column_stride;
    *out = group.accumulate ? *out + totals[u][v][z] : totals[u][v][z];
  });
}

template <class Kind, bool tensor_cores>
__global__ void __launch_bounds__(kProductThreads)
    products_kernel(const ProductGroup* groups, int64_t group_count, const ProductTerm* terms) {
  using Word = typename Kind::Word;
  using Sum = typename Kind::Sum;
  LMCFAST_SHARED(Word, tile_a, [kProductTile * kPitch]);
  LMCFAST_SHARED(Word, tile_b, [kProductTile * kPitch]);

  const ProductGroup& group = group_of(groups, group_count, blockIdx.x);
  const int rows = int(group.rows), columns = int(group.columns);
  const int tile = int(int64_t(blockIdx.x) - group.first_tile), across = (columns + kProductTile - 1) / kProductTile;
  const int first_row = tile / across * kProductTile, first_column = tile % across * kProductTile;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp / 2 * 32, column = warp % 2 * 32;

  Totals<Sum> totals;
  for (int64_t k = group.first_term; k < group.first_term + group.terms; ++k) {
    const ProductTerm& term = terms[k];
    const unsigned depth = unsigned(term.blocks) * unsigned(term.positions);
    constexpr unsigned kStep = kStepWords * Kind::kPerWord;
    Word staged_a[kStagedWords], staged_b[kStagedWords];
    if (depth > 0) {
      fetch<Kind>(staged_a, term.a, term, 0, first_row, rows);
      fetch<Kind>(staged_b, term.b, term, 0, first_column, columns);
    }
    for (unsigned start = 0; start < depth; start += kStep) {
      __syncthreads();  // nobody reads the tiles of the step before any more
      deposit(tile_a, staged_a, term.a);
      deposit(tile_b, staged_b, term.b);
      __syncthreads();
      if (start + kStep < depth) {
        fetch<Kind>(staged_a, term.a, term, start + kStep, first_row, rows);
        fetch<Kind>(staged_b, term.b, term, start + kStep, first_column, columns);
      }
      Quarter<Sum> sums;
      clear(sums);
      multiply_tile<Kind, tensor_cores>(sums, tile_a + row * kPitch, tile_b + column * kPitch, lane);
      totals.add(sums, Sum(term.weight));
    }
  }
  totals.close_batch();
  write(group, totals.total, first_row + row, first_column + column, lane);
}

template <class Kind, bool tensor_cores>
int enqueue(const ProductCall& call) {
  Launch configuration;
  configuration.grid = dim3(unsigned(call.tiles));
  configuration.block = dim3(kProductThreads);
  configuration.stream = static_cast<cudaStream_t>(call.stream);
  return int(launch(configuration, products_kernel<Kind, tensor_cores>, call.groups, call.group_count, call.terms));
}

}  // namespace

int similarity(const ProductCall& call) {
  if (call.tiles == 0) return 0;
  const bool tensor = call.tensor_cores;
  switch (call.products) {
    case Dtype::float32:
      return tensor ? enqueue<SingleProducts, true>(call) : enqueue<SingleProducts, false>(call);
    case Dtype::bfloat16:
      return tensor ? enqueue<Bfloat16Products, true>(call) : enqueue<Bfloat16Products, false>(call);
    case Dtype::float16:
      return tensor ? enqueue<Float16Products, true>(call) : enqueue<Float16Products, false>(call);
    default:
      return enqueue<DoubleProducts, false>(call);
  }
}

}  // namespace lmcfast::cuda
