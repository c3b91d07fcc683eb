// The dense method: bids that raise prices without a tolerance, then shortest augmenting paths over whole rows.
//
// Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
// Computing 38 (1987) 325-340, for maximisation, with rows as bidders: pages 328-330 (augmenting row reduction) are
// `take_best_columns` and `bid`, pages 330-333 are `Paths::augment`. Also the last resort of every other method: it
// goes on from any prices and any partial assignment that satisfies the invariant of state.h.
#pragma once

#include "sorted_start.h"
#include "start.h"

namespace lmcfast::LMCFAST_LEVEL {

// Rows waiting for a column.
struct RowStack {
  int* rows;
  int count = 0;
  void push(int i) { rows[count++] = i; }
  int pop() { return rows[--count]; }
};

// A free column for row i at the present prices: its best one, or one that ties with it. -1 when others own them.
template <class T>
LMCFAST_INLINE int free_best_column(const State<T>& s, int i, const BestTwo& best) {
  if (best.column < 0 || s.row_of[best.column] < 0) return best.column;
  return best.second == best.first ? free_tight_column(s, i, best.first) : -1;
}

// Every free row takes its best column if that is free, or a free column that ties with it, and raises the price of a
// strictly best one to where its second best is as good (the most that keeps the row tight). The others wait.
// All rows see the prices of the beginning, so that no row has to wait for the store of another; a raise is then
// smaller than it could be, which is harmless. `raised` is scratch for one double for each column.
template <class T>
void take_best_columns(State<T>& s, RowStack& waiting, double* raised, bool prices_are_zero = false) {
  waiting.count = 0;
  for (int j = 0; j < s.columns; ++j) raised[j] = s.price[j];
  for (int i = 0; i < s.rows; ++i) {
    if (s.column_of[i] >= 0) continue;
    const BestTwo best = prices_are_zero ? best_two_at_zero(s, i) : best_two(s, i);
    const int j = free_best_column(s, i, best);
    ++s.work->counts.bids;
    if (j < 0) {
      waiting.push(i);
      continue;
    }
    s.assign(i, j);
    if (best.second > -kInf) raised[j] += best.first - best.second;
  }
  for (int j = 0; j < s.columns; ++j) s.price[j] = raised[j];
  for (int j = 0; j < s.columns; ++j) s.price[j] = raised[j];
}

// The rows that wait look again, at the raised prices, and see each other's raises.
template <class T>
void take_next_columns(State<T>& s, RowStack& waiting) {
  State<T> view = s;
  int left = 0;
  for (int k = 0; k < waiting.count; ++k) {
    const int i = waiting.rows[k];
    const BestTwo best = best_two(view, i);
    const int j = free_best_column(s, i, best);
    ++s.work->counts.bids;
    if (j < 0) {
      waiting.rows[left++] = i;
      continue;
    }
    s.assign(i, j);
    if (best.second > -kInf) put(s.price, j, s.price[j] + (best.first - best.second));
    view.price = not_before(j, s.price);
  }
  waiting.count = left;
}

// Bids that may take a column from its owner, who then bids in turn. At most `limit` bids, and chains of a few, since
// a chain can go on for long with little gain: shortest paths settle those better. Leaves the rows that still wait in
// `waiting`.
template <class T>
void bid(State<T>& s, RowStack& waiting, int64_t limit) {
  constexpr int kLongestChain = 16;
  int left = 0, chain = 0;  // rows set aside for the shortest paths; evictions in a row
  int* const aside = Workspace::of_this_thread().take<int>(s.rows);
  State<T> view = s;
  while (waiting.count > 0 && limit-- > 0) {
    const int i = waiting.pop();
    view.price = not_before(i, s.price);
    const BestTwo best = best_two(view, i);
    ++s.work->counts.bids;
    int j = best.column;
    if (j >= 0 && s.row_of[j] >= 0 && best.first == best.second) j = free_tight_column(s, i, best.first);
    const int owner = j < 0 ? -1 : s.row_of[j];
    const double by = best.second > -kInf ? best.first - best.second : 0;
    if (j < 0 || (owner >= 0 && !(s.price[j] + by > s.price[j]))) {
      aside[left++] = i;  // no column, or a trade at equal prices or at any price, which settles nothing
      chain = 0;
      continue;
    }
    if (by > 0) put(s.price, j, s.price[j] + by);
    s.assign(i, j);
    if (owner < 0) {
      chain = 0;
      continue;
    }
    s.column_of[owner] = -1;
    if (++chain < kLongestChain) {
      waiting.push(owner);
    } else {
      aside[left++] = owner;
      chain = 0;
    }
  }
  while (left > 0) waiting.push(aside[--left]);
}

// Shortest augmenting paths from free rows (Dijkstra over reduced scores u[i] - a[i,j] + p[j] >= 0).
template <class T>
class Paths {
 public:
  explicit Paths(State<T>& s) : s_(s) {
    Workspace& w = Workspace::of_this_thread();
    const int64_t size = padded(s.columns);
    distance_ = w.take<double>(size);
    open_price_ = w.take<double>(size);
    reached_from_ = w.take<int64_t>(size);
    scanned_ = w.take<int>(s.columns);
    scanned_at_ = w.take<double>(s.columns);
    free_ = w.take<int>(s.columns);
    for (int j = 0; j < s.columns; ++j)
      if (s.row_of[j] < 0) free_[free_count_++] = j;
  }

