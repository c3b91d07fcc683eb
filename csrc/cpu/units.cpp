// The entry points of units.h: what does not depend on the processor, and the way to the level in use.
#include "lmcfast/units.h"

#include <sys/mman.h>

#include <cstring>
#include <initializer_list>

#include "levels.h"
#include "units_level.h"

namespace lmcfast {

namespace baseline {
extern const UnitLevel kUnits;
}
#if defined(LMCFAST_X86_LEVELS)
namespace v3 {
extern const UnitLevel kUnits;
}
namespace v4 {
extern const UnitLevel kUnits;
}
#endif

namespace {

const UnitLevel* choose() {
#if defined(LMCFAST_X86_LEVELS)
  for (const UnitLevel* level : {&v3::kUnits, &v4::kUnits})
    if (std::strcmp(level->name, level_in_use()) == 0) return level;
#endif
  return &baseline::kUnits;
}

const UnitLevel& chosen() {
  static const UnitLevel* const level = choose();
  return *level;
}

template <class T>
const UnitKernels<T>& kernels();
template <>
const UnitKernels<float>& kernels() {
  return chosen().of_float;
}
template <>
const UnitKernels<double>& kernels() {
  return chosen().of_double;
}

}  // namespace

void prefer_large_pages(void* memory, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t(1) << 21;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

int64_t move_between(const int64_t* before, const int64_t* now, int64_t size, int64_t* units, int64_t* sources,
                     int64_t* scratch) {
  int64_t count = 0;
  for (int64_t i = 0; i < size; ++i)
    if (before[i] != now[i]) units[count++] = i;
  if (!count) return 0;
  for (int64_t i = 0; i < size; ++i) scratch[before[i]] = i;
  for (int64_t k = 0; k < count; ++k) sources[k] = scratch[now[units[k]]];
  return count;
}

template <class T>
double rise(const T* a, const T* b, const UnitShape& shape, const UnitMove& move) {
  return kernels<T>().rise(a, b, shape, move);
}

template <class T>
void move_units(T* to, const T* from, const UnitShape& shape, const UnitMove& move) {
  kernels<T>().move_units(to, from, shape, move);
}

template <class T>
void unit_differences(T* a_out, T* b_out, const T* a, const T* b, const UnitShape& shape, const int64_t* units,
                      const int64_t* now, const int64_t* before, int64_t count) {
  kernels<T>().unit_differences(a_out, b_out, a, b, shape, units, now, before, count);
}

template <class T>
void hold_pair(const HeldPair<T>& pair, PairSums& sums) {
  kernels<T>().hold_pair(pair, sums);
}

void add_product(float* to, int64_t n, int64_t depth, float weight, const UnitRows& a, const UnitRows& b) {
  chosen().add_product(to, n, depth, weight, a, b);
}

#define LMCFAST_INSTANCES(T)                                                                                   \
  template double rise(const T*, const T*, const UnitShape&, const UnitMove&);                                 \
  template void move_units(T*, const T*, const UnitShape&, const UnitMove&);                                   \
  template void unit_differences(T*, T*, const T*, const T*, const UnitShape&, const int64_t*, const int64_t*, \
                                 const int64_t*, int64_t);                                                     \
  template void hold_pair(const HeldPair<T>&, PairSums&);
LMCFAST_INSTANCES(float)
LMCFAST_INSTANCES(double)

}  // namespace lmcfast
