// Launches: the checks that the runtime makes, then the scheduler.
#pragma once

#include <tuple>

#include "runtime.h"
#include "scheduler.h"

namespace lmcfast::cuda {

struct Launch {
  dim3 grid = 1, block = 1;
  std::size_t shared = 0;  // bytes of dynamic shared memory
  cudaStream_t stream = nullptr;
  bool cooperative = false;
  unsigned cluster = 1;  // blocks of a cluster, along x
};

}  // namespace lmcfast::cuda

namespace lmcfast::emulation {

inline cudaError_t refuse(cudaError_t error, const char* why) {
  snprintf(machine.error, sizeof machine.error, "invalid launch: %s", why);
  return error;
}

inline cudaError_t check_launch(const cuda::Launch& l) {
  const std::uint64_t threads = std::uint64_t(l.block.x) * l.block.y * l.block.z;
  if (threads == 0 || threads > 1024 || l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64)
    return refuse(cudaErrorInvalidConfiguration, "a block has 1 to 1024 threads, at most 64 along z");
  const bool blocks = l.grid.x && l.grid.y && l.grid.z;
  if (!blocks || l.grid.x > 0x7fffffffu || l.grid.y > 65535 || l.grid.z > 65535)
    return refuse(cudaErrorInvalidConfiguration, "a grid has 1 to 2^31 - 1 blocks along x, to 65535 along y and z");
  const std::uint64_t plane = std::uint64_t(l.grid.x) * l.grid.y;
  if (plane * l.grid.z > 0xffffffffu / 1024 && l.cooperative)
    return refuse(cudaErrorCooperativeLaunchTooLarge, "too many blocks for a cooperative grid");
  if (plane * l.grid.z > 0xffffffffu) return refuse(cudaErrorInvalidConfiguration, "more blocks than can be emulated");
  if (l.shared > machine.options.shared_limit)
    return refuse(cudaErrorInvalidValue, "more dynamic shared memory than a block has");
  const std::size_t known = machine.limits->static_bytes;
  if (known + l.shared > shared_allowed(*machine.limits, known))
    return refuse(cudaErrorInvalidValue, "more static and dynamic shared memory than the kernel has asked for");
  if (l.cluster == 0 || l.cluster > 16 || l.grid.x % l.cluster)
    return refuse(cudaErrorInvalidClusterSize, "a cluster has 1 to 16 blocks and divides the grid along x");
  if (l.cluster > 1 && machine.options.compute_capability < 90)
    return refuse(cudaErrorInvalidClusterSize, "clusters need compute capability 9.0");
  int fitting = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fitting, static_cast<void (*)()>(nullptr), int(threads), l.shared);
  if (l.cooperative && plane * l.grid.z > std::uint64_t(fitting) * machine.options.multiprocessors)
    return refuse(cudaErrorCooperativeLaunchTooLarge, "a cooperative grid must fit the device at once");
  return cudaSuccess;
}

inline void begin(const cuda::Launch& l, void (*body)(void*), void* arguments) {
  machine.running = true;
  machine.failed = false;
  machine.error[0] = 0;
  machine.cooperative = l.cooperative;
  machine.grid_size = l.grid;
  machine.block_size = l.block;
  machine.cluster_size = l.cluster;
  machine.body = body;
  machine.arguments = arguments;
  machine.dynamic_bytes = machine.arena_used = l.shared;
  machine.static_bytes = 0;
  machine.variable_count = 0;
  machine.work = 0;
  machine.random = machine.options.seed * 0x9E3779B97F4A7C15u + ++machine.sequence * 0x632BE59BD9B4E019u + 1;
  ++machine.counters.launches;
#if defined(LMCFAST_THREAD_SANITIZER)
  machine.host.race_state = __tsan_get_current_fiber();
#endif
}

// Runs body(arguments), which calls `kernel`, once for every thread of the grid.
inline cudaError_t run(const cuda::Launch& l, const void* kernel, void (*body)(void*), void* arguments) {
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  if (machine.running) return report(refuse(cudaErrorLaunchFailure, "a kernel cannot launch another one"));
  machine.limits = &limits_of(kernel);
  const cudaError_t error = check_launch(l);
  if (error != cudaSuccess) return report(error);
  begin(l, body, arguments);
  run_grid();
  machine.running = false;
  return report(machine.failed ? cudaErrorLaunchFailure : cudaSuccess);
}

}  // namespace lmcfast::emulation

namespace lmcfast::cuda {

template <class... Parameters, class... Arguments>
cudaError_t launch(const Launch& config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  } call{kernel, std::tuple<Parameters...>(static_cast<Parameters>(arguments)...)};
  const auto body = [](void* address) {
    Call& c = *static_cast<Call*>(address);
    std::apply(c.kernel, c.arguments);
  };
  const cudaError_t error = allow_shared(kernel, config.shared);
  if (error != cudaSuccess) return error;
  return emulation::run(config, reinterpret_cast<const void*>(kernel), body, &call);
}

}  // namespace lmcfast::cuda
