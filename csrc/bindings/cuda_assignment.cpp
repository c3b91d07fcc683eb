// The assignment solver on a device: addresses and sizes from Python, work enqueued on the caller's stream.
#include "lmcfast/cuda_assignment.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_bindings.h"
#include "lmcfast/cuda_devices.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

using cuda::AssignmentEntry;
using cuda::AssignmentOptions;
using cuda::AssignmentProblem;
using cuda::AssignmentReport;
using Address = uint64_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// Layout of AssignmentReport for numpy.dtype.
std::vector<std::pair<std::string, std::string>> report_fields() {
  std::vector<std::pair<std::string, std::string>> fields;
  for (const char* name : {"objective", "gap", "scale", "value"}) fields.emplace_back(name, "<f8");
  for (const char* name :
       {"status", "row", "column", "warm", "bids", "lost_bids", "scans", "exact_scans", "tight_rounds", "paths",
        "path_steps", "dense_steps", "phases", "free_after_bids", "free_after_phases", "free_before_paths", "left"})
    fields.emplace_back(name, "<i8");
  if (fields.size() * 8 != sizeof(AssignmentReport)) throw std::logic_error("AssignmentReport: fields out of step");
  return fields;
}

int launches(cuda::Enqueued done) {
  if (done.error != 0) throw std::runtime_error(std::string("assignment: ") + cuda::error_text(done.error));
  return done.launches;
}

// Tuning values that only tests and measurements give.
void set_tuning(AssignmentOptions& o, const py::kwargs& tuning) {
  for (const auto& [key, value] : tuning) {
    const auto name = key.cast<std::string>();
    if (name == "blocks") o.blocks = value.cast<int>();
    else if (name == "threads") o.threads = value.cast<int>();
    else if (name == "path_threads") o.path_threads = value.cast<int>();
    else if (name == "bid_limit") o.bid_limit = value.cast<int>();
    else if (name == "launches") o.launches = value.cast<int>();
    else if (name == "full_list") o.full_list = value.cast<int>();
    else throw py::type_error("unexpected keyword argument '" + name + "'");
  }
}

AssignmentOptions make_options(int dtype, bool maximize, bool deterministic, int64_t step_limit,
                               const py::kwargs& tuning) {
  AssignmentOptions o;
  o.type = Dtype(dtype);
  o.maximize = maximize;
  o.deterministic = deterministic;
  o.step_limit = step_limit;
  set_tuning(o, tuning);
  return o;
}

AssignmentProblem make_problem(Address scores, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                               Address start_prices, Address columns_out, Address prices_out, Address profits_out) {
  AssignmentProblem p{};
  p.scores = pointer<const void>(scores);
  p.rows = rows;
  p.columns = columns;
  p.row_stride = row_stride;
  p.column_stride = column_stride;
  p.start_prices = pointer<const double>(start_prices);
  p.columns_out = pointer<int64_t>(columns_out);
  p.prices_out = pointer<double>(prices_out);
  p.profits_out = pointer<double>(profits_out);
  return p;
}

int solve(Address scores, int dtype, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
          bool maximize, Address start_prices, Address columns_out, Address prices_out, Address profits_out,
          Address workspace, Address report, Address stream, bool deterministic, int64_t step_limit, bool resume,
          const py::kwargs& tuning) {
  const AssignmentProblem problem = make_problem(scores, rows, columns, row_stride, column_stride, start_prices,
                                                 columns_out, prices_out, profits_out);
  const AssignmentOptions options = make_options(dtype, maximize, deterministic, step_limit, tuning);
  const auto enqueue = resume ? cuda::enqueue_resume : cuda::enqueue_assignment;
  const py::gil_scoped_release unlocked;
  return launches(
      enqueue(problem, options, pointer<void>(workspace), pointer<AssignmentReport>(report), pointer<void>(stream)));
}

int solve_batch(Address scores, int dtype, int64_t count, int64_t rows, int64_t columns, int64_t batch_stride,
                int64_t row_stride, int64_t column_stride, bool maximize, Address start_prices, Address columns_out,
                Address prices_out, Address profits_out, Address workspace, Address reports, Address stream,
                bool deterministic, int64_t step_limit, const py::kwargs& tuning) {
  const AssignmentProblem first = make_problem(scores, rows, columns, row_stride, column_stride, start_prices,
                                               columns_out, prices_out, profits_out);
  const AssignmentOptions options = make_options(dtype, maximize, deterministic, step_limit, tuning);
  const py::gil_scoped_release unlocked;
  return launches(cuda::enqueue_batch(first, count, batch_stride, options, pointer<void>(workspace),
                                      pointer<AssignmentReport>(reports), pointer<void>(stream)));
}

