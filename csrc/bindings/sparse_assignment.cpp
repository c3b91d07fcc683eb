// CSR arrays -> the core's plain struct, with the GIL released; a status -> a tuple that Python turns into an error.
#include "lmcfast/sparse_assignment.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <new>

#include "bindings.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

template <class T>
using Vector = py::array_t<T, py::array::c_style>;

// The caller in Python has checked the structure of the lists. Returns (0, columns, prices, objective, gap, counts) or
// (status, problem, row, column, value); counts: (entries read, bids, paths, path steps).
py::tuple solve_sparse(const Vector<int64_t>& indptr, const Vector<int32_t>& indices, const Vector<double>& values,
                       int64_t columns, bool maximize) {
  const SparseAssignmentProblem problem{indptr.data(), indices.data(), values.data(), indptr.size() - 1, columns};
  Vector<int64_t> assigned(problem.rows);
  Vector<double> prices(columns);
  double objective = 0, gap = 0;
  AssignmentResult result{};
  result.columns = assigned.mutable_data();
  result.prices = prices.mutable_data();
  result.objective = &objective;
  result.gap = &gap;
  AssignmentOptions options;
  options.maximize = maximize;
  options.interrupted = python_was_interrupted;
  Status status;
  {
    const py::gil_scoped_release unlocked;
    status = solve_sparse_assignment(problem, options, result);
  }
  if (status == Status::interrupted) throw py::error_already_set();
  if (status == Status::out_of_memory) throw std::bad_alloc();
  if (status != Status::ok) return py::make_tuple(int(status), result.problem, result.row, result.column, result.value);
  const AssignmentCounts& c = result.counts;
  return py::make_tuple(0, assigned, prices, objective, gap,
                        py::make_tuple(c.scores_read, c.bids, c.paths, c.path_steps));
}

}  // namespace

void bind_sparse_assignment(py::module_& m) {
  m.def("solve_sparse_assignment", &solve_sparse, py::arg("indptr").noconvert(), py::arg("indices").noconvert(),
        py::arg("values").noconvert(), py::arg("columns"), py::arg("maximize"));
}

}  // namespace lmcfast
