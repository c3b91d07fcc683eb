// CUDA on a CPU, for tests: a kernel's source, compiled as C++ against these headers, runs here. It shows whether the
// logic is right and whether order is missing; it says nothing about time.
//
// The model. One fiber for each CUDA thread, all on the host thread that launches; one launch at a time (a mutex). A
// fiber runs until it waits (barrier, warp operation), or until an atomic or strong access hands over to another one.
// Options (control.h): seed 0 gives a fixed order, the same in every run; another seed gives a random order of blocks,
// warps and lanes with frequent hand-overs, the same for the same seed and sequence of launches since configure().
// `residency` blocks are alive at once; of a cooperative launch all, of a cluster all or none.
//
// What a kernel may use (CUDA's names, unless lmcfast::cuda is said):
//   types.h            dim3, uint2, float4, ...; __global__, __device__, __launch_bounds__; no __shared__, no <<<>>>
//   machine.h          threadIdx, blockIdx, blockDim, gridDim, warpSize
//   shared.h           LMCFAST_SHARED(T, name, [n]), LMCFAST_DYNAMIC_SHARED(name), cuda::map_shared_rank
//   barrier.h          __syncthreads, _or, _and, _count; cuda::grid_sync, cuda::cluster_sync
//   warp_functions.h   __shfl_sync, _xor, _up, _down; __ballot_sync, __any_sync, __all_sync, __match_any_sync;
//                      __reduce_*_sync, cuda::reduce_*; __syncwarp. Masks are explicit: there is no __activemask
//   atomics.h          atomicAdd ... atomicCAS (relaxed), __threadfence, __ldg, __ldcg, ...; cuda::load, store,
//                      fetch_max, read_input (counted)
//   arithmetic.h       __popc, __ffs, __float_as_uint, ...; min, max; __fsub_ru, __dadd_rd, ... exact
//   half.h             __half, __nv_bfloat16: conversions with every rounding
//   mma.h              cuda::mma_tf32, mma_bfloat16, mma_half: fragments of mma.sync
// and host code:
//   launch.h           cuda::Launch, cuda::launch
//   runtime.h          memory, copies, device attributes, errors; streams have always finished
//
// What is found. A launch with one of these returns an error, and last_error() says what and where (file:line):
//   - a barrier that threads of a block, cluster or grid reach at different places
//   - a warp operation by a lane that its mask does not name; a mask that names a lane that has exited or does not
//     exist; lanes of one mask in different operations, places or masks
//   - a deadlock: who waits where; a livelock: more work than Options::work_limit
//   - grid_sync in a launch that is not cooperative; shared memory of a block of the cluster that has ended
//   - launches and shared memory beyond the device's limits; cooperative grids that would not fit at once
// After an error the next launch starts afresh.
// With the address sanitizer: accesses outside shared variables and of blocks that have ended. With the thread
// sanitizer: accesses, to shared or global memory, that nothing orders. Order comes from barriers, __syncwarp, fences,
// fetch_max and the ends of a kernel alone: not from a switch, a shuffle, a vote, a relaxed atomic. Atomics and strong
// accesses do not race with each other, but with plain ones. (Not seen: a race of a thread with the thread of the same
// index of an earlier block in the same place; order through a fence is taken to hold between any two fences.)
// Made visible: shared memory starts as 0xAB, cudaMalloc's as 0xCD; a shuffle from a lane outside the mask gives 0xAB.
//
// What is not covered: real memory reordering (accesses happen in the order of the program), warps in lockstep,
// occupancy and registers, alignment of vector accesses (but by the undefined-behaviour sanitizer), the order and
// rounding inside mma.sync, asynchronous copies, streams that overlap, wgmma and TMA. Two barriers on one line are one
// place. A loop that waits by plain reads never ends, as it may on the device. No exceptions may leave a kernel.
//
// Portability: x86-64 switches stacks in assembly, other processors by ucontext (-DLMCFAST_EMULATION_UCONTEXT: here,
// too). The state is one for each library that contains these headers; nothing is shared between two of them.
#pragma once

#include "arithmetic.h"
#include "atomics.h"
#include "control.h"
#include "half.h"
#include "launch.h"
#include "mma.h"
#include "shared.h"
#include "types.h"
#include "warp_functions.h"
