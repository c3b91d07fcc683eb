// The rows of a matrix whose columns lie side by side, copied only when they are asked for.
#pragma once

#include "transpose.h"
#include "workspace.h"

namespace lmcfast::LMCFAST_LEVEL {

// A problem with more rows than columns is solved as its transpose. Its lists are built in the order of storage
// (tall_scan.h), or from a strip of rows at a time, transposed within the cache, and most solves then need no row
// again; so the transpose as a whole is seldom written. A row that is needed comes with those of its strip, whose
// scores lie in the same cache lines; when many are, the rest follows at once.
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
    if (!complete_ && !copied_[i / kStrip]) fetch(i / kStrip);
    return copy_ + int64_t(i) * columns_;
  }

  // To be called before several threads ask for rows.
  void fetch_all() {
    if (!complete_) read(0, rows_, copy_, columns_);
    complete_ = true;
  }
  bool complete() const { return complete_; }

  // Whether rows that are all needed once are read faster by strips than copied by blocks. A strip visits every page of
  // the matrix, and in larger ones, on ordinary pages, it waits for the translation of addresses.
  static bool suits_strips(int rows, int columns) {
    return int64_t(rows) * columns * int64_t(sizeof(T)) <= int64_t(1) << 21;
  }

  // To be called before all rows are read once, in order.
  void prepare_for_all() {
    if (!suits_strips(rows_, columns_)) fetch_all();
  }

  // Writes rows begin, ..., end - 1 to `to`, `row_stride` apart.
  void read(int begin, int end, T* to, int64_t row_stride) const {
    copy_transposed(from_ + begin, end - begin, columns_, column_stride_, to, row_stride);
  }

 private:
  int strips() const { return (rows_ + kStrip - 1) / kStrip; }

  void fetch(int k) {
    if (++fetched_ > strips() / 8 + 1) return fetch_all();
    const int begin = k * kStrip, end = begin + kStrip < rows_ ? begin + kStrip : rows_;
    read(begin, end, copy_ + int64_t(begin) * columns_, columns_);
    copied_[k] = true;
  }

  const T* from_;
  int rows_, columns_;
  int64_t column_stride_;
  T* copy_;
  bool* copied_;
  int fetched_ = 0;  // strips
  bool complete_ = false;
};

}  // namespace lmcfast::LMCFAST_LEVEL
