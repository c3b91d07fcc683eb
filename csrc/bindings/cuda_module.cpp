// The extension modules `lmcfast._cuda` and, compiled against the emulator, `lmcfast._emulated`.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "cuda_bindings.h"
#ifdef LMCFAST_EMULATED
#include "emulation/machine.h"  // defines what control.h declares
#endif

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

#ifdef LMCFAST_EMULATED

// What a test sets before a launch; a call without arguments restores the defaults.
void configure(uint64_t seed, unsigned residency, uint64_t work_limit, unsigned multiprocessors,
               unsigned compute_capability, unsigned shared_limit) {
  emulation::Options options;
  options.seed = seed;
  options.residency = residency;
  options.work_limit = work_limit;
  options.multiprocessors = multiprocessors;
  options.compute_capability = compute_capability;
  options.shared_limit = shared_limit;
  emulation::configure(options);
}

py::dict counters() {
  const emulation::Counters c = emulation::counters();
  py::dict counted;
  counted["launches"] = c.launches;
  counted["threads"] = c.threads;
  counted["block_barriers"] = c.block_barriers;
  counted["cluster_barriers"] = c.cluster_barriers;
  counted["grid_barriers"] = c.grid_barriers;
  counted["warp_operations"] = c.warp_operations;
  counted["atomics"] = c.atomics;
  counted["strong_accesses"] = c.strong_accesses;
  counted["fences"] = c.fences;
  counted["input_bytes"] = c.input_bytes;
  counted["switches"] = c.switches;
  return counted;
}

void bind_emulator(py::module_& m) {
  const emulation::Options usual;
  m.def("configure", configure, "Sets the schedule and the device of the emulator (csrc/emulation/control.h).",
        py::arg("seed") = usual.seed, py::arg("residency") = usual.residency, py::arg("work_limit") = usual.work_limit,
        py::arg("multiprocessors") = usual.multiprocessors, py::arg("compute_capability") = usual.compute_capability,
        py::arg("shared_limit") = usual.shared_limit);
  m.def("counters", counters, "What the emulator did since reset_counters().");
  m.def("reset_counters", emulation::reset_counters);
}

#endif

}  // namespace

}  // namespace lmcfast

PYBIND11_MODULE(LMCFAST_MODULE, m) {
  m.doc() = "The CUDA kernels of lmcfast. Call lmcfast's public functions instead.";
  m.def("device_report", lmcfast::device_report, "What this build needs and what the machine has; never fails.");
  m.def("use_device", lmcfast::use_device, "Sends this thread's later calls to a device.", py::arg("device"));
  lmcfast::bind_cuda_assignment(m);
  lmcfast::bind_cuda_similarity(m);
#ifdef LMCFAST_EMULATED
  lmcfast::bind_emulator(m);
#endif
}
