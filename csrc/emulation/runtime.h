// The CUDA runtime's calls that host code of this project uses. Device memory is host memory; a stream has always
// finished. Values of the enumerations as in the runtime.
#pragma once

#include <cstdlib>
#include <cstring>

#include "machine.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchFailure = 719,
  cudaErrorCooperativeLaunchTooLarge = 720,
  cudaErrorInvalidClusterSize = 912
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
  cudaFuncAttributeNonPortableClusterSizeAllowed = 13
};
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrWarpSize = 10,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxThreadsPerMultiProcessor = 39,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrCooperativeLaunch = 95,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes;  // of static variables
  int maxDynamicSharedSizeBytes;
};
struct lmcfast_emulated_stream;
using cudaStream_t = lmcfast_emulated_stream*;

namespace lmcfast::emulation {

inline cudaError_t& sticky_error() {
  thread_local cudaError_t error = cudaSuccess;
  return error;
}
inline cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess) sticky_error() = error;
  return error;
}

}  // namespace lmcfast::emulation

inline cudaError_t cudaPeekAtLastError() { return lmcfast::emulation::sticky_error(); }
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = lmcfast::emulation::sticky_error();
  lmcfast::emulation::sticky_error() = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorCooperativeLaunchTooLarge:
      return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorInvalidClusterSize:
      return "cudaErrorInvalidClusterSize";
  }
  return "unrecognized error code";
}
// A failed launch: what the emulator found, and where.
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchFailure:
    case cudaErrorCooperativeLaunchTooLarge:
    case cudaErrorInvalidClusterSize:
      return lmcfast::emulation::last_error();
    default:
      return cudaGetErrorName(error);
  }
}

template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  void* memory = std::malloc(bytes ? bytes : 1);
  if (!memory) return lmcfast::emulation::report(cudaErrorMemoryAllocation);
  std::memset(memory, 0xCD, bytes);  // not zero: nothing may rely on it
  *pointer = static_cast<T*>(memory);
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMallocAsync(T** pointer, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
template <class T>
cudaError_t cudaMallocManaged(T** pointer, std::size_t bytes) {
  return cudaMalloc(pointer, bytes);
}
inline cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t = nullptr) {
  if (bytes) std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return cudaMemsetAsync(to, value, bytes); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : lmcfast::emulation::report(cudaErrorInvalidDevice);
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;  // not a runtime of NVIDIA's
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

constexpr int lmcfast_threads_of_multiprocessor = 2048;

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return lmcfast::emulation::report(cudaErrorInvalidDevice);
  const lmcfast::emulation::Options options = lmcfast::emulation::options();
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = int(options.multiprocessors);
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = lmcfast_threads_of_multiprocessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = int(options.compute_capability / 10);
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = int(options.compute_capability % 10);
      break;
    case cudaDevAttrCooperativeLaunch:
      *value = 1;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(options.shared_limit);
      break;
    default:
      return lmcfast::emulation::report(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  using namespace lmcfast::emulation;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  KernelLimits& limits = limits_of(reinterpret_cast<const void*>(kernel));
  if (value < 0 || limits.static_bytes + unsigned(value) > machine.options.shared_limit)
    return report(cudaErrorInvalidValue);
  limits.dynamic_opt_in = unsigned(value);
  return cudaSuccess;
}
// Static variables count from the first launch that met them.
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel* kernel) {
  using namespace lmcfast::emulation;
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  const KernelLimits& limits = limits_of(reinterpret_cast<const void*>(kernel));
  attributes->sharedSizeBytes = limits.static_bytes;
  attributes->maxDynamicSharedSizeBytes = int(shared_allowed(limits, limits.static_bytes) - limits.static_bytes);
  return cudaSuccess;
}
// By threads and dynamic shared memory alone: registers and static variables are not known here.
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int threads, std::size_t shared) {
  if (threads <= 0 || threads > 1024) return lmcfast::emulation::report(cudaErrorInvalidValue);
  const std::size_t limit = lmcfast::emulation::options().shared_limit;
  const int by_threads = lmcfast_threads_of_multiprocessor / ((threads + 31) / 32 * 32);
  const int by_shared = shared ? int(limit / shared) : by_threads;
  *blocks = by_threads < by_shared ? by_threads : by_shared;
  return cudaSuccess;
}

#include "../cuda/shared_memory.h"
