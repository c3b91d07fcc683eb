// Runs a grid: which blocks are alive, which warp and lane comes next, what to say when nothing can go on.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "shared.h"
#include "warp.h"

namespace lmcfast::emulation {

LMCFAST_UNSEEN inline void thread_main() {
  fiber_has_started(machine.host);
  order_acquire(&machine.start_tag);
  machine.body(machine.arguments);
  Thread& t = self();
  Block& block = *t.block;
  order_release(&machine.end_tag);
  t.warp->alive &= ~(1u << t.lane);
  t.warp->ready &= ~(1u << t.lane);
  check_exit(t);
  --block.live;
  t.running = false;
  leave(block.barrier, Scope::block, block);
  leave(machine.clusters[cluster_of(block)], Scope::cluster, block);
  while (true) yield();
}

inline Thread* take_thread() {
  if (!machine.idle_threads.empty()) {
    Thread* thread = machine.idle_threads.back();
    machine.idle_threads.pop_back();
    return thread;
  }
  Thread* thread = new Thread();
  if (create(*thread, machine.stacks)) {
    ++machine.stacks;
    return thread;
  }
  delete thread;
  return nullptr;
}

// Without order between a block and its successor in the same memory, which would hide races between blocks:
// ThreadSanitizer takes fresh memory for untouched.
inline void renew_arena(Block& block) {
  if (!race_detection && block.arena_bytes >= needed_arena_bytes()) return;
  ignore_accesses(true);
  allow_access(block.arena, block.arena_bytes);
  std::free(block.arena);
  block.arena = static_cast<unsigned char*>(std::aligned_alloc(128, needed_arena_bytes()));
  block.arena_bytes = block.arena ? needed_arena_bytes() : 0;
  ignore_accesses(false);
}

inline bool take_blocks(unsigned count, std::vector<Block*>& blocks) {
  const unsigned threads = machine.block_size.x * machine.block_size.y * machine.block_size.z;
  for (unsigned i = 0; i < count; ++i) {
    Block* block = machine.idle_blocks.empty() ? new Block() : machine.idle_blocks.back();
    if (!machine.idle_blocks.empty()) machine.idle_blocks.pop_back();
    blocks.push_back(block);
    renew_arena(*block);
    if (!block->arena) return false;
    for (unsigned k = 0; k < threads; ++k) {
      Thread* thread = take_thread();
      if (!thread) return false;
      block->thread_storage.push_back(thread);
    }
  }
  return true;
}

inline void give_back(std::vector<Block*>& blocks) {
  for (Block* block : blocks) {
    // From the last to the first: the next launch finds them in the same order.
    for (std::size_t k = block->thread_storage.size(); k-- > 0;) {
      Thread* thread = block->thread_storage[k];
      if (thread->running) abandon(machine.host, *thread);
      thread->running = false;
      machine.idle_threads.push_back(thread);
    }
    block->thread_storage.clear();
    machine.idle_blocks.push_back(block);
  }
}

LMCFAST_UNSEEN inline dim3 unravel(unsigned index, const dim3& size) {
  return dim3(index % size.x, index / size.x % size.y, index / size.x / size.y);
}

// The kernel reads the indices that are set here: not an access of the host's that could race with it.
LMCFAST_UNSEEN inline void start_thread(Block& block, unsigned number) {
  Thread& t = *block.threads[number];
  t.index = unravel(number, machine.block_size);
  t.block = &block;
  t.warp = &block.warps[number / 32];
  t.mates = &block.threads[number / 32 * 32];
  t.lane = number % 32;
  t.site = Site();
  t.operation = Operation::none;
  t.mask = t.parity = t.seen = 0;
  t.running = true;
  prepare(t, thread_main);
  t.warp->lanes |= 1u << t.lane;
}

LMCFAST_UNSEEN inline void start_block(Block& block, unsigned linear) {
  block.linear = linear;
  block.index = unravel(linear, machine.grid_size);
  block.live = unsigned(block.thread_storage.size());
  block.barrier = Barrier();
  block.barrier.expected = block.live;
  block.warp_storage.assign((block.live + 31) / 32, Warp());
  block.threads = {block.thread_storage.data(), block.live};
  block.warps = {block.warp_storage.data(), (block.live + 31) / 32};
  renew_arena(block);
  open_arena(block);
  for (unsigned i = 0; i < block.live; ++i) start_thread(block, i);
  for (Warp& warp : block.warps) warp.alive = warp.ready = warp.lanes;
  machine.counters.threads += block.live;
}

LMCFAST_UNSEEN inline void run_thread(Thread& thread) {
  machine.current = &thread;
  ++machine.counters.switches;
  ++machine.work;
  switch_to_fiber(machine.host, thread);
  machine.current = nullptr;
}

// Each ready lane runs to its next wait (in a random schedule, perhaps not all of them). False: none was ready.
LMCFAST_UNSEEN inline bool run_warp(Block& block, Warp& warp) {
  if (!warp.ready) return false;
  Thread** lanes = &block.threads[unsigned(&warp - block.warps.first) * 32];
  const bool random = machine.options.seed != 0;
  const unsigned first = random ? draw(32) : 0;
  unsigned left = warp.ready;
  while (left && !machine.failed) {
    const unsigned turned = first ? left >> first | left << (32 - first) : left;
    const unsigned lane = (lowest(turned) + first) & 31;
    left &= ~(1u << lane);
    if (warp.ready >> lane & 1) run_thread(*lanes[lane]);
    if (random && draw(16) == 0) break;
  }
  return true;
}

LMCFAST_UNSEEN inline bool run_some() {
  bool progress = false;
  if (machine.options.seed) {
    for (unsigned tries = 0; tries < 16 && !machine.failed; ++tries) {
      Block& block = *machine.resident[draw(machine.resident.count)];
      progress |= run_warp(block, block.warps[draw(block.warps.count)]);
    }
  }
  if (progress) return true;
  for (Block* block : machine.resident)
    for (Warp& warp : block->warps) progress |= run_warp(*block, warp);
  return progress;
}

// Who waits where: places with the number of their threads and the first of them.
inline void describe(const char* what) {
  struct Place {
    const Thread* first;
    unsigned threads;
  };
  std::vector<Place> places;
  for (Block* block : machine.resident) {
    for (const Thread* t : block->threads) {
      if (!(t->warp->alive >> t->lane & 1)) continue;
      const auto here = [&](const Place& p) {
        return p.first->operation == t->operation && same(p.first->site, t->site) && p.first->mask == t->mask;
      };
      const auto found = std::find_if(places.begin(), places.end(), here);
      if (found == places.end()) places.push_back({t, 1});
      else ++found->threads;
    }
  }
  std::size_t used = std::size_t(snprintf(machine.error, sizeof machine.error, "%s", what));
  for (const Place& p : places) {
    if (used + 1 >= sizeof machine.error) break;
    const Thread& t = *p.first;
    used += std::size_t(snprintf(machine.error + used, sizeof machine.error - used,
                                 "; %u threads (first: block %u thread %u) in %s at %s:%d", p.threads, t.block->linear,
                                 number_of(t), name_of(t.operation), t.site.file, t.site.line));
    if (t.operation >= Operation::syncwarp && used + 1 < sizeof machine.error)
      used += std::size_t(snprintf(machine.error + used, sizeof machine.error - used, ", mask 0x%08x", t.mask));
  }
  machine.failed = true;
}

// Cluster by cluster: the blocks of one are alive together.
inline std::vector<unsigned> order_of_clusters(unsigned count) {
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) order[i] = i;
  if (machine.options.seed)
    for (unsigned i = count; i-- > 1;) std::swap(order[i], order[draw(i + 1)]);
  return order;
}

