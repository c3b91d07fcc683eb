// A fiber: a stack of its own that the host thread switches to and from.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "sanitizer.h"

#if !defined(__x86_64__) && !defined(LMCFAST_EMULATION_UCONTEXT)
#define LMCFAST_EMULATION_UCONTEXT
#endif
#if defined(LMCFAST_EMULATION_UCONTEXT)
#include <ucontext.h>
#endif

namespace lmcfast::emulation {

constexpr unsigned max_fibers = race_detection ? 8000 : ~0u;  // what ThreadSanitizer's tables hold
constexpr std::size_t guard_bytes = 4096;
constexpr std::size_t stack_bytes = (race_detection || bounds_detection ? 256 : 64) << 10;

struct Fiber {
  void* context = nullptr;     // the saved stack pointer; a ucontext_t* where there is no assembly for the processor
  char* stack = nullptr;       // its lowest page is a guard
  unsigned colour = 0;         // distance of the first frame from the stack's end
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* race_state = nullptr;  // ThreadSanitizer's
};

// The host thread while a fiber runs.
struct Host {
  void* context = nullptr;
  void* fake_stack = nullptr;
  void* race_state = nullptr;
  const void* stack = nullptr;
  std::size_t stack_size = 0;
};

#if defined(LMCFAST_EMULATION_UCONTEXT)
LMCFAST_UNSEEN inline void switch_stack(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}
#else
// Saves the registers that a function must keep (System V ABI) on the old stack, and takes them from the new one.
// A jump and not a return: the processor's prediction of returns would be wrong every time (barriers twice as slow).
__attribute__((naked, noinline)) inline void switch_stack(void**, void*) {
  asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, (%rdi)\n"
      "movq %rsi, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; popq %rcx; jmp *%rcx");
}
#endif

LMCFAST_UNSEEN inline void switch_to_fiber(Host& host, Fiber& fiber) {
#if defined(LMCFAST_THREAD_SANITIZER)
  __tsan_switch_to_fiber(fiber.race_state, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(LMCFAST_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&host.fake_stack, fiber.stack, stack_bytes);
#endif
  switch_stack(&host.context, fiber.context);
#if defined(LMCFAST_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
#endif
}

LMCFAST_UNSEEN inline void switch_to_host(Host& host, Fiber& fiber) {
#if defined(LMCFAST_THREAD_SANITIZER)
  __tsan_switch_to_fiber(host.race_state, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(LMCFAST_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&fiber.fake_stack, host.stack, host.stack_size);
#endif
  switch_stack(&fiber.context, host.context);
#if defined(LMCFAST_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &host.stack, &host.stack_size);
#endif
}

// The first thing that a fiber does on its stack.
inline void fiber_has_started(Host& host) {
#if defined(LMCFAST_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(nullptr, &host.stack, &host.stack_size);
#else
  (void)host;
#endif
}

// The next switch to the fiber calls entry(), which must not return. What the fiber did before is forgotten.
inline void prepare(Fiber& fiber, void (*entry)()) {
  allow_access(fiber.stack, stack_bytes);
  fiber.fake_stack = nullptr;
#if defined(LMCFAST_EMULATION_UCONTEXT)
  constexpr std::size_t context_bytes = (sizeof(ucontext_t) + 63) / 64 * 64;
  auto* context = reinterpret_cast<ucontext_t*>(fiber.stack + stack_bytes - context_bytes);
  getcontext(context);
  context->uc_stack.ss_sp = fiber.stack + guard_bytes;
  context->uc_stack.ss_size = stack_bytes - guard_bytes - context_bytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber.context = context;
#else
  // From the top: an end of the chain of calls, the address to jump to, six registers.
  void** top = reinterpret_cast<void**>(fiber.stack + stack_bytes - fiber.colour) - 2;
  top[0] = reinterpret_cast<void*>(entry);
  top[1] = nullptr;
  fiber.context = top - 6;
#endif
}

// `number` spreads the stacks over the cache: at equal distances all of them would use the same few sets.
inline bool create(Fiber& fiber, unsigned number) {
  if (number >= max_fibers) return false;
  constexpr int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, stack_bytes, protection, flags, -1, 0);
  if (memory == MAP_FAILED) return false;
  if (mprotect(memory, guard_bytes, PROT_NONE)) {
    munmap(memory, stack_bytes);
    return false;
  }
  fiber.stack = static_cast<char*>(memory);
  fiber.colour = number % 53 * 320;
#if defined(LMCFAST_THREAD_SANITIZER)
  fiber.race_state = __tsan_create_fiber(0);
#endif
  return true;
}

inline void destroy(Fiber& fiber) {
  allow_access(fiber.stack, stack_bytes);
  munmap(fiber.stack, stack_bytes);
#if defined(LMCFAST_THREAD_SANITIZER)
  __tsan_destroy_fiber(fiber.race_state);
#endif
}

// For a fiber that was left in the middle of its work: the host comes after what it did; its calls are forgotten.
LMCFAST_UNSEEN inline void abandon(Host& host, Fiber& fiber) {
#if defined(LMCFAST_THREAD_SANITIZER)
  __tsan_switch_to_fiber(fiber.race_state, __tsan_switch_to_fiber_no_sync);
  __tsan_switch_to_fiber(host.race_state, 0);
  __tsan_destroy_fiber(fiber.race_state);
  fiber.race_state = __tsan_create_fiber(0);
#else
  (void)host;
  (void)fiber;
#endif
}

}  // namespace lmcfast::emulation
