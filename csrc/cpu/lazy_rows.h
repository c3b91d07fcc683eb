// The rows of a matrix whose columns lie side by side, copied only when they are asked for.
#pragma once

#include "transpose.h"
#include "workspace.h"

namespace lmcfast::LMCFAST_LEVEL {

// A problem with more rows than columns is solved as its transpose. Its lists are built from a strip of rows at a time,
// transposed within the cache, and most solves then need no row again; so the transpose as a whole is never written.
// A row that is needed comes with those of its strip, whose scores lie in the same cache lines.
template <class T>
class LazyRows {
 public:
  static constexpr int kStrip = 32;  // rows: whole cache lines of a column

  LazyRows(const T* from, int rows, int columns, int64_t column_stride)
      : from_(from), rows_(rows), columns_(columns), column_stride_(column_stride) {
    Workspace& w = Workspace::of_this_thread();
    copy_ = w.take<T>(int64_t(rows) * columns);  // memory that is never written takes no room
    copied_ = w.take<bool>(strips());
    for (int k = 0; k < strips(); ++k) copied_[k] = false;
  }

  const T* row(int i) {
    const int k = i / kStrip;
    if (!copied_[k]) fetch(k);
    return copy_ + int64_t(i) * columns_;
  }

  // To be called before several threads ask for rows.
  void fetch_all() {
    for (int k = 0; k < strips(); ++k)
      if (!copied_[k]) fetch(k);
  }

  // Writes rows begin, ..., end - 1 to `to`, `row_stride` apart.
  void read(int begin, int end, T* to, int64_t row_stride) const {
    copy_transposed(from_ + begin, end - begin, columns_, column_stride_, to, row_stride);
  }

 private:
  int strips() const { return (rows_ + kStrip - 1) / kStrip; }

  void fetch(int k) {
    const int begin = k * kStrip, end = begin + kStrip < rows_ ? begin + kStrip : rows_;
    read(begin, end, copy_ + int64_t(begin) * columns_, columns_);
    copied_[k] = true;
  }

  const T* from_;
  int rows_, columns_;
  int64_t column_stride_;
  T* copy_;
  bool* copied_;
};

}  // namespace lmcfast::LMCFAST_LEVEL
