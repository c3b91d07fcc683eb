// The names of device.h for nvcc: PTX in one line each.
#pragma once

#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstring>

#include "shared_memory.h"

#define LMCFAST_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define LMCFAST_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define LMCFAST_UNROLL _Pragma("unroll")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define LMCFAST_CLUSTERS 1
#else
#define LMCFAST_CLUSTERS 0
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define LMCFAST_AMPERE 1
#else
#define LMCFAST_AMPERE 0
#endif

namespace lmcfast::cuda {

using u64 = unsigned long long;

struct Launch {
  dim3 grid = 1, block = 1;
  size_t shared = 0;  // bytes of dynamic shared memory
  cudaStream_t stream = nullptr;
  bool cooperative = false;
  unsigned cluster = 1;  // blocks of a cluster, along x
};

template <class... Parameters, class... Arguments>
cudaError_t launch(const Launch& l, void (*kernel)(Parameters...), Arguments&&... arguments) {
  constexpr unsigned portable_cluster = 8;  // beyond, a kernel must ask
  cudaError_t error = allow_shared(kernel, l.shared);
  if (error == cudaSuccess && l.cluster > portable_cluster)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = l.grid;
  config.blockDim = l.block;
  config.dynamicSmemBytes = l.shared;
  config.stream = l.stream;
  config.attrs = attributes;
  if (l.cooperative) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  if (l.cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = l.cluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

enum class Scope { block, device };

template <class To, class From>
__device__ __forceinline__ To bit_copy(From value) {
  static_assert(sizeof(To) == sizeof(From), "bit_copy keeps the size");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}

template <Scope scope = Scope::device, class T>
__device__ __forceinline__ T load(const T* at) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a strong access has 4 or 8 bytes");
  if constexpr (sizeof(T) == 4) {
    unsigned word;
    if constexpr (scope == Scope::device)
      asm volatile("ld.relaxed.gpu.u32 %0, [%1];" : "=r"(word) : "l"(at) : "memory");
    else asm volatile("ld.relaxed.cta.u32 %0, [%1];" : "=r"(word) : "l"(at) : "memory");
    return bit_copy<T>(word);
  } else {
    u64 word;
    if constexpr (scope == Scope::device)
      asm volatile("ld.relaxed.gpu.u64 %0, [%1];" : "=l"(word) : "l"(at) : "memory");
    else asm volatile("ld.relaxed.cta.u64 %0, [%1];" : "=l"(word) : "l"(at) : "memory");
    return bit_copy<T>(word);
  }
}

template <class T>
struct Identity {
  using type = T;
};

template <Scope scope = Scope::device, class T>
__device__ __forceinline__ void store(T* at, typename Identity<T>::type value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a strong access has 4 or 8 bytes");
  if constexpr (sizeof(T) == 4) {
    const unsigned word = bit_copy<unsigned>(value);
    if constexpr (scope == Scope::device) asm volatile("st.relaxed.gpu.u32 [%0], %1;" ::"l"(at), "r"(word) : "memory");
    else asm volatile("st.relaxed.cta.u32 [%0], %1;" ::"l"(at), "r"(word) : "memory");
  } else {
    const u64 word = bit_copy<u64>(value);
    if constexpr (scope == Scope::device) asm volatile("st.relaxed.gpu.u64 [%0], %1;" ::"l"(at), "l"(word) : "memory");
    else asm volatile("st.relaxed.cta.u64 [%0], %1;" ::"l"(at), "l"(word) : "memory");
  }
}

template <class T>
__device__ __forceinline__ T read_input(const T* at) {
  return *at;
}

template <Scope scope = Scope::device, class T>
__device__ __forceinline__ T load_owned(const T* at) {
  return load<scope>(at);
}
template <Scope scope = Scope::device, class T>
__device__ __forceinline__ void store_owned(T* at, typename Identity<T>::type value) {
  store<scope>(at, value);
}

template <Scope scope = Scope::device>
__device__ __forceinline__ u64 fetch_max(u64* at, u64 value) {
  u64 old;
  if constexpr (scope == Scope::device)
    asm volatile("atom.acq_rel.gpu.max.u64 %0, [%1], %2;" : "=l"(old) : "l"(at), "l"(value) : "memory");
  else asm volatile("atom.acq_rel.cta.max.u64 %0, [%1], %2;" : "=l"(old) : "l"(at), "l"(value) : "memory");
  return old;
}

__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }
#if LMCFAST_CLUSTERS
__device__ __forceinline__ void cluster_sync() { cooperative_groups::this_cluster().sync(); }
template <class T>
__device__ __forceinline__ T* map_shared_rank(T* variable, unsigned rank) {
  return cooperative_groups::this_cluster().map_shared_rank(variable, rank);
}
#endif

// The butterfly for whole warps; else every lane reads the others in turn.
template <class T, class F>
__device__ __forceinline__ T reduce_by_shuffles(unsigned mask, T value, F f) {
  if (mask == ~0u) {
    for (int distance = 16; distance; distance >>= 1) value = f(value, __shfl_xor_sync(mask, value, distance));
    return value;
  }
  T result = __shfl_sync(mask, value, __ffs(int(mask)) - 1);
  for (unsigned m = mask & (mask - 1); m; m &= m - 1) result = f(result, __shfl_sync(mask, value, __ffs(int(m)) - 1));
  return result;
}
#if LMCFAST_AMPERE
#define LMCFAST_WARP_REDUCTION(T, name, function, expression) \
  __device__ __forceinline__ T name(unsigned mask, T value) { return function(mask, value); }
#else
#define LMCFAST_WARP_REDUCTION(T, name, function, expression)                    \
  __device__ __forceinline__ T name(unsigned mask, T value) {                    \
    return reduce_by_shuffles(mask, value, [](T a, T b) { return expression; }); \
  }
#endif
LMCFAST_WARP_REDUCTION(unsigned, reduce_max, __reduce_max_sync, a > b ? a : b)
LMCFAST_WARP_REDUCTION(int, reduce_max, __reduce_max_sync, a > b ? a : b)
LMCFAST_WARP_REDUCTION(unsigned, reduce_min, __reduce_min_sync, a < b ? a : b)
LMCFAST_WARP_REDUCTION(int, reduce_min, __reduce_min_sync, a < b ? a : b)
LMCFAST_WARP_REDUCTION(unsigned, reduce_add, __reduce_add_sync, a + b)
LMCFAST_WARP_REDUCTION(int, reduce_add, __reduce_add_sync, a + b)
LMCFAST_WARP_REDUCTION(unsigned, reduce_and, __reduce_and_sync, (a & b))
LMCFAST_WARP_REDUCTION(unsigned, reduce_or, __reduce_or_sync, (a | b))
LMCFAST_WARP_REDUCTION(unsigned, reduce_xor, __reduce_xor_sync, (a ^ b))
#undef LMCFAST_WARP_REDUCTION

#if LMCFAST_AMPERE
__device__ __forceinline__ unsigned to_tf32(float value) {
  unsigned word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
  return word;
}
#define LMCFAST_MMA(name, instruction)                                                                  \
  __device__ __forceinline__ void name(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"         \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                   \
  }
LMCFAST_MMA(mma_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
LMCFAST_MMA(mma_bfloat16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
LMCFAST_MMA(mma_half, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
#undef LMCFAST_MMA
#else
__device__ __forceinline__ unsigned to_tf32(float value) {
  const unsigned word = __float_as_uint(value);
  return (word & 0x7f800000u) == 0x7f800000u ? word : (word + 0x1000u) & ~0x1fffu;
}
// Without the instructions: every lane fetches the elements of its two rows and two columns. An element of A in
// register `a[r + 2 h]` of lane 4 row + place (r: rows from 8 on) is taken apart by `value(register, part)` into
// `parts` elements.
template <int parts, class F>
__device__ __forceinline__ void mma_by_shuffles(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                                F value) {
  const int lane = int(threadIdx.x + threadIdx.y * blockDim.x + threadIdx.z * blockDim.x * blockDim.y) % 32;
  const int row = lane / 4, column = lane % 4 * 2;
  for (int k = 0; k < 8; ++k) {
    const int high = k / 4, place = k % 4;
    const unsigned a0 = __shfl_sync(~0u, a[2 * high], 4 * row + place);
    const unsigned a1 = __shfl_sync(~0u, a[2 * high + 1], 4 * row + place);
    const unsigned b0 = __shfl_sync(~0u, b[high], 4 * column + place);
    const unsigned b1 = __shfl_sync(~0u, b[high], 4 * column + 4 + place);
    for (int part = 0; part < parts; ++part) {
      c[0] += value(a0, part) * value(b0, part);
      c[1] += value(a0, part) * value(b1, part);
      c[2] += value(a1, part) * value(b0, part);
      c[3] += value(a1, part) * value(b1, part);
    }
  }
}
__device__ __forceinline__ void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_by_shuffles<1>(c, a, b, [](unsigned word, int) { return __uint_as_float(word & ~0x1fffu); });
}
__device__ __forceinline__ void mma_bfloat16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_by_shuffles<2>(c, a, b,
                     [](unsigned word, int part) { return __uint_as_float(part ? word & 0xffff0000u : word << 16); });
}
__device__ __forceinline__ void mma_half(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_by_shuffles<2>(c, a, b, [](unsigned word, int part) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16 * part)));
  });
}
#endif

}  // namespace lmcfast::cuda
