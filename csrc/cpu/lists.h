// Candidate lists: the best few columns of every row, with a bound on all others.
//
// For row i the list holds columns L[i] with their scores as of the last scan of the row, and bound[i] is an upper
// bound on a[i,j] - p[j] over every column outside the list. While prices only rise the bound stays valid without being
// touched (float64 subtraction is monotone, so this holds for the rounded values too). So the best value of a row is
// known exactly whenever the best value inside its list is >= bound[i]; only otherwise is the whole row read again.
// Everything between two reads works on a few hundred bytes in the cache.
#pragma once

#include <type_traits>

#include "list_scan.h"
#include "parallel.h"
#include "tall_scan.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class T>
class Lists {
 public:
  explicit Lists(State<T>& s) : s_(s) {
    Workspace& w = Workspace::of_this_thread();
    length_ = w.take<int>(s.rows);
    bound_ = w.take<double>(s.rows);
    scans_ = w.take<unsigned char>(s.rows);
    usual_columns_ = w.take<int>(int64_t(s.rows) * kRoom);
    usual_scores_ = w.take<T>(int64_t(s.rows) * kRoom);
    long_lists_ = w.take<LongList*>(s.rows);
    for (int i = 0; i < s.rows; ++i) {
      length_[i] = scans_[i] = 0;
      long_lists_[i] = nullptr;
    }
  }
  ~Lists() {
    for (int i = 0; i < s_.rows; ++i) std::free(long_lists_[i]);
  }
  Lists(const Lists&) = delete;
  Lists& operator=(const Lists&) = delete;

  // Lists of all rows at the present prices.
  void build_all() {
    in_ranges(s_.work->threads, s_.rows, kRowsPerTask, [&](int begin, int end) {
      for_rows(begin, end, [&](int i, const T* row, int64_t next_row) { scan(i, row, next_row); });
    });
    s_.work->counts.scores_read += int64_t(s_.rows) * s_.columns;
  }

  // The same for float32 scores, at the present prices or, where they are as they are, at zero prices. Looks at every
  // score on the way and returns infinity if one is infinite or NaN, else a finite magnitude.
  float build_all_and_check(bool at_zero_prices) {
    float seen = 0;
    if (s_.lazy && at_zero_prices && build_in_storage_order(&seen)) return seen;
    if (s_.lazy) s_.lazy->prepare_for_all();
    const Workspace::Frame frame(Workspace::of_this_thread());
    float* const largest = Workspace::of_this_thread().take<float>(s_.rows);
    float* const price = Workspace::of_this_thread().take<float>(s_.columns);
    for (int j = 0; j < s_.columns; ++j) price[j] = rounded_down(s_.price[j]);
    in_ranges(s_.work->threads, s_.rows, kRowsPerTask, [&](int begin, int end) {
      for_rows(begin, end, [&](int i, const float* row, int64_t next_row) {
        Magnitude seen;
        if (at_zero_prices) scan_and_look(i, PlainFloats{row, float(s_.sign)}, next_row, seen);
        else scan_and_look(i, RoundedValues{row, price, float(s_.sign)}, next_row, seen);
        largest[i] = seen.largest();
      });
    });
    s_.work->counts.scores_read += int64_t(s_.rows) * s_.columns;
    float most = 0;
    for (int i = 0; i < s_.rows; ++i) most = largest[i] > most ? largest[i] : most;
    return most;
  }

  // Reads row i again, at the present prices.
  void rebuild(int i) {
    ++s_.work->counts.rescans;
    s_.work->counts.scores_read += s_.columns;
    if (scans_[i] < 255) ++scans_[i];
    scan(i, s_.row(i), 0);
  }

  int length(int i) const { return length_[i]; }
  const int* columns(int i) const {
    return long_lists_[i] ? long_lists_[i]->columns : usual_columns_ + int64_t(i) * kRoom;
  }
  // Maximised: sign * stored score.
  const T* scores(int i) const { return long_lists_[i] ? long_lists_[i]->scores : usual_scores_ + int64_t(i) * kRoom; }
  double bound(int i) const { return bound_[i]; }

