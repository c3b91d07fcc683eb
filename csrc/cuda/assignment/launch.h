// Host: the stages of one problem as launches on the caller's stream, in a fixed number and order.
#pragma once

#include "kernels.h"
#include "layout.h"

namespace lmcfast::cuda {

struct Shape {
  unsigned blocks, threads;  // of kernels over the whole device
  unsigned chain_blocks, chain_threads;
  unsigned path_threads;  // of the one block of the shortest paths
  bool shared_least, shared_keys;
  size_t shared_most;  // bytes of dynamic shared memory that a block may have
};

template <class T>
State<T> make_state(const AssignmentProblem& p, const AssignmentOptions& o, void* workspace, AssignmentReport* report) {
  State<T> s = {};
  s.scores = static_cast<const T*>(p.scores);
  s.sign = o.maximize ? 1 : -1;
  orient(s, p.rows, p.columns, p.row_stride, p.column_stride);
  s.full_list = o.full_list;
  s.deterministic = o.deterministic;
  s.bid_limit = o.bid_limit;
  s.start_prices = s.rows == s.columns ? p.start_prices : nullptr;
  s.columns_out = p.columns_out;
  s.prices_out = p.prices_out;
  s.profits_out = p.profits_out;
  s.report = report;
  Layout at(workspace);
  lay_out(s, at, false);
  return s;
}

// Leaves to shared memory what fits there.
template <class T>
State<T> place_columns(State<T> s, const Shape& shape) {
  if (shape.shared_least) s.least = nullptr;
  if (shape.shared_keys) s.key = nullptr;
  return s;
}

// Launches in order; after an error nothing more is launched.
template <class T>
class Queue {
 public:
  // `most`: launches after which the rest is left out.
  Queue(const State<T>& state, const Shape& shape, int most, Stream stream)
      : state_(state), shape_(shape), most_(most), stream_(stream) {}

  template <class... P, class... A>
  void run(unsigned blocks, unsigned threads, size_t shared, void (*kernel)(P...), A... arguments) {
    if (error_ != 0 || launches_ == most_) return;
    Launch launch_at;
    launch_at.grid = dim3(blocks);
    launch_at.block = dim3(threads);
    launch_at.shared = shared;
    launch_at.stream = static_cast<cudaStream_t>(stream_);
    error_ = int(launch(launch_at, kernel, arguments...));
    launches_++;
  }

  void everywhere(void (*kernel)(State<T>)) { run(shape_.blocks, shape_.threads, 0, kernel, state_); }
  void chains(void (*kernel)(State<T>)) { run(shape_.chain_blocks, shape_.chain_threads, 0, kernel, state_); }
  void one_block(void (*kernel)(State<T>)) { run(1, 256, 0, kernel, state_); }
  void one_thread(void (*kernel)(State<T>)) { run(1, 32, 0, kernel, state_); }

  template <class... P, class... A>
  void path_block(void (*kernel)(P...), A... arguments) {
    const size_t shared = shape_.shared_least ? path_bytes(state_.columns, shape_.shared_keys) : 0;
    run(1, shape_.path_threads, shared, kernel, state_, arguments...);
  }

  Enqueued result() const { return {error_, launches_}; }

 private:
  const State<T>& state_;
  const Shape& shape_;
  int most_;
  Stream stream_;
  int error_ = 0, launches_ = 0;
};

template <class T>
void enqueue_end(Queue<T>& queue) {
  queue.everywhere(read_profits_kernel<T>);
  queue.one_block(certify_kernel<T>);
  queue.everywhere(publish_kernel<T>);
}

// A row is held in shared memory where it fits there, two of them in a multiprocessor if possible (which has the
// block's limit and 1 KiB, and takes 1 KiB for each block): while one is read the other is gone through again.
//
// Other rows are read twice. Few are read at a time, so that they are in the cache when they come again: with four
// blocks for each multiprocessor in `shape`, two rows for each.
template <class T>
void enqueue_lists(Queue<T>& queue, const State<T>& s, const Shape& shape) {
  constexpr int64_t long_row = 16 << 10;  // bytes
  constexpr size_t reserved = 1024;
  const size_t held = held_bytes<T>(s.columns);
  const bool few = s.columns * int64_t(sizeof(T)) > long_row;
  const auto blocks = [&](int64_t most) { return unsigned(std::min<int64_t>(s.rows, std::max<int64_t>(most, 1))); };
  if (held > shape.shared_most) {
    queue.run(blocks(shape.blocks / 2), 512, 0, scan_kernel<T>, s);
  } else if (few) {
    const bool two = 2 * (held + reserved) <= shape.shared_most + reserved;
    queue.run(blocks(shape.blocks), two ? 512 : kHeldThreads, held, scan_held_kernel<T>, s);
  } else {
    queue.run(blocks(int64_t(shape.blocks) * 8), 128, held, scan_held_kernel<T>, s);
  }
}

inline u64 step_limit(const AssignmentOptions& o, int columns) {
  return o.step_limit > 0 ? u64(o.step_limit) : 200 * u64(columns) + 1000;
}

template <class T>
Enqueued enqueue_one(const AssignmentProblem& p, const AssignmentOptions& o, const Shape& shape, void* workspace,
                     AssignmentReport* report, Stream stream) {
  const State<T> s = place_columns(make_state<T>(p, o, workspace, report), shape);
  Queue<T> queue(s, shape, o.launches, stream);
  queue.everywhere(clear_kernel<T>);
  if (s.start_prices) {
    queue.everywhere(read_start_prices_kernel<T>);
    queue.one_block(shift_start_prices_kernel<T>);
  }
  if (o.deterministic) queue.everywhere(scan_in_order_kernel<T>);
  else enqueue_lists(queue, s, shape);
  queue.one_block(plan_kernel<T>);
  const int slots = s.rows == s.columns ? kSlots : 1;
  for (int k = 0; k < slots; k++) {
    queue.everywhere(begin_phase_kernel<T>);
    queue.chains(chains_kernel<T>);
    if (k == 0) queue.path_block(attempt_kernel<T>);
    queue.one_thread(advance_kernel<T>);
  }
  if (s.rows == s.columns) {
    queue.everywhere(forget_columns_kernel<T>);
    queue.everywhere(read_owners_kernel<T>);
    queue.chains(release_loose_rows_kernel<T>);
    queue.one_thread(begin_exact_bids_kernel<T>);
    queue.chains(exact_bids_kernel<T>);
    queue.everywhere(forget_columns_kernel<T>);
    queue.everywhere(read_words_kernel<T>);
    queue.everywhere(write_profits_kernel<T>);
    queue.everywhere(lower_free_columns_kernel<T>);
    queue.everywhere(rebuild_exceeded_lists_kernel<T>);
  }
  queue.path_block(paths_kernel<T>, step_limit(o, s.columns), true);
  enqueue_end(queue);
  return queue.result();
}

template <class T>
Enqueued enqueue_more_paths(const AssignmentProblem& p, const AssignmentOptions& o, const Shape& shape, void* workspace,
                            AssignmentReport* report, Stream stream) {
  const State<T> s = place_columns(make_state<T>(p, o, workspace, report), shape);
  Queue<T> queue(s, shape, o.launches, stream);
  queue.path_block(paths_kernel<T>, step_limit(o, s.columns), false);
  enqueue_end(queue);
  return queue.result();
}

}  // namespace lmcfast::cuda
