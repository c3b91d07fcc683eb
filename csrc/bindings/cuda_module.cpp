// The extension modules `lmcfast._cuda` and, compiled against the emulator, `lmcfast._emulated`.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "cuda_bindings.h"

namespace py = pybind11;

namespace lmcfast {

namespace {

// Never fails: what cannot be asked is missing from the list, and "error" says why.
py::dict device_report() {
  const char* error = "";
  const int count = cuda::device_count(&error);
  py::list devices;
  for (int k = 0; k < count; ++k) {
    cuda::DeviceFigures figures;
    if (!cuda::device_figures(k, figures)) continue;
    py::dict device;
    device["name"] = figures.name;
    device["capability"] = py::make_tuple(figures.major, figures.minor);
    device["multiprocessors"] = figures.multiprocessors;
    device["memory"] = figures.memory;
    devices.append(device);
  }
  py::dict report;
  report["runtime"] = cuda::runtime_version();
  report["driver"] = cuda::driver_version();
  report["needed_driver"] = cuda::needed_driver_version();
  report["devices"] = devices;
  report["error"] = error;
  report["architectures"] = LMCFAST_ARCHITECTURES;
  report["compiler"] = LMCFAST_COMPILER;
  return report;
}

void use_device(int device) {
  if (const char* error = cuda::use_device(device))
    throw std::runtime_error("CUDA device " + std::to_string(device) + ": " + error);
}

}  // namespace

}  // namespace lmcfast

PYBIND11_MODULE(LMCFAST_MODULE, m) {
  m.doc() = "The CUDA kernels of lmcfast. Call lmcfast's public functions instead.";
  m.def("device_report", lmcfast::device_report, "What this build needs and what the machine has; never fails.");
  m.def("use_device", lmcfast::use_device, "Sends this thread's later calls to a device.");
}
