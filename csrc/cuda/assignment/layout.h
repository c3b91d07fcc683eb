// Host: where the arrays of a problem lie in the caller's workspace.
#pragma once

#include <algorithm>

#include "state.h"

namespace lmcfast::cuda {

// Hands out aligned parts of a workspace; from a null pointer it only adds up their sizes.
class Layout {
 public:
  __host__ __device__ explicit Layout(void* base) : base_(static_cast<unsigned char*>(base)) {}

  template <class V>
  __host__ __device__ void take(V*& array, int64_t count) {
    array = base_ ? reinterpret_cast<V*>(base_ + used_) : nullptr;
    used_ = (used_ + sizeof(V) * size_t(count) + 255) / 256 * 256;
  }

  __host__ __device__ size_t used() const { return used_; }

 private:
  unsigned char* base_;
  size_t used_ = 0;
};

// `shared_columns`: words, floor prices and keys are in shared memory.
template <class T>
__host__ __device__ inline size_t lay_out(State<T>& s, void* workspace, bool shared_columns) {
  Layout at(workspace);
  const int64_t rows = s.rows, columns = s.columns;
  const int64_t rounded = (columns + 31) / 32 * 32;
  s.capacity = int(rounded < kList ? rounded : kList);
  at.take(s.control, 1);
  if (!shared_columns) {
    at.take(s.word, columns);
    at.take(s.floor_price, columns);
    at.take(s.key, columns);
  }
  at.take(s.price, columns);
  at.take(s.distance, columns);
  at.take(s.reached_from, columns);
  at.take(s.row_of, columns);
  at.take(s.order, columns);
  at.take(s.touched, columns);
  at.take(s.list_column, rows * s.capacity);
  at.take(s.list_score, rows * s.capacity);
  at.take(s.list_length, rows);
  at.take(s.bound, rows);
  at.take(s.spread, rows);
  at.take(s.magnitude, rows);
  at.take(s.score, rows);
  at.take(s.profit, rows);
  at.take(s.queue, rows);
  at.take(s.left, rows);
  at.take(s.column_of, rows);
  at.take(s.label, rows);
  at.take(s.tree_end, rows);
  return at.used();
}

// The solver's orientation: the smaller side bids; a square matrix is read along the axis whose entries lie together.
template <class T>
__host__ __device__ inline void orient(State<T>& s, int64_t rows, int64_t columns, int64_t row_stride,
                                       int64_t column_stride) {
  s.swapped = rows > columns || (rows == columns && column_stride != 1 && row_stride == 1);
  s.rows = int(s.swapped ? columns : rows);
  s.columns = int(s.swapped ? rows : columns);
  s.row_stride = s.swapped ? column_stride : row_stride;
  s.column_stride = s.swapped ? row_stride : column_stride;
}

}  // namespace lmcfast::cuda
