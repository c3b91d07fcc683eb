// Warp operations, all on one primitive: lanes leave a record, the last to arrive works out everybody's result.
#pragma once

#include "barrier.h"

namespace lmcfast::emulation {

// Posts by lane; those of lanes outside the mask are null.
using Complete = void (*)(void** posts, unsigned mask);

LMCFAST_UNSEEN inline unsigned lowest(unsigned mask) { return unsigned(__builtin_ctz(mask)); }

LMCFAST_UNSEEN inline void fail_collective(const Thread& a, const Thread& b) {
  fail("warp divergence in block %u: %s at %s:%d (lane %u, mask 0x%08x) against %s at %s:%d (lane %u, mask 0x%08x)",
       a.block->linear, name_of(a.operation), a.site.file, a.site.line, a.lane, a.mask, name_of(b.operation),
       b.site.file, b.site.line, b.lane, b.mask);
}

LMCFAST_UNSEEN inline void fail_exited(const Thread& t, unsigned missing) {
  fail("%s at %s:%d (block %u, lane %u): mask 0x%08x names lane %u, which has exited or does not exist",
       name_of(t.operation), t.site.file, t.site.line, t.block->linear, t.lane, t.mask, lowest(missing));
}

LMCFAST_UNSEEN inline bool agree(const Thread& a, const Thread& b) {
  return a.mask == b.mask && a.operation == b.operation && same(a.site, b.site);
}

LMCFAST_UNSEEN inline void check_arrival(const Thread& t) {
  const Warp& warp = *t.warp;
  if (!(t.mask >> t.lane & 1))
    fail("%s at %s:%d (block %u): lane %u is not in its mask 0x%08x", name_of(t.operation), t.site.file, t.site.line,
         t.block->linear, t.lane, t.mask);
  if (t.mask & ~warp.alive) fail_exited(t, t.mask & ~warp.alive);
  // One of those that wait is enough here: the others are compared when all have come, or told when none can go on.
  const unsigned waiting = warp.in_collective & t.mask;
  if (!waiting) return;
  const Thread& other = *t.mates[lowest(waiting)];
  if (other.mask >> t.lane & 1 && !agree(t, other)) fail_collective(t, other);
}

// ThreadSanitizer's order for __syncwarp. All lanes: one pair of tags of the warp. Some of them: a pair for each lane.
struct WarpOrder {
  bool whole = false;
  char* tag = nullptr;
};
LMCFAST_UNSEEN inline WarpOrder release_lane(Thread& t) {
  WarpOrder order;
  order.whole = t.mask == t.warp->lanes;
  order.tag = order.whole ? &t.warp->tag[t.warp->parity] : &t.tag[t.parity];
  order_release(order.tag);
  return order;
}
LMCFAST_UNSEEN inline void acquire_lanes(Thread& t, const WarpOrder& order) {
  if (order.whole) return order_acquire(order.tag);
  for (unsigned m = t.mask; m; m &= m - 1) order_acquire(&t.mates[lowest(m)]->tag[t.seen >> lowest(m) & 1]);
}
// Called by the last lane, before any other lane goes on.
LMCFAST_UNSEEN inline void fix_order(Thread& t, const WarpOrder& order) {
  if (order.whole) {
    t.warp->parity ^= 1;
    return;
  }
  unsigned parities = 0;
  for (unsigned m = t.mask; m; m &= m - 1) parities |= t.mates[lowest(m)]->parity << lowest(m);
  for (unsigned m = t.mask; m; m &= m - 1) {
    Thread& mate = *t.mates[lowest(m)];
    mate.seen = parities;
    mate.parity ^= 1;
  }
}

// `orders`: accesses before it come before the accesses after it, in all lanes of the mask (__syncwarp does this;
// shuffles and votes do not).
LMCFAST_UNSEEN inline void collective(unsigned mask, Operation operation, void* post, Complete complete, bool orders,
                                      Site site) {
  Thread& t = self();
  Warp& warp = *t.warp;
  const unsigned bit = 1u << t.lane;
  t.mask = mask;
  t.operation = operation;
  t.post = post;
  t.site = site;
  check_arrival(t);
  const WarpOrder order = race_detection && orders ? release_lane(t) : WarpOrder();
  warp.in_collective |= bit;
  if ((warp.in_collective & mask) != mask) {
    warp.ready &= ~bit;
    yield();
  } else {
    void* posts[32] = {};
    for (unsigned m = mask; m; m &= m - 1) {
      const Thread& mate = *t.mates[lowest(m)];
      if (!agree(t, mate)) fail_collective(t, mate);
      posts[mate.lane] = mate.post;
    }
    if (complete) complete(posts, mask);
    if (race_detection && orders) fix_order(t, order);
    ++machine.counters.warp_operations;
    warp.in_collective &= ~mask;
    warp.ready |= mask;
  }
  if (race_detection && orders) acquire_lanes(t, order);
}

// A lane that exits while others wait for it.
LMCFAST_UNSEEN inline void check_exit(const Thread& t) {
  for (unsigned m = t.warp->in_collective; m; m &= m - 1) {
    const Thread& mate = *t.mates[lowest(m)];
    if (mate.mask >> t.lane & 1) fail_exited(mate, 1u << t.lane);
  }
}

template <class T>
struct Post {
  T value, result;
  unsigned from;  // the lane to read
};

template <class T>
LMCFAST_UNSEEN inline Post<T>& post_of(void** posts, unsigned lane) {
  return *static_cast<Post<T>*>(posts[lane]);
}

// Reading a lane outside the mask gives an undefined value on the device (and is harmless if nobody uses it): here
// bytes that no kernel counts on.
template <class T>
LMCFAST_UNSEEN inline T undefined_value() {
  T value;
  std::memset(&value, 0xAB, sizeof value);
  return value;
}

template <class T>
LMCFAST_UNSEEN inline void exchange(void** posts, unsigned mask) {
  for (unsigned m = mask; m; m &= m - 1) {
    Post<T>& mine = post_of<T>(posts, lowest(m));
    mine.result = mask >> mine.from & 1 ? post_of<T>(posts, mine.from).value : undefined_value<T>();
  }
}

template <class T>
LMCFAST_UNSEEN inline T shuffle(unsigned mask, T value, unsigned from, Operation operation, Site site) {
  Post<T> post{value, value, from};
  collective(mask, operation, &post, exchange<T>, false, site);
  return post.result;
}

struct Max {
  template <class T>
  LMCFAST_UNSEEN static T of(T a, T b) {
    return a > b ? a : b;
  }
};
struct Min {
  template <class T>
  LMCFAST_UNSEEN static T of(T a, T b) {
    return a < b ? a : b;
  }
};
struct Add {
  template <class T>
  LMCFAST_UNSEEN static T of(T a, T b) {
    return T(a + b);
  }
};
struct And {
  template <class T>
  LMCFAST_UNSEEN static T of(T a, T b) {
    return T(a & b);
  }
};
struct Or {
  template <class T>
  LMCFAST_UNSEEN static T of(T a, T b) {
    return T(a | b);
  }
};
struct Xor {
  template <class T>
  LMCFAST_UNSEEN static T of(T a, T b) {
    return T(a ^ b);
  }
};

template <class F, class T>
LMCFAST_UNSEEN inline void fold(void** posts, unsigned mask) {
  T result = post_of<T>(posts, lowest(mask)).value;
  for (unsigned m = mask & (mask - 1); m; m &= m - 1) result = F::of(result, post_of<T>(posts, lowest(m)).value);
  for (unsigned m = mask; m; m &= m - 1) post_of<T>(posts, lowest(m)).result = result;
}

template <class F, class T>
LMCFAST_UNSEEN inline T reduce(unsigned mask, T value, Operation operation, Site site) {
  Post<T> post{value, value, 0};
  collective(mask, operation, &post, fold<F, T>, false, site);
  return post.result;
}

template <class T>
LMCFAST_UNSEEN inline void match(void** posts, unsigned mask) {
  for (unsigned m = mask; m; m &= m - 1) {
    Post<T>& mine = post_of<T>(posts, lowest(m));
    mine.from = 0;
    for (unsigned k = mask; k; k &= k - 1)
      if (post_of<T>(posts, lowest(k)).value == mine.value) mine.from |= 1u << lowest(k);
  }
}

}  // namespace lmcfast::emulation
