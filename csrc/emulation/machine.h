// The emulated device: its threads, warps, blocks, and the one state that they share.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "control.h"
#include "fiber.h"
#include "types.h"

namespace lmcfast::emulation {

// A place in the kernel's source; the default argument of every operation that may be reported.
struct Site {
  const char* file = "";
  int line = 0;
};
#define LMCFAST_SITE ::lmcfast::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}

enum class Operation {
  none,
  access,
  syncthreads,
  syncthreads_or,
  syncthreads_and,
  syncthreads_count,
  cluster_sync,
  grid_sync,
  syncwarp,
  shuffle,
  shuffle_xor,
  shuffle_up,
  shuffle_down,
  ballot,
  any,
  all,
  match,
  reduce_max,
  reduce_min,
  reduce_add,
  reduce_and,
  reduce_or,
  reduce_xor,
  mma
};  // clang-format off

inline const char* name_of(Operation operation) {
  static const char* const names[] = {
      "start", "an atomic or strong access", "__syncthreads", "__syncthreads_or", "__syncthreads_and", "__syncthreads_count", "cluster_sync",
      "grid_sync", "__syncwarp", "__shfl_sync", "__shfl_xor_sync", "__shfl_up_sync", "__shfl_down_sync",
      "__ballot_sync", "__any_sync", "__all_sync", "__match_any_sync", "__reduce_max_sync", "__reduce_min_sync",
      "__reduce_add_sync", "__reduce_and_sync", "__reduce_or_sync", "__reduce_xor_sync", "mma"};
  return names[int(operation)];
}  // clang-format on

// Barriers of a block, a cluster, a grid. Two tags in turn: whoever is late to acquire the last barrier's order must
// not take that of the next one, which the first threads already release.
enum class Scope { block, cluster, grid };
struct Barrier {
  unsigned expected = 0, arrived = 0, parity = 0;
  unsigned gathered = 0, result = 0;
  Operation operation = Operation::none;
  Site site;
  char tag[2] = {};
};

// Sets of lanes as bit masks.
struct Warp {
  unsigned lanes = 0;                  // that it started with
  unsigned alive = 0;                  // not exited
  unsigned ready = 0;                  // can run
  unsigned in_barrier[3] = {0, 0, 0};  // wait, by Scope
  unsigned in_collective = 0;          // wait for the other lanes of their mask
  unsigned parity = 0;                 // of the tag for __syncwarp of all lanes
  char tag[2] = {};
};

// An array that lives elsewhere; its methods are hidden from ThreadSanitizer, unlike those of std::vector.
template <class T>
struct Span {
  T* first = nullptr;
  unsigned count = 0;
  LMCFAST_UNSEEN T& operator[](unsigned i) const { return first[i]; }
  LMCFAST_UNSEEN T* begin() const { return first; }
  LMCFAST_UNSEEN T* end() const { return first + count; }
};

struct Block;
struct Thread : Fiber {
  dim3 index;
  Block* block = nullptr;
  Warp* warp = nullptr;
  Thread** mates = nullptr;  // the warp's threads by lane
  unsigned lane = 0;
  bool running = false;  // began and has not ended
  // What it waits in, or began with last.
  Site site;
  Operation operation = Operation::none;
  unsigned mask = 0;
  void* post = nullptr;
  // Tags for __syncwarp of some lanes; `seen`: the parities of the mask's lanes when it completed.
  unsigned parity = 0, seen = 0;
  char tag[2] = {};
};

struct Block {
  dim3 index;
  unsigned linear = 0;  // index within the grid
  unsigned live = 0;    // threads that have not exited
  Barrier barrier;
  Span<Thread*> threads;
  Span<Warp> warps;
  unsigned char* arena = nullptr;  // shared memory
  std::size_t arena_bytes = 0;
  std::vector<Thread*> thread_storage;
  std::vector<Warp> warp_storage;
};

struct SharedVariable {
  const void* key;
  std::size_t offset, bytes;
};
constexpr unsigned max_shared_variables = 64;

// What stays known of a kernel between launches.
struct KernelLimits {
  const void* kernel;
  std::size_t static_bytes;    // of its shared variables, as far as launches have met them
  std::size_t dynamic_opt_in;  // dynamic shared memory that was asked for; 0: never asked
};

struct Machine {
  std::recursive_mutex mutex;  // one host thread at a time
  Options options;
  Counters counters;
  char error[1000] = "";
  Host host;
  Thread* current = nullptr;  // the CUDA thread that runs; null: the host

