// Dynamic shared memory that a kernel must ask for; part of device.h, for both of its faces.
#pragma once

#include <cstddef>

namespace lmcfast::cuda {

// Before a launch with so many bytes of dynamic shared memory. Unasked, static and dynamic together have 48 KiB. The
// limit belongs to the kernel, not to the launch, and other threads launch it, too: so it is set to the most that the
// device gives, whatever this launch needs, and is never lowered below another launch's size.
template <class Kernel>
cudaError_t allow_shared(Kernel* kernel, std::size_t bytes) {
  constexpr std::size_t always_free = 32 << 10;  // beside up to 16 KiB of static variables
  if (bytes <= always_free) return cudaSuccess;
  int device = 0, most = 0;
  cudaFuncAttributes attributes = {};
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  const int dynamic = most - int(attributes.sharedSizeBytes);
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic);
}

}  // namespace lmcfast::cuda
