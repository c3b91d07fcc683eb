// CUDA's names for the warp operations. Every lane of a mask must call from the same line.
#pragma once

#include "warp.h"

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  const unsigned segment = self().lane & ~unsigned(width - 1);
  return shuffle(mask, value, segment + (unsigned(from) & unsigned(width - 1)), Operation::shuffle, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  const unsigned lane = self().lane, from = lane ^ unsigned(bits);
  // Lanes of a later segment cannot be read, those of an earlier one can.
  const bool inside = from < ((lane | unsigned(width - 1)) + 1);
  return shuffle(mask, value, inside ? from : lane, Operation::shuffle_xor, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  const unsigned lane = self().lane, place = lane & unsigned(width - 1);
  return shuffle(mask, value, place >= delta ? lane - delta : lane, Operation::shuffle_up, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  const unsigned lane = self().lane, place = lane & unsigned(width - 1);
  return shuffle(mask, value, place + delta < unsigned(width) ? lane + delta : lane, Operation::shuffle_down, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  return reduce<Or>(mask, predicate ? 1u << self().lane : 0u, Operation::ballot, site);
}
inline int __any_sync(unsigned mask, int predicate, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  return int(reduce<Or>(mask, predicate ? 1u : 0u, Operation::any, site));
}
inline int __all_sync(unsigned mask, int predicate, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  return int(reduce<And>(mask, predicate ? 1u : 0u, Operation::all, site));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  Post<T> post{value, value, 0};
  collective(mask, Operation::match, &post, match<T>, false, site);
  return post.from;
}
inline void __syncwarp(unsigned mask = ~0u, LMCFAST_SITE) {
  using namespace lmcfast::emulation;
  collective(mask, Operation::syncwarp, nullptr, nullptr, true, site);
}

// On int and unsigned only, as on the device.
#define LMCFAST_WARP_REDUCTION(T, name, functor)                          \
  inline T __reduce_##name##_sync(unsigned mask, T value, LMCFAST_SITE) { \
    using namespace lmcfast::emulation;                                   \
    return reduce<functor>(mask, value, Operation::reduce_##name, site);  \
  }                                                                       \
  namespace lmcfast::cuda {                                               \
  inline T reduce_##name(unsigned mask, T value, LMCFAST_SITE) {          \
    using namespace lmcfast::emulation;                                   \
    return reduce<functor>(mask, value, Operation::reduce_##name, site);  \
  }                                                                       \
  }
LMCFAST_WARP_REDUCTION(unsigned, max, Max)
LMCFAST_WARP_REDUCTION(int, max, Max)
LMCFAST_WARP_REDUCTION(unsigned, min, Min)
LMCFAST_WARP_REDUCTION(int, min, Min)
LMCFAST_WARP_REDUCTION(unsigned, add, Add)
LMCFAST_WARP_REDUCTION(int, add, Add)
LMCFAST_WARP_REDUCTION(unsigned, and, And)
LMCFAST_WARP_REDUCTION(unsigned, or, Or)
LMCFAST_WARP_REDUCTION(unsigned, xor, Xor)
#undef LMCFAST_WARP_REDUCTION
