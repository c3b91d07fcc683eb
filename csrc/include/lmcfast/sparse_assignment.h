// Exact assignment where only listed pairs are allowed: no dense matrix is made, time and memory follow the lists.
//
// The same problem, certificate and conventions as lmcfast/assignment.h; u[i] is the largest a[i,j] - p[j] over the
// listed pairs of row i. Pointers are borrowed for the call, nothing is written but the result. May be called from
// several threads at once.
#pragma once

#include <cstdint>

#include "lmcfast/assignment.h"

namespace lmcfast {

// The pairs of row i are entries indptr[i] to indptr[i + 1] - 1 of `indices` and `values` (compressed sparse rows), in
// any order. A stored 0 is a pair worth 0; a stored -inf (minimising: +inf) is no pair. Undefined unless indptr[0] is
// 0, indptr never falls, and every index is at least 0 and less than `columns`.
struct SparseAssignmentProblem {
  const int64_t* indptr;   // (rows + 1)
  const int32_t* indices;  // (entries)
  const double* values;    // (entries)
  int64_t rows, columns;   // each >= 0 and < 2^31
};

// `options`: only `maximize` and the interrupt count. `result`: as of one dense problem; `counts.scores_read` counts
// entries. Status::repeated_pair: a row lists a column twice; `row` and `column` say where.
Status solve_sparse_assignment(const SparseAssignmentProblem&, const AssignmentOptions& options,
                               AssignmentResult& result);

}  // namespace lmcfast
