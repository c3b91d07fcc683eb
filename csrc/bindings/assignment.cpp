// numpy arrays -> the core's plain structs, with the GIL released; a status -> an exception.
#include "lmcfast/assignment.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <new>
#include <string>

#include "bindings.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

// Called without the GIL. True when a Python signal handler raised (Ctrl-C).
bool python_was_interrupted(void*) {
  const py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

Certify certify_code(int code) { return code == 0 ? Certify::none : code == 1 ? Certify::lists : Certify::full; }

template <class T>
Status run(const py::array& scores, const double* start, const AssignmentOptions& options, AssignmentResult& result,
           int64_t batch, int64_t rows, int64_t columns) {
  const int64_t size = int64_t(sizeof(T));
  const AssignmentProblem<T> problem{static_cast<const T*>(scores.data()),
                                     batch,
                                     rows,
                                     columns,
                                     scores.strides(0) / size,
                                     scores.strides(1) / size,
                                     scores.strides(2) / size,
                                     start};
  const py::gil_scoped_release unlocked;
  return solve_assignment(problem, options, result);
}

// scores: (batch, rows, columns) float32 or float64, aligned, any strides that are multiples of the item size.
// start_prices: (batch, columns) float64 contiguous, or None. Everything is checked by the caller in Python.
// Returns (status, columns, prices, objective, gap, counts, problem, row, column, value).
py::tuple solve(const py::array& scores, const py::object& start_prices, bool maximize, int certify, int threads) {
  if (scores.ndim() != 3) throw py::value_error("scores: expected 3 dimensions");
  const int64_t batch = scores.shape(0), rows = scores.shape(1), columns = scores.shape(2);
  py::array_t<int64_t> assigned({batch, rows});
  py::array_t<double> prices({batch, columns}), objective(batch), gap(batch);
  py::array_t<double> start;
  if (!start_prices.is_none()) start = start_prices.cast<py::array_t<double, py::array::c_style>>();
  if (!start_prices.is_none() && (start.ndim() != 2 || start.shape(0) != batch || start.shape(1) != columns))
    throw py::value_error("start_prices: expected the shape (batch, columns)");

  AssignmentOptions options;
  options.maximize = maximize;
  options.certify = certify_code(certify);
  options.threads = threads;
  options.interrupted = python_was_interrupted;
  AssignmentResult result{};
  result.columns = assigned.mutable_data();
  result.prices = prices.mutable_data();
  result.objective = objective.mutable_data();
  result.gap = gap.mutable_data();
  const double* first = start_prices.is_none() ? nullptr : start.data();
  Status status;
  if (scores.dtype().num() == py::dtype::num_of<float>())
    status = run<float>(scores, first, options, result, batch, rows, columns);
  else if (scores.dtype().num() == py::dtype::num_of<double>())
    status = run<double>(scores, first, options, result, batch, rows, columns);
  else throw py::type_error("scores: expected float32 or float64");
  if (status == Status::interrupted) throw py::error_already_set();
  if (status == Status::out_of_memory) throw std::bad_alloc();

  py::dict counts;
  counts["scores_read"] = result.counts.scores_read;
  counts["bids"] = result.counts.bids;
  counts["paths"] = result.counts.paths;
  counts["path_steps"] = result.counts.path_steps;
  counts["rescans"] = result.counts.rescans;
  counts["phases"] = result.counts.phases;
  counts["dense"] = result.counts.dense;
  counts["lists"] = result.counts.lists;
  counts["fallbacks"] = result.counts.fallbacks;
  counts["warm"] = result.counts.warm;
  return py::make_tuple(int(status), assigned, prices, objective, gap, counts, result.problem, result.row,
                        result.column, result.value);
}

}  // namespace

void bind_assignment(py::module_& m) {
  m.def("solve_assignment", &solve, py::arg("scores"), py::arg("start_prices"), py::arg("maximize"), py::arg("certify"),
        py::arg("threads"));
}

}  // namespace lmcfast
