// numpy arrays -> the core's plain structs, with the GIL released; a status -> a tuple that Python turns into an error.
//
// This one function is written against CPython's vector call and numpy's array constructor, not pybind11's argument
// conversion: a problem of a few rows is solved in less time than the latter takes.
#include "lmcfast/assignment.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <new>

#include "bindings.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

Certify certify_code(long code) { return code == 0 ? Certify::none : code == 1 ? Certify::lists : Certify::full; }

// The parts of a numpy array that count here.
struct Array {
  const void* data;
  int ndim, type;
  const Py_intptr_t *shape, *strides;  // strides in bytes
};

Array array_of(PyObject* object) {
  const py::detail::PyArray_Proxy* const a = py::detail::array_proxy(object);
  return {a->data, a->nd, py::reinterpret_borrow<py::dtype>(a->descr).num(), a->dimensions, a->strides};
}

py::object new_array(int type, int ndim, const Py_intptr_t* shape) {
  const auto& api = py::detail::npy_api::get();
  PyObject* const descr = api.PyArray_DescrFromType_(type);
  PyObject* const a = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, ndim, shape, nullptr, nullptr, 0, nullptr);
  if (!a) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(a);
}

template <class T>
T* data_of(const py::object& array) {
  return reinterpret_cast<T*>(py::detail::array_proxy(array.ptr())->data);
}

template <class T>
Status run(const Array& scores, const double* start, const AssignmentOptions& options, AssignmentResult& result) {
  const int64_t size = int64_t(sizeof(T)), first = scores.ndim - 2;
  const AssignmentProblem<T> problem{static_cast<const T*>(scores.data),
                                     first ? scores.shape[0] : 1,
                                     scores.shape[first],
                                     scores.shape[first + 1],
                                     first ? scores.strides[0] / size : 0,
                                     scores.strides[first] / size,
                                     scores.strides[first + 1] / size,
                                     start};
  constexpr int64_t kNotWorthReleasing = 1024;  // scores; others can wait the microsecond that they take
  if (problem.batch * problem.rows * problem.columns <= kNotWorthReleasing)
    return solve_assignment(problem, options, result);
  const py::gil_scoped_release unlocked;
  return solve_assignment(problem, options, result);
}

// A tuple of new references; Py_BuildValue would spend a fifth of a small solve on reading its format.
template <class... Items>
py::object tuple_of(Items... items) {
  PyObject* const made[] = {items...};
  for (PyObject* item : made)
    if (!item) throw py::error_already_set();
  py::object tuple = py::reinterpret_steal<py::object>(PyTuple_New(sizeof...(Items)));
  if (!tuple) throw py::error_already_set();
  for (size_t k = 0; k < sizeof...(Items); ++k) PyTuple_SET_ITEM(tuple.ptr(), Py_ssize_t(k), made[k]);
  return tuple;
}

// The fields of lmcfast.assignment.AssignmentStats, in order.
py::object stats_of(const AssignmentCounts& c, int64_t batch, int64_t size) {
  return tuple_of(PyLong_FromLongLong(batch), PyFloat_FromDouble(size ? double(c.scores_read) / double(size) : 0.0),
                  PyLong_FromLongLong(c.bids), PyLong_FromLongLong(c.paths), PyLong_FromLongLong(c.path_steps),
                  PyLong_FromLongLong(c.rescans), PyLong_FromLongLong(c.phases), PyLong_FromLongLong(c.fallbacks),
                  PyBool_FromLong(batch > 0 && c.warm == batch));
}

