// Threads that stay between calls: starting one costs as much as a 64x64 problem.
#pragma once

#include <cstdint>
#include <functional>

namespace lmcfast {

// Calls task(index) for every index in [0, count), on at most `threads` threads including the calling one, and returns
// when all have ended. Indices are handed out in ascending order; the caller's thread takes part. `task` must not throw
// and must not call parallel_for. A second caller at the same time runs its own tasks alone, on its own thread.
// A forked child starts with no threads and makes its own.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& task);

}  // namespace lmcfast
