// Numbers as unsigned keys of the same order, and reductions of a warp over them.
#pragma once

#include "state.h"

namespace lmcfast::cuda {

constexpr unsigned kAll = ~0u;  // all lanes of a warp

__device__ inline u64 ordered(double v) {
  const long long bits = __double_as_longlong(v);
  return u64(bits) ^ (u64(bits >> 63) | 1ull << 63);
}
__device__ inline double value_of(u64 key) {
  const long long sign = (long long)(~key) >> 63;
  return __longlong_as_double((long long)(key ^ (u64(sign) | 1ull << 63)));
}
__device__ inline unsigned ordered(float v) {
  const unsigned bits = __float_as_uint(v);
  return bits ^ (unsigned(int(bits) >> 31) | 1u << 31);
}
__device__ inline float value_of(unsigned key) { return __uint_as_float(key ^ (unsigned(int(~key) >> 31) | 1u << 31)); }

// A distance is never negative, so its bits are ordered as they are.
__device__ inline u64 distance_key(double v) { return u64(__double_as_longlong(v + 0.0)); }  // no -0
__device__ inline double distance_of(u64 key) { return __longlong_as_double((long long)key); }

__device__ inline unsigned warp_max(unsigned v) { return reduce_max(kAll, v); }
__device__ inline unsigned warp_min(unsigned v) { return reduce_min(kAll, v); }

__device__ inline u64 warp_max(u64 v) {
  const unsigned high = unsigned(v >> 32), top = warp_max(high);
  return u64(top) << 32 | warp_max(high == top ? unsigned(v) : 0u);
}
__device__ inline u64 warp_min(u64 v) { return ~warp_max(~v); }
__device__ inline double warp_max(double v) { return value_of(warp_max(ordered(v))); }

// A sum of float64 numbers with the rounding errors kept beside it.
struct ExactSum {
  double high = 0, low = 0;
  __device__ void add(double v) {
    const double sum = high + v, part = sum - high;
    low += (high - (sum - part)) + (v - part);
    high = sum;
  }
  __device__ void add(const ExactSum& other) {
    add(other.high);
    low += other.low;
  }
  __device__ double value() const { return high + low; }
};

__device__ inline void warp_sum(ExactSum& sum) {
  for (int d = 16; d > 0; d >>= 1) {
    ExactSum other;
    other.high = __shfl_xor_sync(kAll, sum.high, d);
    other.low = __shfl_xor_sync(kAll, sum.low, d);
    sum.add(other);
  }
}

// Block: the sum over all threads, in a fixed order, to all.
__device__ inline double block_sum(double v) {
  LMCFAST_SHARED(double, part, [32]);
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(kAll, v, d);
  __syncthreads();
  if (lane_id() == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  double sum = 0;
  for (unsigned w = 0; w < blockDim.x / 32; w++) sum += part[w];
  return sum;
}

}  // namespace lmcfast::cuda
