// Exact dense assignment on the CPU: the core's whole interface.
//
// Given scores a[i,j], finds for the smaller side an assignment of largest total score and prices p[j] that prove it:
// with u[i] = max_j (a[i,j] - p[j]) no assignment can be worth more than sum(u) + sum(p), and the one found is worth
// that much up to rounding (linear programming duality). Scores are read as exact reals; all prices are float64.
//
// Nothing here knows Python or torch. Pointers are borrowed for the call; no function keeps one. Strides count
// elements. All functions may be called from several threads at once.
#pragma once

#include <cstdint>

namespace lmcfast {

enum class Status {
  ok,
  invalid_score,  // NaN, or an infinity of the wrong sign; `row` and `column` of the report say where
  infeasible,     // forbidden pairs leave no assignment of the smaller side; `row` or `column` says who is left
  interrupted,    // the caller's `interrupted` said stop
  not_certified,  // the prices do not prove the result: a bug, or scores that changed during the call
  out_of_memory,
  repeated_pair,  // sparse_assignment.h
};

// One problem or a batch of problems of one shape.
template <class T>  // float or double
struct AssignmentProblem {
  const T* scores;
  int64_t batch, rows, columns;                     // each >= 0; rows and columns < 2^31
  int64_t batch_stride, row_stride, column_stride;  // in elements; any sign, zero allowed
  const double* start_prices;                       // (batch, columns) contiguous, finite; or null
};

enum class Certify { none, lists, full };

// Which of several optimal assignments: any, or the one that scipy's linear_sum_assignment returns (scan_order.h). The
// latter takes n shortest paths over whole rows, reads no start prices and is not spread over threads within a problem.
enum class Ties { any, scipy };

struct AssignmentOptions {
  bool maximize = true;  // false: minimise; then u[i] + p[j] <= a[i,j] holds for the prices returned
  Certify certify =
      Certify::lists;  // lists: from the bounds that the solver holds; full: from a fresh read of the scores
  Ties ties = Ties::any;
  int threads = 1;  // problems of a batch, or passes over one large problem, are spread over them; same result
  bool (*interrupted)(void*) = nullptr;  // asked some ten times a second, not within a pass; by the calling thread only
  void* interrupted_argument = nullptr;
};

// Work done, summed over a batch. None of it depends on the machine's speed or load.
struct AssignmentCounts {
  int64_t scores_read = 0;       // entries of the matrix read, validation and certificate included
  int64_t bids = 0;              // rows that took the better of their two best columns
  int64_t paths = 0;             // shortest augmenting paths
  int64_t path_steps = 0;        // rows relaxed in them
  int64_t rescans = 0;           // candidate lists that were built again
  int64_t phases = 0;            // of the auction
  int64_t dense = 0, lists = 0;  // problems solved by each method
  int64_t fallbacks = 0;         // problems that a spent budget sent from the lists to the dense method
  int64_t warm = 0;              // problems that started from the caller's prices
};

// What the solver writes. Arrays belong to the caller and must not overlap the scores.
struct AssignmentResult {
  int64_t* columns;   // (batch, rows): column of each row, -1 where unassigned (rows > columns)
  double* prices;     // (batch, columns)
  double* objective;  // (batch)
  double* gap;        // (batch): sum(u) + sum(p) - objective, >= 0 up to rounding; NaN with Certify::none
  AssignmentCounts counts;
  // Filled when the status is not ok: the first failing problem and the place in it (-1: not applicable).
  int64_t problem = -1, row = -1, column = -1;
  double value = 0;  // the invalid score, or the gap that does not certify
};

Status solve_assignment(const AssignmentProblem<float>&, const AssignmentOptions&, AssignmentResult&);
Status solve_assignment(const AssignmentProblem<double>&, const AssignmentOptions&, AssignmentResult&);

// Vector levels: "baseline" (SSE2, or NEON on aarch64), "v3" (AVX2, FMA), "v4" (AVX-512 F, BW, DQ, VL).
// The best one that is both built and supported is used; LMCFAST_CPU in the environment, read once, forces a lower one.
const char* level_in_use();
const char* const* levels_built();  // ends with null, best last
int default_threads();              // LMCFAST_NUM_THREADS, else the processors that this process may use

}  // namespace lmcfast
