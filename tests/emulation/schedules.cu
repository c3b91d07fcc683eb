// What the emulator promises about itself: schedules, counters, limits, a clean state after an error. Not for a device.
#include "check.h"

#if !defined(__CUDACC__)

#include <chrono>
#include <string>
#include <thread>
#include <vector>

using namespace lmcfast::cuda;
using test::Array;
using test::runs;
namespace emulation = lmcfast::emulation;

namespace {

__global__ void record(unsigned* count, unsigned* log) {  // who comes when
  const unsigned me = blockIdx.x * blockDim.x + threadIdx.x;
  for (int round = 0; round < 3; ++round) {
    log[atomicAdd(count, 1u)] = me;
    __syncwarp();
  }
}

std::vector<unsigned> recorded() {
  Array<unsigned> count(1), log(8 * 64 * 3);
  CHECK(runs(Launch{8, 64}, record, count.data, log.data));
  return std::vector<unsigned>(log.data, log.data + log.size);
}

void configure(std::uint64_t seed, unsigned residency) {
  emulation::Options options;
  options.seed = seed;
  options.residency = residency;
  emulation::configure(options);
}

TEST(schedules) {
  configure(0, 4);
  const auto fixed = recorded();
  CHECK(recorded() == fixed);
  configure(1, 4);
  const auto one = recorded(), next = recorded();
  configure(2, 4);
  const auto two = recorded();
  configure(1, 4);
  CHECK(recorded() == one);
  CHECK(recorded() == next);
  CHECK(one != fixed);
  CHECK(one != next);
  CHECK(two != one);
  configure(0, 1);
  CHECK(recorded() != fixed);
}

__global__ void alive_at_once(int* alive, int* most) {
  if (threadIdx.x == 0) atomicMax(most, atomicAdd(alive, 1) + 1);
  __syncthreads();
  __nanosleep(1);
  if (threadIdx.x == 0) atomicSub(alive, 1);
}

TEST(residency) {
  for (int residency : {1, 2, 5, 16, 100}) {
    for (unsigned seed : {0u, 3u}) {
      configure(seed, unsigned(residency));
      Array<int> alive(1), most(1);
      CHECK(runs(Launch{16, 64}, alive_at_once, alive.data, most.data));
      CHECK_EQUAL(alive[0], 0);
      CHECK(most[0] <= residency);
      CHECK(residency == 1 || most[0] > 1);
    }
  }
}

__global__ void counted(u64* word, unsigned* data) {
  __syncthreads();
  __syncwarp();
  reduce_max(~0u, threadIdx.x);
  atomicAdd(data, 1u);
  fetch_max(word, 3);
  store(data, load(data));
  __threadfence();
  cluster_sync();
  if (threadIdx.x == 0) __syncwarp(1);
}

TEST(counters) {
  configure(0, 4);
  Array<u64> word(1);
  Array<unsigned> data(1);
  emulation::reset_counters();
  Launch l{4, 64};
  l.cluster = 2;
  CHECK(runs(l, counted, word.data, data.data));
  const emulation::Counters c = emulation::counters();
  CHECK_EQUAL(c.launches, 1u);
  CHECK_EQUAL(c.threads, 256u);
  CHECK_EQUAL(c.block_barriers, 4u);
  CHECK_EQUAL(c.cluster_barriers, 2u);
  CHECK_EQUAL(c.grid_barriers, 0u);
  CHECK_EQUAL(c.warp_operations, 4u * 2 * 2 + 4);
  CHECK_EQUAL(c.atomics, 512u);
  CHECK_EQUAL(c.strong_accesses, 512u);
  CHECK_EQUAL(c.fences, 256u);
  CHECK(c.switches > 256);
}

__global__ void fill_shared(unsigned char* seen) {  // what a block finds, also where an earlier one has written
  LMCFAST_DYNAMIC_SHARED(dynamic);
  LMCFAST_SHARED(unsigned char, s, [64]);
  seen[blockIdx.x * 128 + threadIdx.x] = s[threadIdx.x];
  seen[blockIdx.x * 128 + 64 + threadIdx.x] = dynamic[threadIdx.x];
  s[threadIdx.x] = dynamic[threadIdx.x] = 1;
}

TEST(shared_memory_is_not_zero) {
  configure(0, 2);
  Array<unsigned char> seen(6 * 128);
  Launch l{6, 64};
  l.shared = 64;
  CHECK(runs(l, fill_shared, seen.data));
  for (int i = 0; i < seen.size; ++i) CHECK_EQUAL(int(seen[i]), 0xAB);
}

__global__ void outside(unsigned* out) {  // lanes 4 to 7 read lanes that the mask does not name
  if (threadIdx.x < 8) out[threadIdx.x] = __shfl_down_sync(0xffu, threadIdx.x, 4);
}

TEST(undefined_shuffle) {
  configure(0, 4);
  Array<unsigned> out(8);
  CHECK(runs(Launch{1, 32}, outside, out.data));
  for (unsigned i = 0; i < 8; ++i) CHECK_EQUAL(out[int(i)], i < 4 ? i + 4 : 0xABABABABu);
}

__global__ void nothing() {}
__global__ void half_waits(unsigned* done) {
  if (blockIdx.x % 2 && threadIdx.x == 7) return;
  if (blockIdx.x % 2) __syncwarp();
  __syncthreads();
  atomicAdd(done, 1u);
}
__global__ void all_wait(unsigned* done) {
  LMCFAST_SHARED(unsigned, s, [64]);
  s[threadIdx.x] = threadIdx.x;
  __syncthreads();
  __syncwarp();
  atomicAdd(done, s[63 - threadIdx.x]);
}

TEST(clean_after_an_error) {
  for (unsigned seed : {0u, 5u}) {
    configure(seed, 3);
    for (int round = 0; round < 5; ++round) {
      Array<unsigned> done(1);
      CHECK_EQUAL(int(launch(Launch{8, 64}, half_waits, done.data)), int(cudaErrorLaunchFailure));
      CHECK(std::strstr(emulation::last_error(), "lane 7") != nullptr);
      CHECK_EQUAL(int(cudaGetLastError()), int(cudaErrorLaunchFailure));
      CHECK_EQUAL(int(cudaGetLastError()), int(cudaSuccess));
      done[0] = 0;
      CHECK(runs(Launch{8, 64}, all_wait, done.data));
      CHECK_EQUAL(done[0], 8u * 64 * 63 / 2);
      CHECK_EQUAL(std::strlen(emulation::last_error()), 0u);
    }
  }
}

Launch shape(dim3 grid, dim3 block, size_t shared = 0, unsigned cluster = 1, bool cooperative = false) {
  Launch l;
  l.grid = grid;
  l.block = block;
  l.shared = shared;
  l.cluster = cluster;
  l.cooperative = cooperative;
  return l;
}

TEST(limits_of_a_launch) {
  configure(0, 4);
  CHECK_EQUAL(int(launch(shape(1, 1024), nothing)), int(cudaSuccess));
  CHECK_EQUAL(int(launch(shape(1, dim3(4, 4, 64)), nothing)), int(cudaSuccess));
  CHECK_EQUAL(int(launch(shape(1, 1025), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(1, dim3(32, 33)), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(1, dim3(1, 1, 65)), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(1, 0), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(0, 1), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(dim3(1, 65536), 1), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(0x80000000u, 1), nothing)), int(cudaErrorInvalidConfiguration));
  CHECK_EQUAL(int(launch(shape(1, 1, 227 << 10), nothing)), int(cudaSuccess));
  CHECK_EQUAL(int(launch(shape(1, 1, (227 << 10) + 1), nothing)), int(cudaErrorInvalidValue));
  CHECK_EQUAL(int(launch(shape(9, 32, 0, 2), nothing)), int(cudaErrorInvalidClusterSize));
  CHECK_EQUAL(int(launch(shape(34, 32, 0, 17), nothing)), int(cudaErrorInvalidClusterSize));
}

template <int>  // a kernel of its own for each test
__global__ void some_static(unsigned* out) {
  LMCFAST_SHARED(unsigned, s, [28]);
  if (threadIdx.x < 28) s[threadIdx.x] = 0;
  out[threadIdx.x] = 1;
}

TEST(limits_of_unasked_shared_memory) {  // 48 KiB hold the static variables, too
  configure(0, 4);
  Array<unsigned> out(32);
  struct Call {
    static void body(void* numbers) { some_static<0>(static_cast<unsigned*>(numbers)); }
  };
  const auto unasked = [&](std::size_t bytes) {
    return int(
        emulation::run(shape(1, 32, bytes), reinterpret_cast<const void*>(some_static<0>), Call::body, out.data));
  };
  CHECK_EQUAL(unasked((48 << 10) - 112), int(cudaSuccess));
  CHECK_EQUAL(unasked((48 << 10) - 111), int(cudaErrorInvalidValue));
  cudaFuncAttributes attributes;
  CHECK_EQUAL(int(cudaFuncGetAttributes(&attributes, some_static<0>)), int(cudaSuccess));
  CHECK_EQUAL(attributes.sharedSizeBytes, 112);
  CHECK_EQUAL(attributes.maxDynamicSharedSizeBytes, (48 << 10) - 112);
  const auto ask = [&](int bytes) {
    return int(cudaFuncSetAttribute(some_static<0>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  };
  CHECK_EQUAL(ask((227 << 10) - 111), int(cudaErrorInvalidValue));
  CHECK_EQUAL(ask(60 << 10), int(cudaSuccess));
  CHECK_EQUAL(unasked(60 << 10), int(cudaSuccess));
  CHECK_EQUAL(unasked((60 << 10) + 1), int(cudaErrorInvalidValue));
}

TEST(launches_ask_for_shared_memory) {  // by the kernel's most, which another thread's launch does not lower
  configure(0, 4);
  Array<unsigned> out(32);
  for (const std::size_t bytes : {std::size_t(48 << 10), std::size_t(200 << 10), std::size_t(40 << 10)}) {
    CHECK(runs(shape(1, 32, bytes), some_static<1>, out.data));
    cudaFuncAttributes attributes;
    CHECK_EQUAL(int(cudaFuncGetAttributes(&attributes, some_static<1>)), int(cudaSuccess));
    CHECK(attributes.maxDynamicSharedSizeBytes >= (227 << 10) - 112);
  }
}

TEST(limits_of_a_cooperative_grid) {  // one multiprocessor of 2048 threads and 227 KB
  emulation::Options options;
  options.multiprocessors = 1;
  emulation::configure(options);
  CHECK_EQUAL(int(launch(shape(2, 1024, 0, 1, true), nothing)), int(cudaSuccess));
  CHECK_EQUAL(int(launch(shape(3, 1024, 0, 1, true), nothing)), int(cudaErrorCooperativeLaunchTooLarge));
  CHECK_EQUAL(int(launch(shape(1, 32, 114 << 10, 1, true), nothing)), int(cudaSuccess));
  CHECK_EQUAL(int(launch(shape(2, 32, 114 << 10, 1, true), nothing)), int(cudaErrorCooperativeLaunchTooLarge));
}

TEST(other_devices) {  // the limits are the option's, also after launches with others
  emulation::Options options;
  options.shared_limit = 64 << 10;
  options.compute_capability = 75;
  emulation::configure(options);
  CHECK_EQUAL(int(launch(shape(1, 1, 65 << 10), nothing)), int(cudaErrorInvalidValue));
  CHECK_EQUAL(int(launch(shape(1, 64, 64 << 10), nothing)), int(cudaSuccess));
  CHECK_EQUAL(int(launch(shape(2, 32, 0, 2), nothing)), int(cudaErrorInvalidClusterSize));
  int value = 0;
  cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  CHECK_EQUAL(value, 64 << 10);
  configure(0, 4);
  Array<unsigned char> seen(6 * 128);
  CHECK(runs(shape(6, 64, 200 << 10), fill_shared, seen.data));
}

TEST(one_host_thread_after_another) {
  configure(0, 4);
  std::vector<std::thread> threads;
  int wrong[4] = {};
  for (int& bad : wrong) {
    threads.emplace_back([&bad] {
      for (int round = 0; round < 20; ++round) {
        Array<unsigned> done(1);
        bad += launch(Launch{8, 64}, all_wait, done.data) != cudaSuccess || done[0] != 8u * 64 * 63 / 2;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int bad : wrong) CHECK_EQUAL(bad, 0);
}

__global__ void barriers(int n) {
  for (int i = 0; i < n; ++i) __syncthreads();
}
__global__ void exchanges(int n, unsigned* out) {
  unsigned v = threadIdx.x;
  for (int i = 0; i < n; ++i) v += __shfl_xor_sync(~0u, v, 1 + i % 31);
  out[threadIdx.x] = v;
}
__global__ void reductions(int n, unsigned* out) {
  unsigned v = threadIdx.x;
  for (int i = 0; i < n; ++i) v += reduce_max(~0u, v);
  out[threadIdx.x] = v;
}
__global__ void additions(int n, unsigned* out) {
  for (int i = 0; i < n; ++i) atomicAdd(out, 1u);
}

template <class... Arguments>
void print_cost(const char* what, double operations, Launch l, Arguments... arguments) {
  const auto begin = std::chrono::steady_clock::now();
  CHECK(runs(l, arguments...));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%-28s %7.1f ns\n", what, seconds / operations * 1e9);
}

TEST(costs) {
  configure(0, 4);
  Array<unsigned> out(32);
  const int n = emulation::race_detection ? 100 : 5000;
  print_cost("__syncthreads, a thread", n * 256., Launch{1, 256}, barriers, n);
  print_cost("__shfl_xor_sync, a lane", n * 32., Launch{1, 32}, exchanges, n, out.data);
  print_cost("reduce_max, a lane", n * 32., Launch{1, 32}, reductions, n, out.data);
  print_cost("atomicAdd, a lane", n * 32., Launch{1, 32}, additions, n, out.data);
  print_cost("start and end of a thread", 256. * 256, Launch{256, 256}, barriers, 0);
}

}  // namespace

#endif