  // Assigns row `start`, changing the columns of others along the cheapest alternating path. False: no path exists.
  bool augment(int start) {
    prepare();
    ++s_.work->counts.paths;
    int i = start, end = -1, steps = 0;
    s_.work->counts.scores_read += s_.columns;
    double row_profit = profit(s_, start), reach = 0;
    if (row_profit == -kInf) return false;
    while (end < 0) {
      const Nearest nearest = relax(i, reach, row_profit);
      if (nearest.column < 0) return false;
      const bool plateau = nearest.distance <= reach;
      reach = nearest.distance;
      if (s_.row_of[nearest.column] < 0) end = nearest.column;
      else if (plateau) end = free_column_at(reach);  // on ties: stop at the first free column of this distance
      if (end >= 0) break;
      scanned_[steps] = nearest.column;
      scanned_at_[steps++] = reach;
      // A scanned column leaves the search: an infinite open price keeps it from being reached again.
      put(open_price_, nearest.column, kInf);
      put(distance_, nearest.column, kInf);
      i = s_.row_of[nearest.column];
      row_profit = s_.margin(i, nearest.column);
    }
    for (int k = 0; k < steps; ++k) s_.price[scanned_[k]] += reach - scanned_at_[k];
    flip(start, end);
    return true;
  }

 private:
  struct Nearest {
    double distance;
    int column;
  };

  void prepare() {
    const int64_t size = padded(s_.columns);
    std::memcpy(open_price_, s_.price, size_t(s_.columns) * sizeof(double));
    for (int64_t j = s_.columns; j < size; ++j) open_price_[j] = kInf;  // lanes past the end are never nearest
    for (int64_t j = 0; j < size; j += kLanes) store(distance_ + j, broadcast(kInf));
  }

  // Lowers the distances through row i, which is `reach` away, and returns the nearest open column.
  Nearest relax(int i, double reach, double row_profit) {
    const Doubles base = broadcast(reach + row_profit), least = broadcast(reach);
    const Indices from = broadcast(int64_t(i));
    Doubles nearest = broadcast(kInf);
    Indices at = broadcast(int64_t(-1)), column = lane_numbers();
    // Local, so that the compiler need not read the members again after every store.
    double* const distances = not_before(i, distance_);
    const double* const open_prices = not_before(i, open_price_);
    int64_t* const reached_from = reached_from_;
    ++s_.work->counts.path_steps;
    s_.work->counts.scores_read += s_.columns;
    for_each_vector(s_, i, 0.0, [&](Doubles a, int j) {
      const Doubles through = max(least, base - a + load(open_prices + j));
      const Doubles before = load(distances + j);
      const Mask shorter = less(through, before);
      const Doubles now = min(through, before);
      store(distances + j, now);
      store_where(shorter, reached_from + j, from);
      at = select(less(now, nearest), column, at);
      nearest = min(now, nearest);
      column += kLanes;
    });
    const double distance = reduce_min(nearest);
    if (!(distance < kInf)) return {kInf, -1};
    const int lane = first_bit(bits(equal(nearest, broadcast(distance))));
    return {distance, int(at[lane])};
  }

  int free_column_at(double reach) const {
    for (int k = 0; k < free_count_; ++k)
      if (distance_[free_[k]] == reach) return free_[k];
    return -1;
  }

  void flip(int start, int end) {
    int k = 0;
    while (free_[k] != end) ++k;
    free_[k] = free_[--free_count_];
    for (int j = end, i = -1; i != start;) {
      i = int(reached_from_[j]);
      const int next = s_.column_of[i];
      s_.assign(i, j);
      j = next;
    }
  }

  State<T>& s_;
  double* distance_;
  double* open_price_;
  int64_t* reached_from_;
  int* scanned_;
  double* scanned_at_;
  int* free_;
  int free_count_ = 0;
};

// Tries other start prices on copies of the state and keeps what leaves fewer rows waiting.
template <class T>
class StartChoice {
 public:
  StartChoice(State<T>& s, RowStack& waiting) : s_(s), waiting_(waiting), other_(s) {
    Workspace& w = Workspace::of_this_thread();
    other_.price = w.take<double>(padded(s.columns));
    other_.column_of = w.take<int>(s.rows);
    other_.row_of = w.take<int>(s.columns);
    other_.free_bits = w.take<uint64_t>(s.words(s.columns));
    still_.rows = w.take<int>(s.rows);
    raised_ = w.take<double>(s.columns);
  }

