// Shortest augmenting paths on candidate lists, read lazily.
//
// Dijkstra over reduced scores u[i] - a[i,j] + p[j] >= 0, as in dense.h, but a row that joins the tree relaxes only its
// list. The columns outside are at least u[i] - bound[i] away from the row, so that distance is itself an event of the
// row: when the search gets there, the row is read again and the event moves further out. Most never come up.
#pragma once

#include <algorithm>

#include "lists.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class T>
class ListPaths {
 public:
  ListPaths(State<T>& s, Lists<T>& lists) : s_(s), lists_(lists) {
    Workspace& w = Workspace::of_this_thread();
    distance_ = w.take<double>(padded(s.columns));
    reached_from_ = w.take<int>(s.columns);
    scanned_ = w.take<bool>(s.columns);
    free_ = w.take<int>(s.columns);
    for (int64_t j = 0; j < padded(s.columns); ++j) distance_[j] = j < s.columns ? kInf : -kInf;
    for (int j = 0; j < s.columns; ++j) scanned_[j] = false;
    find_free_columns();
  }

  // To be called when columns were assigned by others.
  void find_free_columns() {
    free_count_ = 0;
    for (int j = 0; j < s_.columns; ++j)
      if (s_.row_of[j] < 0) free_[free_count_++] = j;
  }

  // Work so far in rows relaxed; a read of a whole row counts double.
  int64_t work() const { return steps_ + 2 * reads_; }

  // How far the last path led: by that much the profit of its first row fell, and some prices rose.
  double length() const { return end_at_; }

  // Assigns row `start`. False: no path exists.
  bool augment(int start) {
    clear();
    ++s_.work->counts.paths;
    const double profit = lists_.best(start).first;
    if (profit == -kInf) return false;
    add_row(start, 0, profit);
    while (end_at_ > reach_) {
      const Event e = next_event();
      if (e.what == kNothing) break;
      if (e.what >= 0) scan_column(e.what);
      else look_beyond_the_list(-1 - e.what);
    }
    const bool found = end_ >= 0;
    if (found) {
      raise_prices();
      flip(start);
    }
    for (int k = 0; k < touched_.size(); ++k) {
      distance_[touched_[k]] = kInf;
      scanned_[touched_[k]] = false;
    }
    return found;
  }

 private:
  // What happens at a distance: >= 0, the column is nearest; < 0, row -1 - what of the tree may reach beyond its list.
  struct Event {
    double distance;
    int what;
  };
  static constexpr int kNothing = std::numeric_limits<int>::min();
  struct Later {
    bool operator()(const Event& a, const Event& b) const { return a.distance > b.distance; }
  };
  struct TreeRow {
    int row;
    double distance, profit;
    int reads;  // in this search
  };

  void clear() {
    heap_.clear();
    level_columns_.clear();
    level_rows_.clear();
    touched_.clear();
    order_.clear();
    tree_.clear();
    next_column_ = next_row_ = 0;
    reach_ = 0;
    end_at_ = kInf;
    end_ = -1;
  }

  // Events at the distance already reached wait in two queues: on a plateau of ties there is no need to sort.
  Event next_event() {
    if (next_column_ < level_columns_.size()) return {reach_, level_columns_[next_column_++]};
    if (next_row_ < level_rows_.size()) return {reach_, -1 - level_rows_[next_row_++]};
    while (!heap_.empty()) {
      const Event e = heap_[0];
      std::pop_heap(heap_.begin(), heap_.end(), Later{});
      heap_.pop();
      if (e.distance >= end_at_) break;
      if (e.what >= 0 && (scanned_[e.what] || e.distance > distance_[e.what])) continue;  // out of date
      reach_ = larger(reach_, e.distance);
      return e;
    }
    return {kInf, kNothing};
  }

  void push(double distance, int what) {
    heap_.push({distance, what});
    std::push_heap(heap_.begin(), heap_.end(), Later{});
  }

  void add_row(int i, double distance, double profit) {
    ++steps_;
    ++s_.work->counts.path_steps;
    tree_.push({i, distance, profit, 0});
    const int k = tree_.size() - 1;
    relax_list(k, distance);
    set_row_event(k);
  }

  void set_row_event(int k) {
    const double at = tree_[k].distance + tree_[k].profit - lists_.bound(tree_[k].row);
    if (at <= reach_) level_rows_.push(k);
    else if (at < end_at_) push(at, -1 - k);
  }

  void reach_column(int j, double distance, int from) {
    if (distance_[j] == kInf) touched_.push(j);
    distance_[j] = distance;
    reached_from_[j] = from;
    if (s_.row_of[j] < 0) {
      end_at_ = distance;
      end_ = j;
    } else if (distance <= reach_) {
      level_columns_.push(j);
    } else {
      push(distance, j);
    }
  }

