#include <cstdio>

#include "cuda/device.h"
#include "lmcfast/cuda_devices.h"

namespace lmcfast::cuda {

const char* error_text(int error) { return cudaGetErrorString(cudaError_t(error)); }

#ifdef __CUDACC__

int runtime_version() { return CUDART_VERSION; }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int device_count(const char** error) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count;
  cudaGetLastError();  // so that the next launch does not report this error as its own
  if (status == cudaErrorNoDevice) return 0;
  *error = cudaGetErrorString(status);
  return -1;
}

bool device_figures(int device, DeviceFigures& figures) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  std::snprintf(figures.name, sizeof figures.name, "%s", properties.name);
  figures.major = properties.major;
  figures.minor = properties.minor;
  figures.multiprocessors = properties.multiProcessorCount;
  figures.memory = int64_t(properties.totalGlobalMem);
  return true;
}

const char* use_device(int device) {
  const cudaError_t status = cudaSetDevice(device);
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();
  return cudaGetErrorString(status);
}

#else  // the emulator is one device of a machine whose driver fits

int runtime_version() { return 12000; }

int driver_version() { return runtime_version(); }

int device_count(const char**) { return 1; }

bool device_figures(int device, DeviceFigures& figures) {
  if (device != 0) return false;
  figures = {};
  std::snprintf(figures.name, sizeof figures.name, "emulator");
  return true;
}

const char* use_device(int device) { return device == 0 ? nullptr : "the emulator is device 0"; }

#endif

}  // namespace lmcfast::cuda
