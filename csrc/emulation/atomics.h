// Atomics, strong accesses, fences. Read-modify-writes and strong accesses are relaxed: they never race with each
// other, and hand nothing over; only fences and fetch_max do.
#pragma once

#include "barrier.h"

namespace lmcfast::emulation {

template <class T>
struct Identity {
  using type = T;
};
template <class T>
using Same = typename Identity<T>::type;  // not deduced: converts to the type of the address

// An unsigned integer of T's size, and the same for access to memory of another type.
template <std::size_t bytes>
struct Words;
template <>
struct Words<2> {
  using Word = std::uint16_t;
  typedef Word __attribute__((may_alias)) Alias;
};
template <>
struct Words<4> {
  using Word = std::uint32_t;
  typedef Word __attribute__((may_alias)) Alias;
};
template <>
struct Words<8> {
  using Word = std::uint64_t;
  typedef Word __attribute__((may_alias)) Alias;
};

template <class To, class From>
inline To bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "bits() keeps the size");
  To result;
  __builtin_memcpy(&result, &value, sizeof result);
  return result;
}

template <class T>
inline T relaxed_load(const T* at) {
  using Words = emulation::Words<sizeof(T)>;
  const typename Words::Word word =
      __atomic_load_n(reinterpret_cast<const typename Words::Alias*>(at), __ATOMIC_RELAXED);
  return bits<T>(word);
}
template <class T>
inline void relaxed_store(T* at, T value) {
  using Words = emulation::Words<sizeof(T)>;
  const auto word = bits<typename Words::Word>(value);
  __atomic_store_n(reinterpret_cast<typename Words::Alias*>(at), word, __ATOMIC_RELAXED);
}

// Returns the old value; f gives the new one. Other host threads do not take part, so no loop is needed.
template <class T, class F>
inline T read_modify_write(T* at, Site site, F f) {
  preempt(machine.counters.atomics, site);
  const T old = relaxed_load(at);
  relaxed_store(at, T(f(old)));
  return old;
}

LMCFAST_UNSEEN inline bool hands_over() { return !machine.options.relaxed_fetch_max; }

// Order through a fence holds between any two of them: the emulator does not follow which value was read.
LMCFAST_UNSEEN inline void fence(Site site) {
  static char tag;
  order_release(&tag);
  preempt(machine.counters.fences, site);
  order_acquire(&tag);
}

}  // namespace lmcfast::emulation

template <class T>
T atomicAdd(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return T(old + value); });
}
template <class T>
T atomicSub(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return T(old - value); });
}
template <class T>
T atomicMax(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return old < value ? old : value; });
}
template <class T>
T atomicOr(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return T(old | value); });
}
template <class T>
T atomicAnd(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return T(old & value); });
}
template <class T>
T atomicXor(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T old) { return T(old ^ value); });
}
template <class T>
T atomicExch(T* at, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* at, lmcfast::emulation::Same<T> compare, lmcfast::emulation::Same<T> value, LMCFAST_SITE) {
  return lmcfast::emulation::read_modify_write(at, site, [=](T old) { return old == compare ? value : old; });
}

inline void __threadfence(LMCFAST_SITE) { lmcfast::emulation::fence(site); }
inline void __threadfence_block(LMCFAST_SITE) { lmcfast::emulation::fence(site); }
inline void __threadfence_system(LMCFAST_SITE) { lmcfast::emulation::fence(site); }
inline void __nanosleep(unsigned) { lmcfast::emulation::yield(); }

// Cache hints are not strong: plain accesses, of which ThreadSanitizer demands order.
template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcg(const T* at) {
  return *at;
}
template <class T>
T __ldcs(const T* at) {
  return *at;
}
template <class T>
void __stcg(T* at, lmcfast::emulation::Same<T> value) {
  *at = value;
}
template <class T>
void __stcs(T* at, lmcfast::emulation::Same<T> value) {
  *at = value;
}

namespace lmcfast::cuda {

using u64 = unsigned long long;
enum class Scope { block, device };

// Strong, relaxed: sees what another thread of the scope has written, in some order.
template <Scope = Scope::device, class T>
inline T load(const T* at, LMCFAST_SITE) {
  emulation::preempt(emulation::machine.counters.strong_accesses, site);
  return emulation::relaxed_load(at);
}
template <Scope = Scope::device, class T>
inline void store(T* at, emulation::Same<T> value, LMCFAST_SITE) {
  emulation::preempt(emulation::machine.counters.strong_accesses, site);
  emulation::relaxed_store(at, value);
}

LMCFAST_UNSEEN inline void count_input(std::size_t bytes) { emulation::machine.counters.input_bytes += bytes; }
template <class T>
inline T read_input(const T* at) {
  count_input(sizeof(T));
  return *at;
}

// Strong on the device, but plain here: for data that fetch_max or a barrier hands over, so that the thread sanitizer
// checks that it does.
template <Scope = Scope::device, class T>
inline T load_owned(const T* at) {
  return *at;
}
template <Scope = Scope::device, class T>
inline void store_owned(T* at, emulation::Same<T> value) {
  *at = value;
}

// Acquires and releases, also where the word does not grow: what a thread did before its fetch_max is seen by whoever
// comes later in the word's order.
template <Scope = Scope::device>
inline u64 fetch_max(u64* at, u64 value, LMCFAST_SITE) {
  using namespace emulation;
  preempt(machine.counters.atomics, site);
  const u64 old = relaxed_load(at), greater = old < value ? value : old;
  if (race_detection && hands_over()) return __atomic_exchange_n(at, greater, __ATOMIC_ACQ_REL);
  relaxed_store(at, greater);
  return old;
}

}  // namespace lmcfast::cuda