  // Lowers distances over the list of tree row k; none can be below `least`.
  void relax_list(int k, double least) {
    const int i = tree_[k].row, length = lists_.length(i);
    const int* const columns = lists_.columns(i);
    const T* const scores = lists_.scores(i);
    const double from = tree_[k].distance + tree_[k].profit;
    const Doubles base = broadcast(from), floor = broadcast(least);
    for (int t = 0; t < length; t += kLanes) {
      const Doubles through = max(floor, base - load(scores + t) + gather(s_.price, columns + t));
      const Doubles limit = min(gather(distance_, columns + t), broadcast(end_at_));
      for (unsigned closer = bits(less(through, limit)); closer; closer &= closer - 1) {
        const int lane = first_bit(closer), j = columns[t + lane];
        if (through[lane] < distance_[j] && through[lane] < end_at_) reach_column(j, through[lane], i);
      }
      if (end_at_ <= least) return;
    }
  }

  void scan_column(int j) {
    if (scanned_[j]) return;
    scanned_[j] = true;
    order_.push(j);
    const int i = s_.row_of[j];
    add_row(i, distance_[j], s_.margin(i, j));
  }

  // The search has reached the bound of tree row k. The first time its list is built again; on ties, and after that,
  // the whole row is relaxed.
  void look_beyond_the_list(int k) {
    const int i = tree_[k].row;
    const bool tied = lists_.bound(i) >= tree_[k].profit;
    if (!tied && tree_[k].reads++ == 0) {
      rebuild_at_reach(i);
      relax_list(k, reach_);
      const double at = tree_[k].distance + tree_[k].profit - lists_.bound(i);
      if (at > reach_) {
        if (at < end_at_) push(at, -1 - k);
        return;
      }
      if (end_at_ <= reach_) return;
      if (next_column_ < level_columns_.size()) {
        level_rows_.push(k);
        return;
      }
    }
    relax_row(k);
  }

  // Builds the list as it will be useful: scanned columns count at the prices that they will have if the search ended
  // here. A scanned column that is left out was left out at that higher price; it matters to no one before the search
  // ends, since it is scanned, and from then on the bound holds for it.
  void rebuild_at_reach(int i) {
    before_.clear();
    for (int k = 0; k < order_.size(); ++k) {
      before_.push(s_.price[order_[k]]);
      s_.price[order_[k]] += reach_ - distance_[order_[k]];
    }
    lists_.rebuild(i);
    ++reads_;
    for (int k = 0; k < order_.size(); ++k) s_.price[order_[k]] = before_[k];
  }

  void relax_row(int k) {
    const int i = tree_[k].row;
    const double from = tree_[k].distance + tree_[k].profit;
    ++reads_;
    if (free_count_ < s_.columns / 8) {  // a free column at this very distance ends the search
      for (int f = 0; f < free_count_ && end_at_ > reach_; ++f) {
        const int j = free_[f];
        const double through = larger(reach_, from - s_.score(i, j) + s_.price[j]);
        if (through < distance_[j] && through < end_at_) reach_column(j, through, i);
      }
      if (end_at_ <= reach_) return;
    }
    s_.work->counts.scores_read += s_.columns;
    const Doubles base = broadcast(from), floor = broadcast(reach_);
    for_each_vector(s_, i, 0.0, [&](Doubles a, int j) {
      if (end_at_ <= reach_) return;
      const Doubles through = max(floor, base - a + load(s_.price + j));
      const Doubles limit = min(load(distance_ + j), broadcast(end_at_));
      for (unsigned closer = bits(less(through, limit)); closer; closer &= closer - 1) {
        const int lane = first_bit(closer);
        if (through[lane] < end_at_) reach_column(j + lane, through[lane], i);
      }
    });
  }

  void raise_prices() {
    for (int k = 0; k < order_.size(); ++k)
      if (end_at_ > distance_[order_[k]]) s_.price[order_[k]] += end_at_ - distance_[order_[k]];
  }

  void flip(int start) {
    int k = 0;
    while (free_[k] != end_) ++k;
    free_[k] = free_[--free_count_];
    for (int j = end_, i = -1; i != start;) {
      i = reached_from_[j];
      const int next = s_.column_of[i];
      s_.assign(i, j);
      j = next;
    }
  }

  State<T>& s_;
  Lists<T>& lists_;
  double* distance_;  // of a column; padded with -inf so that lanes past the end are never closer
  int* reached_from_;
  bool* scanned_;
  int* free_;
  int free_count_ = 0;
  Buffer<Event> heap_;
  Buffer<int> level_columns_, level_rows_, touched_, order_;
  Buffer<TreeRow> tree_;
  Buffer<double> before_;
  int next_column_ = 0, next_row_ = 0;
  double reach_ = 0, end_at_ = kInf;
  int end_ = -1;
  int64_t steps_ = 0, reads_ = 0;
};

}  // namespace lmcfast::LMCFAST_LEVEL
