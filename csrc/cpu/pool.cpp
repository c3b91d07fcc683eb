#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace lmcfast {

namespace {

struct Task {
  void (*call)(void*, int64_t);
  void* argument;
};

class Pool {
 public:
  // Returns the first exception of a task.
  std::exception_ptr run(int64_t count, int threads, const Task& task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      add_workers(threads - 1);
      task_ = &task;
      count_ = count;
      failure_ = nullptr;
      next_.store(0);
      wanted_ = threads - 1;
      ++round_;
    }
    wake_.notify_all();
    drain(task, count);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // workers that have not woken yet have nothing left to do
    done_.wait(lock, [this] { return active_ == 0; });
    task_ = nullptr;
    return failure_;
  }

 private:
  void add_workers(int count) {
    try {
      while (int(workers_.size()) < count) workers_.emplace_back([this] { work(); });
    } catch (const std::exception&) {  // no more threads or memory to be had: the threads that exist do the work
    }
  }

  void drain(const Task& task, int64_t count) {
    try {
      for (int64_t k; (k = next_.fetch_add(1)) < count;) task.call(task.argument, k);
    } catch (...) {
      next_.store(count);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void work() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (wanted_ == 0) continue;
      --wanted_;
      ++active_;
      const Task* const task = task_;
      const int64_t count = count_;
      lock.unlock();
      drain(*task, count);
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const Task* task_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  int wanted_ = 0, active_ = 0;
  uint64_t round_ = 0;
  std::exception_ptr failure_;
};

// Never destroyed: its threads sleep until the process ends, and destructors of statics may still solve.
std::atomic<Pool*> pool{nullptr};
std::atomic<bool> busy{false};

Pool& the_pool() {
  Pool* p = pool.load();
  if (!p) {
    static const bool registered = [] {
      return pthread_atfork(nullptr, nullptr, [] {
               pool.store(nullptr);  // its threads do not exist in the child
               busy.store(false);
             }) == 0;
    }();
    (void)registered;
    p = new Pool;
    pool.store(p);
  }
  return *p;
}

}  // namespace

void parallel_for(int64_t count, int threads, void (*task)(void*, int64_t), void* argument) {
  if (threads > count) threads = int(count);
  bool expected = false;
  if (threads <= 1 || !busy.compare_exchange_strong(expected, true)) {
    for (int64_t k = 0; k < count; ++k) task(argument, k);
    return;
  }
  const std::exception_ptr failure = the_pool().run(count, threads, {task, argument});
  busy.store(false);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace lmcfast