  // The launch that runs.
  bool running = false, failed = false, cooperative = false;
  dim3 grid_size, block_size;
  unsigned cluster_size = 1;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::uint64_t random = 0, sequence = 0, work = 0;
  Span<Block*> resident;  // blocks that are alive
  Barrier grid;
  Span<Barrier> clusters;
  char start_tag = 0, end_tag = 0;

  // Shared memory: dynamic at the arena's begin, static variables behind it in the order of their first use.
  std::size_t dynamic_bytes = 0, static_bytes = 0, arena_used = 0;
  KernelLimits* limits = nullptr;
  SharedVariable variables[max_shared_variables];
  unsigned variable_count = 0;

  // Kept between launches.
  std::vector<Thread*> idle_threads;
  std::vector<Block*> idle_blocks;
  std::vector<KernelLimits> kernels;
  unsigned stacks = 0;

  ~Machine() {
    for (Thread* thread : idle_threads) {
      destroy(*thread);
      delete thread;
    }
    for (Block* block : idle_blocks) {
      std::free(block->arena);
      delete block;
    }
  }
};

// One for each library that was compiled with the emulator, not one for the process: hidden, so that the loader does
// not merge it with another library's.
__attribute__((visibility("hidden"))) inline Machine machine;

LMCFAST_UNSEEN inline Thread& self() { return *machine.current; }
LMCFAST_UNSEEN inline unsigned number_of(const Thread& t) {
  return unsigned(t.warp - t.block->warps.first) * 32 + t.lane;
}

// Runs the scheduler until this thread is picked again.
LMCFAST_UNSEEN inline void yield() {
  Thread& thread = self();
  switch_to_host(machine.host, thread);
}

// Ends the launch with a message; the first one counts. Does not return: the fiber is abandoned.
__attribute__((format(printf, 1, 2))) LMCFAST_UNSEEN inline void fail(const char* format, ...) {
  if (!machine.failed) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(machine.error, sizeof machine.error, format, arguments);
    va_end(arguments);
    machine.failed = true;
  }
  while (true) yield();
}

// xorshift64
LMCFAST_UNSEEN inline unsigned draw(unsigned bound) {
  std::uint64_t& r = machine.random;
  r ^= r << 13;
  r ^= r >> 7;
  r ^= r << 17;
  return unsigned((r >> 11) % bound);
}

// Before every atomic, strong access and fence (`counter`: of its kind): another thread may come first. In the fixed
// order too now and then, so that a thread that spins lets the others go on.
LMCFAST_UNSEEN inline void preempt(std::uint64_t& counter, Site site) {
  ++counter;
  ++machine.work;
  if (machine.options.seed ? draw(8) != 0 : machine.work % 4096 != 0) return;
  self().site = site;
  self().operation = Operation::access;
  yield();
}

inline void configure(const Options& options) {
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.options = options;
  machine.sequence = 0;
}
inline Options options() {
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  return machine.options;
}
inline Counters counters() {
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  return machine.counters;
}
inline void reset_counters() {
  std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.counters = Counters();
}
inline const char* last_error() { return machine.error; }

// Valid until another kernel is met. Within the machine's lock.
inline KernelLimits& limits_of(const void* kernel) {
  for (KernelLimits& known : machine.kernels)
    if (known.kernel == kernel) return known;
  machine.kernels.push_back({kernel, 0, 0});
  return machine.kernels.back();
}
// Static and dynamic bytes of a block: what every kernel has, or what it asked for.
inline std::size_t shared_allowed(const KernelLimits& limits, std::size_t static_bytes) {
  const std::size_t unasked = 48 << 10, asked = limits.dynamic_opt_in ? limits.dynamic_opt_in + static_bytes : 0;
  return asked > unasked ? asked : unasked;
}

}  // namespace lmcfast::emulation

#define threadIdx (::lmcfast::emulation::self().index)
#define blockIdx (::lmcfast::emulation::self().block->index)
#define blockDim (::lmcfast::emulation::machine.block_size)
#define gridDim (::lmcfast::emulation::machine.grid_size)
constexpr int warpSize = 32;