  // The two best values inside the list of row i. The list is padded to whole vectors with forbidden pairs.
  BestTwo best_in_list(int i) const {
    if (length_[i] == 0) return {-kInf, -kInf, -1};
    Doubles first = broadcast(-kInf), second = first;
    Indices at = broadcast(int64_t(0)), position = lane_numbers();
    const int* const columns = this->columns(i);
    const T* const scores = this->scores(i);
    for (int k = 0; k < length_[i]; k += kLanes) {
      const Doubles v = load(scores + k) - gather(s_.price, columns + k);
      const Mask better = less(first, v);
      second = max(second, min(v, first));
      at = select(better, position, at);
      first = max(first, v);
      position += kLanes;
    }
    BestTwo best = top_two(first, second, [&](int lane) { return columns[at[lane]]; });
    if (best.first == -kInf) best.column = -1;
    return best;
  }

  // The best value of the whole row exactly, and an upper bound on the second best.
  BestTwo best(int i) {
    BestTwo b = best_in_list(i);
    if (b.first < bound_[i]) {
      rebuild(i);
      b = best_in_list(i);
    }
    b.second = larger(b.second, bound_[i]);
    return b;
  }

  // A free column inside the list of row i that is worth exactly `value`, or -1.
  int free_column_worth(int i, double value) const {
    const int* const columns = this->columns(i);
    const T* const scores = this->scores(i);
    for (int k = 0; k < length_[i]; ++k)
      if (s_.row_of[columns[k]] < 0 && double(scores[k]) - s_.price[columns[k]] == value) return columns[k];
    return -1;
  }

 private:
  static constexpr int kRoom = 96;  // entries of an ordinary list
  static constexpr int kRowsPerTask = 64;
  static constexpr int kNotBuilt = -1;  // as a length

  // Memory of its own for a row whose list has once outgrown its room.
  struct LongList {
    int columns[kMost];
    T scores[kMost];
  };

  // visit(i, row i, distance in elements to the next row or 0) for a range of rows.
  template <class Visit>
  void for_rows(int begin, int end, Visit visit) {
    if (!s_.lazy || s_.lazy->complete()) {
      for (int i = begin; i < end; ++i) visit(i, s_.row(i), i + 1 < end ? s_.row_stride : 0);
      return;
    }
    const Workspace::Frame frame(Workspace::of_this_thread());
    constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    // An odd number of cache lines apart, or rows would compete for the same sets of the caches.
    const int64_t stride = ((s_.columns / kLine + 1) | 1) * kLine;
    T* const strip = Workspace::of_this_thread().take<T>(LazyRows<T>::kStrip * stride);
    for (int first = begin; first < end; first += LazyRows<T>::kStrip) {
      const int last = first + LazyRows<T>::kStrip < end ? first + LazyRows<T>::kStrip : end;
      s_.lazy->read(first, last, strip, stride);
      for (int i = first; i < last; ++i) visit(i, strip + (i - first) * stride, i + 1 < last ? stride : 0);
    }
  }

