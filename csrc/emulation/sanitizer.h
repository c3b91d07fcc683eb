// What the sanitizers must be told: switches between stacks, memory out of bounds, and what creates order.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define LMCFAST_ADDRESS_SANITIZER 1
#elif defined(__SANITIZE_THREAD__)
#define LMCFAST_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LMCFAST_ADDRESS_SANITIZER 1
#elif __has_feature(thread_sanitizer)
#define LMCFAST_THREAD_SANITIZER 1
#endif
#endif

#if defined(LMCFAST_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(LMCFAST_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
// Functions of the emulator itself: ThreadSanitizer must see the kernel's accesses only.
#define LMCFAST_UNSEEN __attribute__((no_sanitize("thread"), noinline))
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#else
#define LMCFAST_UNSEEN
#endif

namespace lmcfast::emulation {

#if defined(LMCFAST_THREAD_SANITIZER)
constexpr bool race_detection = true;
// Whoever acquires a tag comes after everything that its releasers did before.
inline void order_release(void* tag) { __tsan_release(tag); }
inline void order_acquire(void* tag) { __tsan_acquire(tag); }
inline void ignore_accesses(bool begin) {
  if (begin) {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  } else {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
}
#else
constexpr bool race_detection = false;
inline void order_release(void*) {}
inline void order_acquire(void*) {}
inline void ignore_accesses(bool) {}
#endif

#if defined(LMCFAST_ADDRESS_SANITIZER)
constexpr bool bounds_detection = true;
inline void forbid_access(void* at, std::size_t bytes) { __asan_poison_memory_region(at, bytes); }
inline void allow_access(void* at, std::size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
#else
constexpr bool bounds_detection = false;
inline void forbid_access(void*, std::size_t) {}
inline void allow_access(void*, std::size_t) {}
#endif

}  // namespace lmcfast::emulation
