// Threads that stay between calls: starting one costs as much as a 64x64 problem.
#pragma once

#include <cstdint>

namespace lmcfast {

// Calls task(argument, index) for every index in [0, count), on at most `threads` threads including the calling one,
// and returns when all have ended. Indices are handed out in ascending order; the caller's thread takes part. The first
// exception of a task is thrown again here, after the others have ended. A task that calls parallel_for, and a second
// caller at the same time, run their own tasks alone, on their own thread. A forked child starts with no threads and
// makes its own. A function pointer and not a std::function: see state.h on what levels may share.
void parallel_for(int64_t count, int threads, void (*task)(void*, int64_t), void* argument);

}  // namespace lmcfast
