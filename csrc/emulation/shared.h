// Shared memory: one arena for each block that is alive. A variable's place is found at its first use in a launch and
// is the same in every block. Filled with 0xAB; red zones around every variable for AddressSanitizer.
#pragma once

#include "barrier.h"

namespace lmcfast::emulation {

constexpr std::size_t red_zone = 32, fill_unit = 8;
constexpr std::size_t static_limit = 48 << 10;  // of a kernel's static variables, as on every device
constexpr std::size_t arena_slack = max_shared_variables * 2 * red_zone;

LMCFAST_UNSEEN inline std::size_t needed_arena_bytes() {
  // ThreadSanitizer's arenas are made anew for every block and should be small.
  const std::size_t dynamic = race_detection ? machine.dynamic_bytes : machine.options.shared_limit;
  return (dynamic + static_limit + arena_slack + 127) / 128 * 128;
}

// Volatile: as a call of memset ThreadSanitizer would see it.
LMCFAST_UNSEEN inline void fill(unsigned char* begin, unsigned char* end) {
  for (volatile unsigned char* p = begin; p < end; ++p) *p = 0xAB;
}

LMCFAST_UNSEEN inline void open_variable(unsigned char* arena, const SharedVariable& variable) {
  allow_access(arena + variable.offset, variable.bytes);
  fill(arena + variable.offset, arena + variable.offset + variable.bytes);
}

// For a block that starts.
LMCFAST_UNSEEN inline void open_arena(Block& block) {
  forbid_access(block.arena, block.arena_bytes);
  open_variable(block.arena, {nullptr, 0, machine.dynamic_bytes});
  for (unsigned k = 0; k < machine.variable_count; ++k) open_variable(block.arena, machine.variables[k]);
}

LMCFAST_UNSEEN inline void* shared_variable(const void* key, std::size_t bytes, std::size_t alignment) {
  unsigned char* arena = self().block->arena;
  for (unsigned k = 0; k < machine.variable_count; ++k)
    if (machine.variables[k].key == key) return arena + machine.variables[k].offset;
  if (alignment < 16) alignment = 16;
  machine.static_bytes = (machine.static_bytes + alignment - 1) / alignment * alignment + bytes;
  if (machine.static_bytes > static_limit || machine.variable_count == max_shared_variables)
    fail("more than %zu bytes or %u variables of static shared memory", static_limit, max_shared_variables);
  if (machine.static_bytes + machine.dynamic_bytes > machine.options.shared_limit)
    fail("%zu bytes of static and %zu of dynamic shared memory: a block has %u", machine.static_bytes,
         machine.dynamic_bytes, machine.options.shared_limit);
  KernelLimits& limits = *machine.limits;
  if (limits.static_bytes < machine.static_bytes) limits.static_bytes = machine.static_bytes;
  if (machine.static_bytes + machine.dynamic_bytes > shared_allowed(limits, machine.static_bytes))
    fail("%zu bytes of static and %zu of dynamic shared memory: the kernel has not asked for so much",
         machine.static_bytes, machine.dynamic_bytes);
  const std::size_t offset = (machine.arena_used + red_zone + alignment - 1) / alignment * alignment;
  machine.arena_used = offset + bytes;
  const SharedVariable variable = {key, offset, bytes};
  machine.variables[machine.variable_count++] = variable;
  for (Block* block : machine.resident) open_variable(block->arena, variable);
  return arena + offset;
}

LMCFAST_UNSEEN inline unsigned char* dynamic_shared() { return self().block->arena; }

}  // namespace lmcfast::emulation

namespace lmcfast::cuda {

// The same variable of another block of the cluster.
template <class T>
LMCFAST_UNSEEN inline T* map_shared_rank(T* variable, unsigned rank, LMCFAST_SITE) {
  using namespace emulation;
  const Block& mine = *self().block;
  const std::size_t offset = std::size_t(reinterpret_cast<const unsigned char*>(variable) - mine.arena);
  for (Block* block : machine.resident)
    if (block->linear == cluster_of(mine) * machine.cluster_size + rank && rank < machine.cluster_size)
      return reinterpret_cast<T*>(block->arena + offset);
  fail("map_shared_rank at %s:%d: block %u of the cluster has ended or does not exist", site.file, site.line, rank);
  return variable;
}

}  // namespace lmcfast::cuda

// In CUDA: __shared__ T name[n]. The third argument is the array's bounds, or nothing.
#define LMCFAST_SHARED(T, name, ...)              \
  using name##_type = T __VA_ARGS__;              \
  static char name##_key;                         \
  name##_type& name = *static_cast<name##_type*>( \
      ::lmcfast::emulation::shared_variable(&name##_key, sizeof(name##_type), alignof(name##_type)))
#define LMCFAST_DYNAMIC_SHARED(name) unsigned char* const name = ::lmcfast::emulation::dynamic_shared()
