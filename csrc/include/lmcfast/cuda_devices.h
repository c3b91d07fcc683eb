// What this build needs of a machine, and what the machine has. No function here fails where there is no driver.
#pragma once

#include <cstdint>

namespace lmcfast::cuda {

// Versions as CUDA counts them: 1000 * major + 10 * minor.
int runtime_version();

// The newest CUDA that the driver supports; 0 where no driver is installed.
int driver_version();

// The least driver_version() that the runtime linked here works with: drivers serve every runtime of their major
// version.
inline int needed_driver_version() { return runtime_version() / 1000 * 1000; }

// Number of devices, or -1 where they cannot be counted: then *error says why, in the words of the runtime.
int device_count(const char** error);

struct DeviceFigures {
  char name[256];
  int major, minor;  // compute capability
  int multiprocessors;
  int64_t memory;  // bytes
};

// False where the device cannot be asked.
bool device_figures(int device, DeviceFigures& figures);

// Makes `device` the one that this thread's later calls go to. Null, or the error in the words of the runtime.
const char* use_device(int device);

// An error code of a CUDA call or of an enqueueing function (a cudaError_t) in the words of the runtime.
const char* error_text(int error);

}  // namespace lmcfast::cuda
