// What one vector level offers to the dispatcher: the solver for a problem in the solver's own orientation.
#pragma once

#include <cstdint>

#include "lmcfast/assignment.h"

namespace lmcfast {

// rows <= columns, and the scores of a row lie side by side, or those of a column do.
template <class T>
struct OrientedProblem {
  const T* scores;
  int64_t row_stride, column_stride;  // one of them is 1
  int rows, columns;
  double sign;  // +1: maximise, -1: minimise
  // Start prices in the solver's sign (maximising): of the columns, or of the rows (then the columns start where each
  // is exactly worth its price to the row that wants it most). At most one of them is not null.
  const double* column_prices;
  const double* row_prices;
};

struct OrientedResult {
  int* column_of;   // (rows)
  double* prices;   // (columns), in the solver's sign
  double* profits;  // (rows), in the solver's sign
  double objective, gap;
  int row, column;  // of the place that a status other than ok is about, -1 for none
  double value;
  AssignmentCounts counts;
};

struct Interrupt {
  bool (*ask)(void*);
  void* argument;
};

struct SolveOptions {
  Certify certify;
  Ties ties;
  int threads;  // for the passes over the whole matrix
  Interrupt interrupt;
};

struct Level {
  const char* name;
  bool (*supported)();
  Status (*solve_float)(const OrientedProblem<float>&, const SolveOptions&, OrientedResult&);
  Status (*solve_double)(const OrientedProblem<double>&, const SolveOptions&, OrientedResult&);
};

}  // namespace lmcfast