// Moves the blocks that have ended from the resident ones to `spare`.
inline bool retire(std::vector<Block*>& spare) {
  unsigned kept = 0;
  for (Block* block : machine.resident) {
    if (block->live) {
      machine.resident[kept++] = block;
    } else {
      forbid_access(block->arena, block->arena_bytes);
      spare.push_back(block);
    }
  }
  const bool any = kept < machine.resident.count;
  machine.resident.count = kept;
  return any;
}

inline void run_blocks(const std::vector<Block*>& blocks) {
  const unsigned together = machine.cluster_size, count = machine.clusters.count;
  const std::vector<unsigned> order = order_of_clusters(count);
  std::vector<Block*> spare = blocks, resident(blocks.size());
  machine.resident = {resident.data(), 0};
  unsigned next = 0;
  while (!machine.failed) {
    for (; next < count && spare.size() >= together; ++next) {
      for (unsigned k = 0; k < together; ++k) {
        Block* block = spare.back();
        spare.pop_back();
        start_block(*block, order[next] * together + k);
        machine.resident[machine.resident.count++] = block;
      }
    }
    if (machine.resident.count == 0) break;
    const bool ran = run_some(), ended = retire(spare);
    if (machine.failed) break;
    if (!ran && !ended) describe("deadlock");
    if (machine.work > machine.options.work_limit) describe("work limit exceeded (livelock?)");
  }
  machine.resident = {};
}

// Everything of the launch is set; ends with machine.failed and machine.error.
inline void run_grid() {
  const unsigned together = machine.cluster_size;
  const unsigned threads = machine.block_size.x * machine.block_size.y * machine.block_size.z;
  const unsigned blocks = machine.grid_size.x * machine.grid_size.y * machine.grid_size.z;
  std::vector<Barrier> clusters(blocks / together);
  for (Barrier& barrier : clusters) barrier.expected = threads * together;
  machine.clusters = {clusters.data(), unsigned(clusters.size())};
  machine.grid = Barrier();
  machine.grid.expected = threads * blocks;
  const unsigned residency = std::max(together, machine.options.residency / together * together);
  std::vector<Block*> taken;
  if (take_blocks(machine.cooperative ? blocks : std::min(blocks, residency), taken)) {
    order_release(&machine.start_tag);
    run_blocks(taken);
    order_acquire(&machine.end_tag);
  } else {
    snprintf(machine.error, sizeof machine.error, "no memory for more than %u threads at once", machine.stacks);
    machine.failed = true;
  }
  give_back(taken);
  machine.clusters = {};
}

}  // namespace lmcfast::emulation
