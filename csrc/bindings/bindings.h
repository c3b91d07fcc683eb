#pragma once

#include <pybind11/pybind11.h>

namespace lmcfast {

void bind_assignment(pybind11::module_& m);
void bind_sparse_assignment(pybind11::module_& m);
void bind_units(pybind11::module_& m);

}  // namespace lmcfast
