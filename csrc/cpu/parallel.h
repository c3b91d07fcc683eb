// Ranges of rows on several threads, for files of a vector level.
#pragma once

#include "pool.h"
#include "vector.h"

namespace lmcfast::LMCFAST_LEVEL {

// Calls body(begin, end) for consecutive ranges of [0, count) of `size` each, on up to `threads` threads. The body
// writes only what belongs to its range, so the result does not depend on the number of threads.
template <class Body>
void in_ranges(int threads, int count, int size, const Body& body) {
  if (threads <= 1 || count <= size) return body(0, count);
  struct Job {
    const Body& body;
    int count, size;
  } job{body, count, size};
  const auto range = [](void* argument, int64_t k) {
    const Job& j = *static_cast<const Job*>(argument);
    const int begin = int(k) * j.size, end = begin + j.size < j.count ? begin + j.size : j.count;
    j.body(begin, end);
  };
  parallel_for((count + size - 1) / size, threads, range, &job);
}

}  // namespace lmcfast::LMCFAST_LEVEL