int solve_ragged(Address table, int dtype, int64_t count, int64_t longest, bool maximize, Address start_prices,
                 Address columns_out, Address prices_out, Address profits_out, Address workspace, Address reports,
                 Address stream, bool deterministic, int64_t step_limit, const py::kwargs& tuning) {
  const AssignmentProblem base = make_problem(0, 0, 0, 0, 0, start_prices, columns_out, prices_out, profits_out);
  const AssignmentOptions options = make_options(dtype, maximize, deterministic, step_limit, tuning);
  const py::gil_scoped_release unlocked;
  return launches(cuda::enqueue_ragged(base, pointer<const AssignmentEntry>(table), count, longest, options,
                                       pointer<void>(workspace), pointer<AssignmentReport>(reports),
                                       pointer<void>(stream)));
}

}  // namespace

void bind_cuda_assignment(py::module_& m) {
  m.attr("report_bytes") = sizeof(AssignmentReport);
  m.attr("most_shorter") = cuda::kMostShorter;
  m.attr("most_longer") = cuda::kMostLonger;
  m.attr("most_batched") = cuda::kMostBatched;
  m.def("assignment_report_fields", &report_fields, "Layout of a report, for numpy.dtype.");
  m.def(
      "assignment_workspace",
      [](int64_t rows, int64_t columns, int dtype) { return cuda::workspace_bytes(rows, columns, Dtype(dtype)); },
      py::arg("rows"), py::arg("columns"), py::arg("dtype"));
  m.def(
      "assignment_workspace_arrays",
      [](int64_t rows, int64_t columns, int dtype) {
        py::list arrays;
        for (const auto& a : cuda::workspace_arrays(rows, columns, Dtype(dtype)))
          arrays.append(py::make_tuple(a.name, a.offset, a.count, (a.floating ? "<f" : "<i") + std::to_string(a.size)));
        return arrays;
      },
      "For tests: (name, offset in bytes, entries, numpy format) of what lies in a workspace.", py::arg("rows"),
      py::arg("columns"), py::arg("dtype"));
  m.def(
      "assignment_batch_workspace",
      [](int64_t count, int64_t rows, int64_t columns, int dtype) {
        return cuda::batch_workspace_bytes(count, rows, columns, Dtype(dtype));
      },
      py::arg("count"), py::arg("rows"), py::arg("columns"), py::arg("dtype"));
  m.def(
      "assignment_lay_out_batch",
      [](Address table, int64_t count, int dtype) {
        return cuda::lay_out_batch(pointer<AssignmentEntry>(table), count, Dtype(dtype));
      },
      "Fills the workspace offsets of a host table of (count, 8) int64; returns the bytes of the whole workspace.",
      py::arg("table"), py::arg("count"), py::arg("dtype"));
  m.def("solve_assignment", &solve, "Enqueues one problem; returns the number of kernels launched.", py::arg("scores"),
        py::arg("dtype"), py::arg("rows"), py::arg("columns"), py::arg("row_stride"), py::arg("column_stride"),
        py::arg("maximize"), py::arg("start_prices"), py::arg("columns_out"), py::arg("prices_out"),
        py::arg("profits_out"), py::arg("workspace"), py::arg("report"), py::arg("stream"),
        py::arg("deterministic") = false, py::arg("step_limit") = 0, py::arg("resume") = false);
  m.def("solve_assignment_batch", &solve_batch, "Enqueues problems of one shape in one launch.", py::arg("scores"),
        py::arg("dtype"), py::arg("count"), py::arg("rows"), py::arg("columns"), py::arg("batch_stride"),
        py::arg("row_stride"), py::arg("column_stride"), py::arg("maximize"), py::arg("start_prices"),
        py::arg("columns_out"), py::arg("prices_out"), py::arg("profits_out"), py::arg("workspace"), py::arg("reports"),
        py::arg("stream"), py::arg("deterministic") = false, py::arg("step_limit") = 0);
  m.def("solve_assignment_ragged", &solve_ragged, "Enqueues problems of different shapes in one launch.",
        py::arg("table"), py::arg("dtype"), py::arg("count"), py::arg("longest"), py::arg("maximize"),
        py::arg("start_prices"), py::arg("columns_out"), py::arg("prices_out"), py::arg("profits_out"),
        py::arg("workspace"), py::arg("reports"), py::arg("stream"), py::arg("deterministic") = false,
        py::arg("step_limit") = 0);
}

}  // namespace lmcfast