// is_ready(scores): whether scores are what `solve` takes: a numpy array itself, no subclass, of the shape, type and
// layout below.
PyObject* is_ready(PyObject*, PyObject* scores) {
  const auto& api = py::detail::npy_api::get();
  if (Py_TYPE(scores) != reinterpret_cast<PyTypeObject*>(api.PyArray_Type_)) Py_RETURN_FALSE;
  const py::detail::PyArray_Proxy* const a = py::detail::array_proxy(scores);
  const auto* const type = py::detail::array_descriptor1_proxy(a->descr);
  const bool native = type->byteorder == '=' || type->byteorder == '|';
  if (!native || (type->type_num != py::dtype::num_of<float>() && type->type_num != py::dtype::num_of<double>()))
    Py_RETURN_FALSE;
  if (!(a->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) || (a->nd != 2 && a->nd != 3)) Py_RETURN_FALSE;
  const Py_intptr_t item = type->type_num == py::dtype::num_of<float>() ? sizeof(float) : sizeof(double);
  for (int k = 0; k < a->nd; ++k) {
    const bool too_long = k >= a->nd - 2 && a->dimensions[k] >= Py_intptr_t(1) << 31;
    if (a->strides[k] % item != 0 || too_long) Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

// solve_assignment(scores, start_prices, maximize, certify, threads, ties = 0)
// scores: (rows, columns) or (batch, rows, columns) float32 or float64, aligned, strides that are multiples of the item
// size. start_prices: (columns) or (batch, columns) float64, contiguous, or None. The caller in Python has checked all
// of it. Returns (0, columns, prices, objective, gap, stats), or (status, problem, row, column, value).
py::object solve(PyObject* const* args, Py_ssize_t count) {
  if (count != 5 && count != 6) throw py::type_error("solve_assignment: expected 5 or 6 arguments");
  const auto& api = py::detail::npy_api::get();
  if (!api.PyArray_Check_(args[0])) throw py::type_error("scores: expected a numpy array");
  const Array scores = array_of(args[0]);
  if (scores.ndim != 2 && scores.ndim != 3) throw py::value_error("scores: expected 2 or 3 dimensions");
  const bool single = scores.ndim == 2;
  const Py_intptr_t *const rows = scores.shape + scores.ndim - 2, *const columns = rows + 1;
  const int64_t batch = single ? 1 : scores.shape[0];
  const double* start = nullptr;
  if (args[1] != Py_None) {
    if (!api.PyArray_Check_(args[1])) throw py::type_error("start_prices: expected a numpy array or None");
    const py::array prices = py::reinterpret_borrow<py::array>(args[1]);
    if (!py::isinstance<py::array_t<double, py::array::c_style>>(prices) || prices.size() != batch * *columns)
      throw py::value_error("start_prices: expected float64 of shape (batch, columns)");
    start = static_cast<const double*>(prices.data());
  }
  AssignmentOptions options;
  options.maximize = args[2] == Py_True;
  options.certify = certify_code(PyLong_AsLong(args[3]));
  options.threads = int(PyLong_AsLong(args[4]));
  if (count == 6) options.ties = PyLong_AsLong(args[5]) == 1 ? Ties::scipy : Ties::any;
  options.interrupted = python_was_interrupted;
  if (PyErr_Occurred()) throw py::error_already_set();

  const int int64_type = py::dtype::num_of<int64_t>(), double_type = py::dtype::num_of<double>();
  const Py_intptr_t price_shape[] = {Py_intptr_t(batch), *columns};
  py::object assigned = new_array(int64_type, scores.ndim - 1, scores.shape);
  py::object prices = new_array(double_type, scores.ndim - 1, price_shape + (single ? 1 : 0));
  py::object objective, gap;
  double one_objective = 0, one_gap = 0;
  AssignmentResult result{};
  result.columns = data_of<int64_t>(assigned);
  result.prices = data_of<double>(prices);
  result.objective = &one_objective;
  result.gap = &one_gap;
  if (!single) {
    objective = new_array(double_type, 1, price_shape);
    gap = new_array(double_type, 1, price_shape);
    result.objective = data_of<double>(objective);
    result.gap = data_of<double>(gap);
  }
  Status status;
  if (scores.type == py::dtype::num_of<float>()) status = run<float>(scores, start, options, result);
  else if (scores.type == double_type) status = run<double>(scores, start, options, result);
  else throw py::type_error("scores: expected float32 or float64");

  if (status == Status::interrupted) throw py::error_already_set();
  if (status == Status::out_of_memory) throw std::bad_alloc();
  if (status != Status::ok) return py::make_tuple(int(status), result.problem, result.row, result.column, result.value);
  if (single) {
    objective = py::float_(one_objective);
    gap = py::float_(one_gap);
  }
  py::object stats = stats_of(result.counts, batch, batch * *rows * *columns);
  return tuple_of(PyLong_FromLong(0), assigned.release().ptr(), prices.release().ptr(), objective.release().ptr(),
                  gap.release().ptr(), stats.release().ptr());
}

PyObject* solve_entry(PyObject*, PyObject* const* args, Py_ssize_t count) {
  try {
    return solve(args, count).release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  return nullptr;
}

PyMethodDef solve_method = {"solve_assignment",
                            reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(solve_entry)), METH_FASTCALL,
                            "Solves one problem or a batch; see csrc/bindings/assignment.cpp."};

PyMethodDef ready_method = {"is_ready", is_ready, METH_O, "Whether solve_assignment takes scores as they are."};

}  // namespace

void bind_assignment(py::module_& m) {
  m.add_object("solve_assignment",
               py::reinterpret_steal<py::object>(PyCFunction_NewEx(&solve_method, nullptr, nullptr)));
  m.add_object("is_ready", py::reinterpret_steal<py::object>(PyCFunction_NewEx(&ready_method, nullptr, nullptr)));
}

}  // namespace lmcfast