  // Lists of all rows from one pass over scores whose columns lie side by side; rows that are full of ties are read by
  // themselves. `*largest` as in build_all_and_check. False when that would be most rows.
  bool build_in_storage_order(float* largest) {
    const int ranges = (s_.rows + TallScan::kRows - 1) / TallScan::kRows;
    const Workspace::Frame frame(Workspace::of_this_thread());
    Magnitude* const seen = Workspace::of_this_thread().take<Magnitude>(ranges);
    bool* const tied = Workspace::of_this_thread().take<bool>(ranges);
    in_ranges(s_.work->threads, s_.rows, TallScan::kRows, [&](int begin, int end) {
      const Workspace::Frame of_thread(Workspace::of_this_thread());
      TallScan scan(s_.scores, s_.columns, s_.column_stride, float(s_.sign));
      for (int first = begin; first < end; first += TallScan::kRows) {
        const int range = first / TallScan::kRows, last = first + TallScan::kRows < end ? first + TallScan::kRows : end;
        seen[range] = Magnitude();
        tied[range] = !scan.collect(first, last, seen[range]);
        if (tied[range]) return;
        for (int k = 0; k < last - first; ++k) {
          if (scan.complete(k)) store(first + k, scan.length(k), scan.columns(k), scan.scores(k), scan.threshold(k));
          else length_[first + k] = kNotBuilt;
        }
      }
    });
    s_.work->counts.scores_read += int64_t(s_.rows) * s_.columns * (TallScan::kStep + 1) / TallScan::kStep;
    for (int k = 0; k < ranges; ++k) {
      if (tied[k]) return false;
      seen[0].look(seen[k]);
    }
    *largest = seen[0].largest();
    for (int i = 0; i < s_.rows; ++i)
      if (length_[i] == kNotBuilt) rebuild(i);
    return true;
  }

  template <class Values>
  void scan_and_look(int i, const Values& v, int64_t next_row, Magnitude& seen) {
    RowScan<Values> found(v, s_.columns, next_row);
    if (found.sweep(false, tie_start(i), seen)) return store(i, v.row, found);
    look_at_row(v.row, s_.columns, seen);
    if constexpr (std::is_same_v<Values, RoundedValues>) {
      scan(i, v.row, next_row);
    } else {
      found.search(false, tie_start(i));
      store(i, v.row, found);
    }
  }

  void scan(int i, const T* row, int64_t next_row) {
    const PricedValues<T> v{row, s_.price, s_.sign};
    RowScan<PricedValues<T>> found(v, s_.columns, next_row);
    const bool longer = scans_[i] > 4;  // a row that is scanned often gets a longer list
    Unseen unseen;
    if (!found.sweep(longer, tie_start(i), unseen)) found.search(longer, tie_start(i));
    store(i, row, found);
  }

  // Rows that are all alike take different ones of their ties.
  int tie_start(int i) const { return int(int64_t(i) * s_.columns / s_.rows); }

  template <class Scan>
  void store(int i, const T* row, const Scan& found) {
    const List list = room_for(i, found.count, found.bound);
    const T sign = T(s_.sign);
    for (int k = 0; k < found.count; ++k) {
      list.columns[k] = found.hits[k];
      list.scores[k] = sign * row[found.hits[k]];
    }
  }

  void store(int i, int length, const int* columns, const T* scores, double bound) {
    const List list = room_for(i, length, bound);
    std::memcpy(list.columns, columns, size_t(length) * sizeof(int));
    std::memcpy(list.scores, scores, size_t(length) * sizeof(T));
  }

  // Where a list of this length goes, padded to whole vectors already.
  struct List {
    int* columns;
    T* scores;
  };
  List room_for(int i, int length, double bound) {
    const int size = int(padded(length));
    if (size > kRoom && !long_lists_[i]) {
      long_lists_[i] = static_cast<LongList*>(std::malloc(sizeof(LongList)));
      if (!long_lists_[i]) throw std::bad_alloc();
    }
    const List list = long_lists_[i] ? List{long_lists_[i]->columns, long_lists_[i]->scores}
                                     : List{usual_columns_ + int64_t(i) * kRoom, usual_scores_ + int64_t(i) * kRoom};
    for (int k = length; k < size; ++k) {
      list.columns[k] = 0;
      list.scores[k] = -std::numeric_limits<T>::infinity();
    }
    length_[i] = length;
    bound_[i] = bound;
    return list;
  }

  State<T>& s_;
  int* length_;
  double* bound_;
  unsigned char* scans_;  // how often the row was scanned again
  int* usual_columns_;
  T* usual_scores_;
  LongList** long_lists_;
};

}  // namespace lmcfast::LMCFAST_LEVEL
