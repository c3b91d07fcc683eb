#pragma once

#include <pybind11/pybind11.h>

namespace lmcfast {

void bind_cuda_assignment(pybind11::module_& m);
void bind_cuda_similarity(pybind11::module_& m);

}  // namespace lmcfast
