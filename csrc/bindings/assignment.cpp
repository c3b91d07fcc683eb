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

// A view of the array as a batch; a single problem is a batch of one.
struct Shape {
  int64_t batch, rows, columns, batch_stride, row_stride, column_stride;
};

Shape shape_of(const py::array& a) {
  const int64_t size = a.itemsize();
  if (a.ndim() == 2) return {1, a.shape(0), a.shape(1), 0, a.strides(0) / size, a.strides(1) / size};
  if (a.ndim() != 3) throw py::value_error("scores: expected 2 or 3 dimensions");
  return {a.shape(0), a.shape(1), a.shape(2), a.strides(0) / size, a.strides(1) / size, a.strides(2) / size};
}

template <class T>
Status run(const py::array& scores, const Shape& s, const double* start, const AssignmentOptions& options,
           AssignmentResult& result) {
  const AssignmentProblem<T> problem{static_cast<const T*>(scores.data()),
                                     s.batch,
                                     s.rows,
                                     s.columns,
                                     s.batch_stride,
                                     s.row_stride,
                                     s.column_stride,
                                     start};
  const py::gil_scoped_release unlocked;
  return solve_assignment(problem, options, result);
}

// The fields of lmcfast.assignment.AssignmentStats, in order.
py::tuple stats_of(const AssignmentCounts& c, const Shape& s) {
  const int64_t size = s.batch * s.rows * s.columns;
  return py::make_tuple(s.batch, size ? double(c.scores_read) / double(size) : 0.0, c.bids, c.paths, c.path_steps,
                        c.rescans, c.phases, c.fallbacks, s.batch > 0 && c.warm == s.batch);
}

// scores: (rows, columns) or (batch, rows, columns) float32 or float64, aligned, strides that are multiples of the item
// size. start_prices: (columns) or (batch, columns) float64, or None. The caller in Python has checked all of it.
// Returns (0, columns, prices, objective, gap, stats), or (status, problem, row, column, value).
py::tuple solve(const py::array& scores, const py::object& start_prices, bool maximize, int certify, int threads) {
  const Shape s = shape_of(scores);
  const bool single = scores.ndim() == 2;
  py::array_t<double, py::array::c_style> start;
  if (!start_prices.is_none()) {
    start = start_prices.cast<py::array_t<double, py::array::c_style>>();
    if (start.size() != s.batch * s.columns) throw py::value_error("start_prices: expected the shape (batch, columns)");
  }
  py::array_t<int64_t> columns = single ? py::array_t<int64_t>(s.rows) : py::array_t<int64_t>({s.batch, s.rows});
  py::array_t<double> prices = single ? py::array_t<double>(s.columns) : py::array_t<double>({s.batch, s.columns});
  double one_objective = 0, one_gap = 0;
  py::object objective = py::none(), gap = py::none();

  AssignmentOptions options;
  options.maximize = maximize;
  options.certify = certify_code(certify);
  options.threads = threads;
  options.interrupted = python_was_interrupted;
  AssignmentResult result{};
  result.columns = columns.mutable_data();
  result.prices = prices.mutable_data();
  result.objective = &one_objective;
  result.gap = &one_gap;
  if (!single) {
    py::array_t<double> objectives(s.batch), gaps(s.batch);
    result.objective = objectives.mutable_data();
    result.gap = gaps.mutable_data();
    objective = objectives;
    gap = gaps;
  }
  const double* const first = start_prices.is_none() ? nullptr : start.data();
  Status status;
  if (scores.dtype().num() == py::dtype::num_of<float>()) status = run<float>(scores, s, first, options, result);
  else if (scores.dtype().num() == py::dtype::num_of<double>()) status = run<double>(scores, s, first, options, result);
  else throw py::type_error("scores: expected float32 or float64");

  if (status == Status::interrupted) throw py::error_already_set();
  if (status == Status::out_of_memory) throw std::bad_alloc();
  if (status != Status::ok) return py::make_tuple(int(status), result.problem, result.row, result.column, result.value);
  const py::tuple stats = stats_of(result.counts, s);
  if (single) return py::make_tuple(0, columns, prices, one_objective, one_gap, stats);
  return py::make_tuple(0, columns, prices, objective, gap, stats);
}

}  // namespace

void bind_assignment(py::module_& m) {
  m.def("solve_assignment", &solve, py::arg("scores"), py::arg("start_prices"), py::arg("maximize"), py::arg("certify"),
        py::arg("threads"));
}

}  // namespace lmcfast
