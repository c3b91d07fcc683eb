#include "pool.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace lmcfast {

namespace {

class Pool {
 public:
  void run(int64_t count, int threads, const std::function<void(int64_t)>& task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (int(workers_.size()) < threads - 1) workers_.emplace_back([this] { work(); });
      task_ = &task;
      count_ = count;
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
  }

 private:
  void drain(const std::function<void(int64_t)>& task, int64_t count) {
    for (int64_t k; (k = next_.fetch_add(1)) < count;) task(k);
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
      const auto* task = task_;
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
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  int wanted_ = 0, active_ = 0;
  uint64_t round_ = 0;
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

void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& task) {
  if (threads > count) threads = int(count);
  bool expected = false;
  if (threads <= 1 || !busy.compare_exchange_strong(expected, true)) {
    for (int64_t k = 0; k < count; ++k) task(k);
    return;
  }
  the_pool().run(count, threads, task);
  busy.store(false);
}

}  // namespace lmcfast
