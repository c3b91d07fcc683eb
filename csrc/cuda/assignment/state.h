// What the kernels of one assignment problem share: where everything lies, and how far the solve has come.
//
// In the solver's orientation: scores are maximised, rows <= columns. Scores, lists and words carry the auction;
// `price`, `row_of`, `column_of` and `score` are the float64 state of the shortest paths and of the certificate.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/numbers.h"
#include "lmcfast/cuda_assignment.h"

namespace lmcfast::cuda {

#define LMCFAST_INFINITY (__builtin_huge_val())

constexpr int kList = 128;       // most entries of a candidate list
constexpr int kClasses = 16;     // whose least maximum is the threshold of a list: about 16 H(16) = 54 columns reach it
constexpr int kExactChain = 64;  // bids of one chain without a tolerance; beyond, shortest paths are cheaper
constexpr int kChunk = 128;      // columns that share one minimum in the shortest paths

// Scores of one storage as exact reals: float where that holds them, else double.
struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
__device__ inline float exact(float v) { return v; }
__device__ inline double exact(double v) { return v; }
__device__ inline float exact(Bfloat16 v) { return bfloat16_value(v.bits); }
__device__ inline float exact(Float16 v) { return float16_value(v.bits); }
template <class T>
using Exact = decltype(exact(T{}));

// Decisions of the solve; written by single threads between kernels, or by atomics.
struct Control {
  double delta, inverse_delta;  // unit of the prices in words, and its inverse: powers of two
  double sigma;                 // unit of the tolerance
  double eps, eps_end;
  double largest;                                                               // |score|
  u64 bids, lost, scans, exact_scans, tight_rounds, paths, steps, dense_steps;  // for the report
  u64 spent, spent_limit;    // work of the present chains, in bids; and what they may cost
  u64 bid_limit;             // of all phases
  u64 invalid;               // row * columns + column of the first invalid score, ~0: none
  unsigned head, count;      // next of the queue; its length
  unsigned done, target;     // columns taken from the free ones in the present chains, and how many end them
  unsigned left;             // rows in `left`
  unsigned phase, finished;  // finished: no further phase
  unsigned keep_owners;      // the next phase goes on with the assignment of the last
  unsigned falling;          // the tolerance has begun to fall
  unsigned uneven;           // many rows are of a much smaller scale than the mean: no auction
  unsigned lowered;          // columns in `order` whose prices were lowered
  unsigned settled;          // the float64 state is ahead of the words: only shortest paths may follow
  unsigned infeasible_row;   // + 1
  unsigned status, warm;
  unsigned free_after_bids, free_after_phases, free_before_paths;
};

template <class T>
struct State {
  const T* scores;
  int64_t row_stride, column_stride;
  Exact<T> sign;  // of the scores as they are maximised
  int rows, columns;
  int capacity;   // entries set aside for a list
  int full_list;  // rows of so many columns are listed whole
  bool swapped;   // the caller's rows are the columns here
  bool deterministic;
  int64_t bid_limit;
  const double* start_prices;  // of the caller's columns; or null

  // Of columns.
  u64* word;           // words.h
  float* floor_price;  // the word's price, rounded down
  double* price;
  double* key;  // paths.h; null where it is in shared memory, as far as that fits
  u64* least;   // of chunks of columns; the same
  double* distance;
  int *reached_from, *row_of, *order, *touched;
  // Of rows.
  int* list_column;      // (rows, capacity)
  Exact<T>* list_score;  // (rows, capacity)
  int* list_length;
  double* bound;      // of a[i,j] - p[j] over all columns outside the list
  double* unit;       // the scale of the row
  double* magnitude;  // largest |a[i,j]| and price of the first scan
  double* score;      // of the assigned pair
  double* profit;     // u[i] of the certificate
  int *queue, *left, *column_of, *label, *tree_end;
  Control* control;

  int64_t* columns_out;  // of the caller's rows
  double* prices_out;    // of the caller's columns
  double* profits_out;   // of the caller's rows, or null
  AssignmentReport* report;

  __device__ const T* stored(int i, int j) const { return scores + i * row_stride + j * column_stride; }
  __device__ Exact<T> value(T stored) const { return sign * exact(stored); }
  __device__ Exact<T> at(int i, int j) const { return value(read_input(stored(i, j))); }
  __device__ int* columns_listed(int i) const { return list_column + int64_t(i) * capacity; }
  __device__ Exact<T>* scores_listed(int i) const { return list_score + int64_t(i) * capacity; }
};

// The threads or warps that share a loop.
struct Workers {
  unsigned rank, count;
};

__device__ inline Workers block_threads() { return {threadIdx.x, blockDim.x}; }
__device__ inline Workers block_warps() { return {threadIdx.x / 32, blockDim.x / 32}; }
__device__ inline Workers grid_threads() { return {blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x}; }
__device__ inline Workers grid_warps() {
  const unsigned warps = blockDim.x / 32;
  return {blockIdx.x * warps + threadIdx.x / 32, gridDim.x * warps};
}
__device__ inline unsigned lane_id() { return threadIdx.x % 32; }

}  // namespace lmcfast::cuda
