// Of several optimal assignments, the one that scipy's linear_sum_assignment returns.
//
// Crouse, "On implementing 2D rectangular assignment algorithms", IEEE Trans. Aerosp. Electron. Syst. 52 (2016)
// 1679-1696: from zero prices, one shortest augmenting path for each row, in row order. What decides among equal optima
// is the order in which equally near columns are looked at, and every rounding before that. Both are kept here:
//   - open columns stand in a list, at first from the last column to the first; a column that leaves is replaced by the
//     last of the list. Of the nearest columns the last free one in the list is taken, else the first one;
//   - distances are ((reach + cost) - u[i]) - v[j] in float64, in this order; v and u change as there.
// The passes over a row go by column, not by list, and so in vectors: the list only matters for columns that tie.
#pragma once

#include "state.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class T>
class ScanOrder {
 public:
  explicit ScanOrder(State<T>& s) : s_(s) {
    Workspace& w = Workspace::of_this_thread();
    const int64_t size = padded(s.columns);
    u_ = w.take<double>(s.rows);
    v_ = w.take<double>(size);
    open_v_ = w.take<double>(size);
    distance_ = w.take<double>(size);
    reached_from_ = w.take<int64_t>(size);
    list_ = w.take<int>(s.columns);
    place_ = w.take<int>(s.columns);
    scanned_ = w.take<int>(s.columns);
    scanned_at_ = w.take<double>(s.columns);
    for (int i = 0; i < s.rows; ++i) u_[i] = 0;
    // Lanes past the end are like columns that have left: at v = -inf nothing reaches them.
    for (int64_t j = 0; j < size; ++j) v_[j] = j < s.columns ? 0 : -kInf;
    reset_list();
  }

  // Assigns row `start` by the shortest augmenting path. False: no path exists.
  bool augment(int start) {
    std::memcpy(open_v_, v_, size_t(padded(s_.columns)) * sizeof(double));
    for (int64_t j = 0; j < padded(s_.columns); j += kLanes) store(distance_ + j, broadcast(kInf));
    ++s_.work->counts.paths;
    int i = start, end = -1, steps = 0;
    double reach = 0;
    while (true) {
      const Nearest nearest = relax(i, reach);
      if (nearest.column < 0) return false;
      reach = nearest.distance;
      const int j = nearest.tied ? first_choice(reach) : nearest.column;
      i = s_.row_of[j];
      if (i < 0) {
        end = j;
        break;
      }
      scanned_[steps] = j;
      scanned_at_[steps++] = reach;
      close(j, steps);
    }
    u_[start] += reach;
    for (int k = 0; k < steps; ++k) {
      const double raise = reach - scanned_at_[k];
      v_[scanned_[k]] -= raise;
      u_[s_.row_of[scanned_[k]]] += raise;
    }
    if (steps > 0) reset_list();
    flip(start, end);
    return true;
  }

  // The dual prices, at least 0: v may exceed 0 by a rounding.
  void write_prices() {
    for (int j = 0; j < s_.columns; ++j) s_.price[j] = v_[j] < 0 ? -v_[j] : 0;
  }

 private:
  struct Nearest {
    double distance;
    int column;  // -1: no open column can be reached
    bool tied;   // others are as near
  };

  void reset_list() {
    for (int j = 0; j < s_.columns; ++j) list_[j] = place_[j] = s_.columns - 1 - j;
  }

  // Column j leaves the search as the `count`-th.
  void close(int j, int count) {
    const int last = list_[s_.columns - count];
    list_[place_[j]] = last;
    place_[last] = place_[j];
    put(open_v_, j, -kInf);
    put(distance_, j, kInf);
  }

  // Lowers the distances through row i, which is `reach` away.
  Nearest relax(int i, double reach) {
    const Doubles so_far = broadcast(reach), u = broadcast(u_[i]);
    const Indices from = broadcast(int64_t(i));
    Doubles nearest = broadcast(kInf), next = nearest;  // the two least of each lane
    Indices at = broadcast(int64_t(-1)), column = lane_numbers();
    double* const distances = not_before(i, distance_);
    const double* const open_v = not_before(i, open_v_);
    int64_t* const reached_from = reached_from_;
    ++s_.work->counts.path_steps;
    s_.work->counts.scores_read += s_.columns;
    for_each_vector(s_, i, 0.0, [&](Doubles a, int j) {
      const Doubles through = ((so_far - a) - u) - load(open_v + j);
      const Doubles before = load(distances + j);
      const Mask shorter = less(through, before);
      const Doubles now = min(through, before);
      store(distances + j, now);
      store_where(shorter, reached_from + j, from);
      at = select(less(now, nearest), column, at);
      next = min(next, max(now, nearest));
      nearest = min(now, nearest);
      column += kLanes;
    });
    const double distance = reduce_min(nearest);
    if (!(distance < kInf)) return {kInf, -1, false};
    const unsigned lanes = bits(equal(nearest, broadcast(distance)));
    const bool tied = (lanes & (lanes - 1)) != 0 || reduce_min(next) == distance;
    return {distance, int(at[first_bit(lanes)]), tied};
  }

  int first_choice(double distance) const {
    int free = -1, owned = -1;
    for (int64_t j0 = 0; j0 < s_.columns; j0 += kLanes)
      for (unsigned hits = bits(equal(load(distance_ + j0), broadcast(distance))); hits; hits &= hits - 1) {
        const int j = int(j0) + first_bit(hits);
        if (s_.row_of[j] < 0) {
          if (free < 0 || place_[j] > place_[free]) free = j;
        } else if (owned < 0 || place_[j] < place_[owned]) {
          owned = j;
        }
      }
    return free >= 0 ? free : owned;
  }

  void flip(int start, int end) {
    for (int j = end, i = -1; i != start;) {
      i = int(reached_from_[j]);
      const int next = s_.column_of[i];
      s_.assign(i, j);
      j = next;
    }
  }

  State<T>& s_;
  double* u_;
  double* v_;
  double* open_v_;
  double* distance_;
  int64_t* reached_from_;
  int* list_;   // of open columns, the closed ones behind them
  int* place_;  // of a column in the list
  int* scanned_;
  double* scanned_at_;
};

// Solves from zero prices. On `infeasible`, `*left` is the first row that cannot be assigned with those before it.
template <class T>
Status solve_in_scan_order(State<T>& s, int* left) {
  ScanOrder<T> order(s);
  for (int i = 0; i < s.rows; ++i) {
    *left = i;
    if (!order.augment(i)) return Status::infeasible;
    if (s.work->should_stop()) return Status::interrupted;
  }
  order.write_prices();
  *left = -1;
  return Status::ok;
}

}  // namespace lmcfast::LMCFAST_LEVEL
