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
  __host__ __device__ void take(const char* /*name*/, V*& array, int64_t count) {
    array = base_ ? reinterpret_cast<V*>(base_ + used_) : nullptr;
    used_ = (used_ + sizeof(V) * size_t(count) + 255) / 256 * 256;
  }

  __host__ __device__ size_t used() const { return used_; }

 private:
  unsigned char* base_;
  size_t used_ = 0;
};

// Shows every array of a problem to at.take(name, pointer, entries), in order. `shared_columns`: words, floor prices,
// keys and their minima are in shared memory.
#ifdef __CUDACC__
#pragma nv_exec_check_disable  // a visitor of the host is called there alone
#endif
template <class T, class Visitor>
__host__ __device__ inline void lay_out(State<T>& s, Visitor& at, bool shared_columns) {
  const int64_t rows = s.rows, columns = s.columns;
  const int64_t rounded = (columns + 31) / 32 * 32;
  s.capacity = int(rounded < kList ? rounded : kList);
  at.take("control", s.control, 1);
  if (!shared_columns) {
    at.take("word", s.word, columns);
    at.take("floor_price", s.floor_price, columns);
    at.take("key", s.key, columns);
    at.take("least", s.least, (columns + kChunk - 1) / kChunk);
  }
  at.take("price", s.price, columns);
  at.take("distance", s.distance, columns);
  at.take("reached_from", s.reached_from, columns);
  at.take("row_of", s.row_of, columns);
  at.take("order", s.order, columns);
  at.take("touched", s.touched, columns);
  at.take("list_column", s.list_column, rows * s.capacity);
  at.take("list_score", s.list_score, rows * s.capacity);
  at.take("list_length", s.list_length, rows);
  at.take("bound", s.bound, rows);
  at.take("unit", s.unit, rows);
  at.take("magnitude", s.magnitude, rows);
  at.take("score", s.score, rows);
  at.take("profit", s.profit, rows);
  at.take("queue", s.queue, rows);
  at.take("left", s.left, rows);
  at.take("column_of", s.column_of, rows);
  at.take("label", s.label, rows);
  at.take("tree_end", s.tree_end, rows);
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