  // How well the column maxima suit the rows; leaves them in the copy.
  enum class Fit { poor, fair, good, owned };
  Fit look_at_column_maxima() {
    const int owners = column_maxima_and_owners(other_, other_.price);
    if (owners == 0 || prices_drown_a_row(other_, other_.price)) return Fit::poor;
    if (owners * 2 > s_.rows) return Fit::owned;
    other_.clear_assignment();
    const int sample = s_.rows < 32 ? s_.rows : 32, satisfied = rows_satisfied(other_, sample);
    return satisfied * 4 > sample * 3 ? Fit::good : satisfied * 4 > sample ? Fit::fair : Fit::poor;
  }

  // Starts again from the prices of the copy.
  void take() {
    std::memcpy(s_.price, other_.price, size_t(padded(s_.columns)) * sizeof(double));
    s_.clear_assignment();
    take_best_columns(s_, waiting_, raised_);
    take_next_columns(s_, waiting_);
  }

  void try_sorted() {
    SortedStart<T> start(other_);
    if (!start.plausible() || !start.guess(other_.price)) return;
    for (int64_t j = other_.columns; j < padded(other_.columns); ++j) other_.price[j] = 0;
    other_.clear_assignment();
    for (int k = 0; k < other_.rows; ++k) {
      const int i = start.rows()[k], j = start.columns()[k];
      if (other_.margin(i, j) >= profit(other_, i)) other_.assign(i, j);
    }
    other_.work->counts.scores_read += int64_t(other_.rows) * other_.columns;
    keep_if_better();
  }

  // First bids on the copy, at its prices.
  void try_again() {
    other_.clear_assignment();
    keep_if_better();
  }

 private:
  void keep_if_better() {
    take_best_columns(other_, still_, raised_);
    take_next_columns(other_, still_);
    if (still_.count >= waiting_.count) return;
    std::memcpy(s_.price, other_.price, size_t(padded(s_.columns)) * sizeof(double));
    std::memcpy(s_.column_of, other_.column_of, size_t(s_.rows) * sizeof(int));
    std::memcpy(s_.row_of, other_.row_of, size_t(s_.columns) * sizeof(int));
    std::memcpy(s_.free_bits, other_.free_bits, size_t(s_.words(s_.columns)) * sizeof(uint64_t));
    std::memcpy(waiting_.rows, still_.rows, size_t(still_.count) * sizeof(int));
    waiting_.count = still_.count;
  }

  State<T>& s_;
  RowStack& waiting_;
  State<T> other_;
  RowStack still_{nullptr};
  double* raised_;
};

// First bids at zero prices. Where these leave many rows waiting, the column maxima take their place if more than half
// of the rows own one or a sample of the rows is served at them; else they are tried, and so are prices from a hidden
// order.
template <class T>
void choose_start(State<T>& s, RowStack& waiting) {
  take_best_columns(s, waiting, Workspace::of_this_thread().take<double>(s.columns), true);
  const bool hopeless = waiting.count * 2 > s.rows && s.rows == s.columns;
  if (!hopeless) take_next_columns(s, waiting);
  if (s.rows != s.columns || waiting.count * 5 <= s.rows) return;
  StartChoice<T> choice(s, waiting);
  const auto fit = choice.look_at_column_maxima();
  if (fit == StartChoice<T>::Fit::owned || (hopeless && fit == StartChoice<T>::Fit::good)) {
    choice.take();
  } else {
    if (hopeless) take_next_columns(s, waiting);
    if (fit != StartChoice<T>::Fit::poor) choice.try_again();
  }
  if (s.rows >= 24 && s.all_finite && waiting.count * 2 > s.rows) choice.try_sorted();
}

// Assigns the waiting rows by shortest paths. On `infeasible`, `*left` is a row that cannot be assigned together with
// those assigned before it.
template <class T>
Status finish_dense(State<T>& s, RowStack& waiting, int* left) {
  if (waiting.count == 0) return Status::ok;
  Paths<T> paths(s);
  while (waiting.count > 0) {
    *left = waiting.pop();
    if (!paths.augment(*left)) return Status::infeasible;
    if (s.work->should_stop()) return Status::interrupted;
  }
  return Status::ok;
}

// Solves from the prices in `s`.
template <class T>
Status solve_dense(State<T>& s, bool warm, int* left) {
  RowStack waiting{Workspace::of_this_thread().take<int>(s.rows)};
  if (warm) {
    take_best_columns(s, waiting, Workspace::of_this_thread().take<double>(s.columns));
    take_next_columns(s, waiting);
  } else {
    choose_start(s, waiting);
  }
  if (waiting.count > 0) bid(s, waiting, s.rows);
  return finish_dense(s, waiting, left);
}

}  // namespace lmcfast::LMCFAST_LEVEL
