// Which vector levels stand in this build, and which one is used.
#include "levels.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace lmcfast {

namespace baseline {
extern const Level kLevel;
}
#if defined(LMCFAST_X86_LEVELS)
namespace v3 {
extern const Level kLevel;
}
namespace v4 {
extern const Level kLevel;
}
#endif

namespace {
const Level* const kBuilt[] = {
    &baseline::kLevel,
#if defined(LMCFAST_X86_LEVELS)
    &v3::kLevel,
    &v4::kLevel,
#endif
};

const Level* choose() {
  const char* most = std::getenv("LMCFAST_CPU");
  const Level* best = kBuilt[0];
  for (const Level* level : kBuilt) {
    if (level->supported()) best = level;
    if (most && std::strcmp(most, level->name) == 0) break;
  }
  return best;
}
}  // namespace

const Level& level() {
  static const Level* const chosen = choose();
  return *chosen;
}

const char* level_in_use() { return level().name; }

const char* const* levels_built() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> v;
    for (const Level* level : kBuilt) v.push_back(level->name);
    v.push_back(nullptr);
    return v;
  }();
  return names.data();
}

int default_threads() {
  static const int threads = [] {
    if (const char* text = std::getenv("LMCFAST_NUM_THREADS")) {
      const int n = std::atoi(text);
      if (n > 0) return n;
    }
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1, int(std::thread::hardware_concurrency()));
  }();
  return threads;
}

}  // namespace lmcfast
