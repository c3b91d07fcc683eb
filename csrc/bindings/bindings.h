#pragma once

#include <pybind11/pybind11.h>

namespace lmcfast {

// For AssignmentOptions::interrupted, called without the GIL. True when a Python signal handler raised (Ctrl-C).
inline bool python_was_interrupted(void*) {
  const pybind11::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

void bind_assignment(pybind11::module_& m);
void bind_sparse_assignment(pybind11::module_& m);
void bind_units(pybind11::module_& m);

}  // namespace lmcfast
