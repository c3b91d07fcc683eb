// The extension module `lmcfast._core`.
#include <pybind11/pybind11.h>

#include "bindings.h"
#include "lmcfast/assignment.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "The CPU kernels of lmcfast. Call lmcfast's public functions instead.";
  lmcfast::bind_assignment(m);
  lmcfast::bind_sparse_assignment(m);
  lmcfast::bind_units(m);
  m.def(
      "build_info",
      [] {
        py::list levels;
        for (const char* const* name = lmcfast::levels_built(); *name; ++name) levels.append(*name);
        py::dict info;
        info["levels_built"] = levels;
        info["level_in_use"] = lmcfast::level_in_use();
        info["default_threads"] = lmcfast::default_threads();
        info["compiler"] = LMCFAST_COMPILER;
        info["build_type"] = LMCFAST_BUILD_TYPE;
        return info;
      },
      "What was built and what is used.");
}
