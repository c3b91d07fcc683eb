// What assignment.cu asks of each storage of scores; instantiated in a file of its own for each.
#pragma once

#include "batch.h"
#include "launch.h"

namespace lmcfast::cuda {

struct Entry {
  size_t (*workspace)(int64_t rows, int64_t columns);
  size_t (*batch_workspace)(int64_t rows, int64_t columns);  // of one problem
  Enqueued (*one)(const AssignmentProblem&, const AssignmentOptions&, const Shape&, void*, AssignmentReport*, Stream);
  Enqueued (*resume)(const AssignmentProblem&, const AssignmentOptions&, const Shape&, void*, AssignmentReport*,
                     Stream);
  Enqueued (*batch)(const BatchArguments&, int64_t count, int64_t longest, unsigned threads, Stream);
};

template <class T>
size_t bytes_needed(int64_t rows, int64_t columns, bool shared_columns) {
  State<T> s = {};
  orient(s, rows, columns, columns, 1);
  return lay_out(s, nullptr, shared_columns);
}

template <class T>
Enqueued enqueue_blocks(const BatchArguments& a, int64_t count, int64_t longest, unsigned threads, Stream stream) {
  Launch launch_at;
  launch_at.grid = dim3(unsigned(count));
  launch_at.block = dim3(threads);
  launch_at.shared = batch_shared_bytes(longest);
  launch_at.stream = static_cast<cudaStream_t>(stream);
  return {int(launch(launch_at, batch_kernel<T>, a)), 1};
}

template <class T>
constexpr Entry make_entry() {
  return {[](int64_t rows, int64_t columns) { return bytes_needed<T>(rows, columns, false); },
          [](int64_t rows, int64_t columns) { return bytes_needed<T>(rows, columns, true); }, enqueue_one<T>,
          enqueue_more_paths<T>, enqueue_blocks<T>};
}

extern const Entry kFloat32, kFloat64, kBfloat16, kFloat16;

}  // namespace lmcfast::cuda
