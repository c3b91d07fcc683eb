#pragma once

#include <pybind11/pybind11.h>

#include "lmcfast/cuda_devices.h"  // error_text

namespace lmcfast {

void bind_cuda_assignment(pybind11::module_& m);
void bind_cuda_similarity(pybind11::module_& m);

}  // namespace lmcfast
