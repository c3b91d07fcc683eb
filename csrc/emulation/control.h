// What a test sets before a launch and reads after it.
#pragma once

#include <cstdint>

namespace lmcfast::emulation {

struct Options {
  std::uint64_t seed = 0;  // 0: a fixed order of blocks, warps and lanes; else a random one, the same for the same seed
  unsigned residency = 4;  // blocks alive at once; a cooperative launch keeps all of them alive
  std::uint64_t work_limit = 500'000'000;  // switches and atomics of one launch; beyond: reported as a livelock
  bool relaxed_fetch_max = false;          // a planted fault: fetch_max hands nothing over (seen by ThreadSanitizer)
  // The device as host code sees it.
  unsigned multiprocessors = 4;
  unsigned compute_capability = 90;
  unsigned shared_limit = 227 << 10;  // bytes of shared memory of a block, static and dynamic
};

struct Counters {
  std::uint64_t launches = 0;
  std::uint64_t threads = 0;           // CUDA threads started
  std::uint64_t block_barriers = 0;    // completed
  std::uint64_t cluster_barriers = 0;  // completed
  std::uint64_t grid_barriers = 0;     // completed
  std::uint64_t warp_operations = 0;   // completed, one for all lanes of a mask
  std::uint64_t atomics = 0;           // one for each lane
  std::uint64_t strong_accesses = 0;   // cuda::load and cuda::store, one for each lane
  std::uint64_t fences = 0;
  std::uint64_t input_bytes = 0;  // read by cuda::read_input
  std::uint64_t switches = 0;     // to a fiber
};

void configure(const Options& options);  // also starts the sequence of random schedules anew
Options options();
Counters counters();
void reset_counters();
const char* last_error();  // of the last launch that failed; "" before; valid until the next launch

}  // namespace lmcfast::emulation
