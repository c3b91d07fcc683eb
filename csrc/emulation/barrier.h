// Barriers of a block, a cluster, a grid.
#pragma once

#include <cstring>

#include "machine.h"

namespace lmcfast::emulation {

LMCFAST_UNSEEN inline bool same(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

LMCFAST_UNSEEN inline unsigned cluster_of(const Block& block) { return block.linear / machine.cluster_size; }

LMCFAST_UNSEEN inline void wake(Block& block, Scope scope) {
  for (Warp& warp : block.warps) {
    warp.ready |= warp.in_barrier[int(scope)];
    warp.in_barrier[int(scope)] = 0;
  }
}

LMCFAST_UNSEEN inline void complete(Barrier& barrier, Scope scope, Block& block) {
  barrier.result = barrier.gathered;
  barrier.arrived = 0;
  barrier.parity ^= 1;
  if (scope == Scope::block) {
    ++machine.counters.block_barriers;
    return wake(block, scope);
  }
  ++(scope == Scope::grid ? machine.counters.grid_barriers : machine.counters.cluster_barriers);
  for (Block* other : machine.resident)
    if (scope == Scope::grid || cluster_of(*other) == cluster_of(block)) wake(*other, scope);
}

LMCFAST_UNSEEN inline unsigned gather(Operation operation, unsigned gathered, unsigned value) {
  switch (operation) {
    case Operation::syncthreads_or:
      return gathered | value;
    case Operation::syncthreads_and:
      return gathered & value;
    case Operation::syncthreads_count:
      return gathered + value;
    default:
      return 0;
  }
}

LMCFAST_UNSEEN inline void fail_diverged(const Barrier& barrier) {
  const Thread& t = self();
  fail("barrier divergence in block %u: %s at %s:%d (thread %u) against %s at %s:%d", t.block->linear,
       name_of(t.operation), t.site.file, t.site.line, number_of(t), name_of(barrier.operation), barrier.site.file,
       barrier.site.line);
}

// Waits for all threads of the scope that have not exited; `value` is 0 or 1.
LMCFAST_UNSEEN inline unsigned wait_at(Barrier& barrier, Scope scope, Operation operation, bool value, Site site) {
  Thread& t = self();
  t.site = site;
  t.operation = operation;
  if (barrier.arrived == 0) {
    barrier.site = site;
    barrier.operation = operation;
    barrier.gathered = operation == Operation::syncthreads_and;
  } else if (barrier.operation != operation || !same(barrier.site, site)) {
    fail_diverged(barrier);
  }
  barrier.gathered = gather(operation, barrier.gathered, value);
  char* tag = &barrier.tag[barrier.parity];
  order_release(tag);
  if (++barrier.arrived == barrier.expected) {
    complete(barrier, scope, *t.block);
  } else {
    t.warp->ready &= ~(1u << t.lane);
    t.warp->in_barrier[int(scope)] |= 1u << t.lane;
    yield();
  }
  order_acquire(tag);
  return barrier.result;
}

// A thread that exits is no longer waited for. (Not so in a grid: grid_sync needs every thread.)
LMCFAST_UNSEEN inline void leave(Barrier& barrier, Scope scope, Block& block) {
  if (--barrier.expected && barrier.arrived == barrier.expected) complete(barrier, scope, block);
}

LMCFAST_UNSEEN inline unsigned block_barrier(Operation operation, bool value, Site site) {
  return wait_at(self().block->barrier, Scope::block, operation, value, site);
}

}  // namespace lmcfast::emulation

inline void __syncthreads(LMCFAST_SITE) {
  ::lmcfast::emulation::block_barrier(::lmcfast::emulation::Operation::syncthreads, false, site);
}
inline int __syncthreads_or(int value, LMCFAST_SITE) {
  return int(::lmcfast::emulation::block_barrier(::lmcfast::emulation::Operation::syncthreads_or, value != 0, site));
}
inline int __syncthreads_and(int value, LMCFAST_SITE) {
  return int(::lmcfast::emulation::block_barrier(::lmcfast::emulation::Operation::syncthreads_and, value != 0, site));
}
inline int __syncthreads_count(int value, LMCFAST_SITE) {
  return int(::lmcfast::emulation::block_barrier(::lmcfast::emulation::Operation::syncthreads_count, value != 0, site));
}

namespace lmcfast::cuda {

// All threads of a cooperative launch.
LMCFAST_UNSEEN inline void grid_sync(LMCFAST_SITE) {
  using namespace emulation;
  if (!machine.cooperative) fail("grid_sync at %s:%d: the launch is not cooperative", site.file, site.line);
  wait_at(machine.grid, Scope::grid, Operation::grid_sync, false, site);
}

LMCFAST_UNSEEN inline void cluster_sync(LMCFAST_SITE) {
  using namespace emulation;
  wait_at(machine.clusters[cluster_of(*self().block)], Scope::cluster, Operation::cluster_sync, false, site);
}

}  // namespace lmcfast::cuda
