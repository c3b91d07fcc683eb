// What assignment.cu asks of each storage of scores; instantiated in a file of its own for each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "batch.h"
#include "launch.h"

namespace lmcfast::cuda {

struct Entry {
  size_t (*workspace)(int64_t rows, int64_t columns);
  size_t (*batch_workspace)(int64_t rows, int64_t columns);  // of one problem
  Enqueued (*one)(const AssignmentProblem&, const AssignmentOptions&, const Shape&, void*, AssignmentReport*, Stream);
  Enqueued (*resume)(const AssignmentProblem&, const AssignmentOptions&, const Shape&, void*, AssignmentReport*,
                     Stream);
  std::vector<WorkspaceArray> (*arrays)(int64_t rows, int64_t columns);
  Enqueued (*batch)(const BatchArguments&, int64_t count, int64_t longest, unsigned threads, Stream);
};

template <class T>
size_t bytes_needed(int64_t rows, int64_t columns, bool shared_columns) {
  State<T> s = {};
  orient(s, rows, columns, columns, 1);
  Layout at(nullptr);
  lay_out(s, at, shared_columns);
  return at.used();
}

// Notes where each array of a problem lies.
class ArrayNames {
 public:
  template <class V>
  void take(const char* name, V*& array, int64_t count) {
    arrays_.push_back({name, int64_t(sizes_.used()), count, int(sizeof(V)), std::is_floating_point_v<V>});
    sizes_.take(name, array, count);
  }
  const std::vector<WorkspaceArray>& arrays() const { return arrays_; }

 private:
  Layout sizes_{nullptr};
  std::vector<WorkspaceArray> arrays_;
};

template <class T>
std::vector<WorkspaceArray> name_arrays(int64_t rows, int64_t columns) {
  State<T> s = {};
  orient(s, rows, columns, columns, 1);
  ArrayNames at;
  lay_out(s, at, false);
  std::vector<WorkspaceArray> arrays = at.arrays();
  const auto field = [&](const char* name, size_t offset, int size, bool floating) {
    arrays.push_back({name, int64_t(offset), 1, size, floating});
  };
  field("delta", offsetof(Control, delta), 8, true);
  field("sigma", offsetof(Control, sigma), 8, true);
  field("eps", offsetof(Control, eps), 8, true);
  field("rows_left", offsetof(Control, left), 4, false);
  field("rows_queued", offsetof(Control, count), 4, false);
  field("phase", offsetof(Control, phase), 4, false);
  field("finished", offsetof(Control, finished), 4, false);
  field("settled", offsetof(Control, settled), 4, false);
  return arrays;
}

template <class T>
Enqueued enqueue_blocks(const BatchArguments& a, int64_t count, int64_t longest, unsigned threads, Stream stream) {
  Launch launch_at;
  launch_at.grid = dim3(unsigned(count));
  launch_at.block = dim3(std::min(threads, unsigned(kBatchThreads<T>)));
  launch_at.shared = batch_shared_bytes(longest);
  launch_at.stream = static_cast<cudaStream_t>(stream);
  return {int(launch(launch_at, batch_kernel<T>, a)), 1};
}

template <class T>
constexpr Entry make_entry() {
  return {[](int64_t rows, int64_t columns) { return bytes_needed<T>(rows, columns, false); },
          [](int64_t rows, int64_t columns) { return bytes_needed<T>(rows, columns, true); },
          enqueue_one<T>,
          enqueue_more_paths<T>,
          name_arrays<T>,
          enqueue_blocks<T>};
}

extern const Entry kFloat32, kFloat64, kBfloat16, kFloat16;

}  // namespace lmcfast::cuda
