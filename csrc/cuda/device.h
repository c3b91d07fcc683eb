// What the kernels are written with: one source, two compilers. With nvcc thin wrappers (device_nvcc.h); with a C++
// compiler the same names, and CUDA's own, from the emulator (csrc/emulation/emulation.h), for tests on a CPU.
//
// A kernel uses CUDA's names (threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd, ...) but for the following, all in
// lmcfast::cuda where they are not macros:
//
//   LMCFAST_SHARED(T, name, [n])      __shared__ T name[n], of trivial type
//   LMCFAST_DYNAMIC_SHARED(name)      unsigned char name[], aligned to 16: the launch's dynamic shared memory
//   LMCFAST_UNROLL                    #pragma unroll
//   launch(config, kernel, args...)   kernel<<<...>>>(args...), cooperative and in clusters too; asks for the dynamic
//                                     shared memory and for large clusters by itself; returns the error
//   load, store                       strong relaxed accesses of 4 or 8 bytes: never stale, never torn; they hand
//                                     nothing over
//   fetch_max                         atomic maximum of a u64 that acquires and releases; returns the old value
//   read_input                        a plain load of what no kernel writes; the emulator counts the bytes
//   load_owned, store_owned           load and store on the device, for data that fetch_max or a barrier hands over:
//                                     plain in the emulator, where the thread sanitizer checks that it does
//   reduce_max, _min, _add            __reduce_*_sync of int and unsigned, and _and, _or, _xor of unsigned, on every
//                                     architecture (shuffles before compute capability 8.0)
//   grid_sync, cluster_sync           barriers of a cooperative launch, of a cluster
//   map_shared_rank(p, rank)          shared memory of another block of the cluster
//   to_tf32, mma_tf32                 m16n8k8 on tensor cores: float += TF32 * TF32, fragments as in the PTX manual
//   mma_bfloat16, mma_half            m16n8k16, two elements a register; all mma: whole warps only, and before compute
//                                     capability 8.0 right but slow
//
// Accesses take a scope, fetch_max<Scope::block>(p, v): for words that only one block uses, such as shared memory.
// Clusters need compute capability 9.0: kernels that use them stand within #if LMCFAST_CLUSTERS.
#pragma once

#if defined(__CUDACC__)
#include "device_nvcc.h"
#else
#include "../emulation/emulation.h"
#endif
