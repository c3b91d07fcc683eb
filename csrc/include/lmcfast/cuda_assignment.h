// Exact dense assignment on a CUDA device: the whole host interface.
//
// The same problem, certificate and conventions as lmcfast/assignment.h, for scores in device memory. Everything is
// enqueued on the caller's stream: no call waits, allocates, reads device memory or decides by what is in it, so calls
// can be captured in a CUDA graph. What happened stands in an AssignmentReport in device memory afterwards; read it
// (one synchronisation) before results are trusted, or defer that.
//
// Pointers are device pointers to the current device unless said otherwise, borrowed until the enqueued work is done.
// Arrays must not overlap. Strides count elements, may be negative, and products with them are taken in 64 bits. Scores
// are read fastest along rows when column_stride is 1; square problems, and those with rows > columns, are as fast
// when row_stride is 1. Any other pair of strides is right and slow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lmcfast/dtype.h"

namespace lmcfast::cuda {

using Stream = void*;  // a cudaStream_t

// Bits of AssignmentReport::status. A result may be used if and only if none of kRefused is set.
enum AssignmentStatus : uint32_t {
  kInvalidScore = 1,    // NaN, or an infinity of the wrong sign; `row` and `column` say where
  kInfeasible = 2,      // forbidden pairs leave no assignment of the smaller side; `row` or `column` says who is left
  kUnfinished = 4,      // the step limit of the shortest paths came first: enqueue_resume, or solve on the CPU
  kNotCertified = 8,    // the prices do not prove the result (set with all of the above)
  kBudgetSpent = 16,    // remark: the auction spent its budget, shortest paths did the rest
  kPriceOverflow = 32,  // remark: some price left the range of the auction's words, shortest paths did the rest
  kRefused = kInvalidScore | kInfeasible | kUnfinished | kNotCertified,
};

// Written by the device, one for each problem; eight bytes a field. Counts are of the whole solve.
struct AssignmentReport {
  double objective;     // of the caller's scores
  double gap;           // sum(u) + sum(p) - objective in the maximised problem, >= 0 up to rounding
  double scale;         // max(|a|, |p|) over assigned pairs and prices: optimal at |gap| <= 16 min(n, m) 2^-53 scale
  double value;         // the invalid score
  int64_t status;       // bits of AssignmentStatus
  int64_t row, column;  // in the caller's orientation; -1: not applicable
  int64_t warm;         // 1: the start prices were used
  int64_t bids, lost_bids;  // bids made; those that came too late
  int64_t scans;            // rows read again after the first pass over the matrix
  int64_t exact_scans;      // rows read in float64, for values closer than keys can tell apart
  int64_t tight_rounds;     // searches for augmenting paths of tight pairs, from all free rows at once
  int64_t paths;            // shortest augmenting paths
  int64_t path_steps;       // columns and events taken in them
  int64_t dense_steps;      // of those: whole rows relaxed
  int64_t phases;           // of the auction with a tolerance
  int64_t free_after_bids, free_after_phases, free_before_paths;  // rows without a column at those points
  int64_t left;                                                   // rows without a column at the end
};

struct AssignmentProblem {
  const void* scores;  // (rows, columns)
  int64_t rows, columns, row_stride, column_stride;
  const double* start_prices;  // (columns), finite; or null. Used for square problems; else they start at zero
  int64_t* columns_out;        // (rows): column of each row, -1 where unassigned
  double* prices_out;          // (columns)
  double* profits_out;         // (rows): u[i] of the certificate, 0 for unassigned rows; or null
};

// Problem k of a ragged batch; eight bytes a field.
struct AssignmentEntry {
  int64_t scores;  // device address
  int64_t rows, columns, row_stride, column_stride;
  int64_t first_row, first_column;  // offsets in columns_out and profits_out, and in prices_out and start_prices
  int64_t workspace;                // offset in bytes, written by lay_out_batch
};

struct AssignmentOptions {
  Dtype type = Dtype::float32;
  bool maximize = true;        // false: minimise; then u[i] + p[j] <= a[i,j]
  bool deterministic = false;  // the same indices on every run: one chain of bids at a time, which is slow
  int64_t step_limit = 0;      // of shortest paths in one call; 0: 200 * columns + 1000
  // For tests and tuning; 0: chosen from the device.
  int32_t blocks = 0, threads = 0, path_threads = 0;
  int32_t bid_limit = 360;  // of the auction, for each row
  int32_t launches = -1;    // after so many kernels the rest is left out; -1: all. Not for batches
  int32_t full_list = 128;  // rows of at most so many columns are listed whole
};

struct Enqueued {
  int32_t error;     // a cudaError_t, 0: success. Nothing can be said about the work enqueued before the error
  int32_t launches;  // kernels enqueued; most return at once on easy problems
};

constexpr int64_t kMostShorter = 131070;    // the smaller side of a problem
constexpr int64_t kMostLonger = 1ll << 30;  // the other one
constexpr int64_t kMostBatched = 1024;      // the longer side of a problem of a batch

// One problem of any size within the limits, on the whole device.
size_t workspace_bytes(int64_t rows, int64_t columns, Dtype type);
// For tests, which compare what a kernel leaves with its readable twin: an array of the workspace, or a single value.
struct WorkspaceArray {
  const char* name;
  int64_t offset, count;  // bytes, entries
  int size;               // bytes of an entry
  bool floating;
};
std::vector<WorkspaceArray> workspace_arrays(int64_t rows, int64_t columns, Dtype type);
Enqueued enqueue_assignment(const AssignmentProblem& problem, const AssignmentOptions& options, void* workspace,
                            AssignmentReport* report, Stream stream);
// Goes on after kUnfinished: same arguments, workspace and report untouched since.
Enqueued enqueue_resume(const AssignmentProblem& problem, const AssignmentOptions& options, void* workspace,
                        AssignmentReport* report, Stream stream);

// `count` problems of one shape, neither side longer than kMostBatched, problem k at scores + k * batch_stride and at
// element k of contiguous outputs and start prices. One launch, one block for each problem.
size_t batch_workspace_bytes(int64_t count, int64_t rows, int64_t columns, Dtype type);
Enqueued enqueue_batch(const AssignmentProblem& first, int64_t count, int64_t batch_stride,
                       const AssignmentOptions& options, void* workspace, AssignmentReport* reports, Stream stream);

// Problems of different shapes. `lay_out_batch` works on a host table: it fills `workspace` of each entry and returns
// the bytes of the whole workspace. The caller then brings the table to the device. `longest`: the longest side of all.
size_t lay_out_batch(AssignmentEntry* host_table, int64_t count, Dtype type);
Enqueued enqueue_ragged(const AssignmentProblem& base, const AssignmentEntry* device_table, int64_t count,
                        int64_t longest, const AssignmentOptions& options, void* workspace, AssignmentReport* reports,
                        Stream stream);

}  // namespace lmcfast::cuda
