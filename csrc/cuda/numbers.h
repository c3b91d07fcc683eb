// Stored numbers as exact reals on the device.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "lmcfast/dtype.h"

namespace lmcfast::cuda {

__device__ __forceinline__ float bfloat16_value(uint16_t bits) { return __uint_as_float(unsigned(bits) << 16); }

__device__ __forceinline__ float float16_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

// Number `index` of an array of the given storage. T: float (storage must not be float64) or double.
template <class T>
__device__ __forceinline__ T stored_value(const void* data, Dtype dtype, int64_t index) {
  switch (dtype) {
    case Dtype::float32:
      return T(static_cast<const float*>(data)[index]);
    case Dtype::bfloat16:
      return T(bfloat16_value(static_cast<const uint16_t*>(data)[index]));
    case Dtype::float16:
      return T(float16_value(static_cast<const uint16_t*>(data)[index]));
    default:
      return T(static_cast<const double*>(data)[index]);
  }
}

}  // namespace lmcfast::cuda
