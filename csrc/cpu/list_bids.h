// Bidding on candidate lists: without a tolerance, and as an auction with one.
//
// Bertsekas, "The auction algorithm", Annals of Operations Research 14 (1988) 105-123: Gauss-Seidel form (one row bids
// at a time), with epsilon scaling. Here eight rows look for their best columns before the first of them bids: the
// processor works on all of them at once, while a row that had to see the bid before it would wait for its price to
// arrive. What a row saw is still right when its turn comes, unless another has bid for the same column: the others'
// prices have only risen, so its best column is still best, and its second best may be worth less, never more.
#pragma once

#include <cassert>

#include "dense.h"
#include "lists.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class T>
struct BidGroup {
  static constexpr int kMost = 8;
  int rows[kMost];
  BestTwo best[kMost];
  int count = 0;

  void look(Lists<T>& lists, RowStack& waiting) {
    for (count = 0; count < kMost && waiting.count > 0; ++count) rows[count] = waiting.pop();
    for (int k = 0; k < count; ++k) best[k] = lists.best(rows[k]);
  }

  // Whether a row before the k-th raised the price of the column that it wants; then the k-th has to look again.
  bool overtaken(int k) const {
    bool same = false;
    for (int q = 0; q < k; ++q) same |= best[q].column == best[k].column;
    return same && best[k].column >= 0;
  }

  // To be called where row k changes no price.
  void leaves_prices(int k) { best[k].column = -1; }
};

// Bids with eps = 0, at most `limit` of them for a column that is taken: the row takes its best column, raises its
// price to where the second best is as good, and the owner bids in turn. On a tie between the best two only a free
// column is taken, since trading places at equal prices leads nowhere. Rows that find none stay in `waiting`; returns
// how many of them are stuck on ties. `scratch` has room for one int for each row.
template <class T>
int bid_on_lists(State<T>& s, Lists<T>& lists, RowStack& waiting, int64_t limit, int* scratch) {
  RowStack left{scratch};
  BidGroup<T> group;
  int tied = 0;
  while (waiting.count > 0) {
    group.look(lists, waiting);
    for (int k = 0; k < group.count; ++k) {
      const int i = group.rows[k];
      const BestTwo best = group.best[k];
      if (group.overtaken(k)) {
        waiting.push(i);
        continue;
      }
      if (best.column < 0) {
        left.push(i);
        continue;
      }
      ++s.work->counts.bids;
      int j = best.column;
      int owner = s.row_of[j];
      if (best.first > best.second) {
        if (best.second > -kInf) s.price[j] += best.first - best.second;
      } else {
        group.leaves_prices(k);
        if (owner >= 0) j = lists.free_column_worth(i, best.first);
        owner = -1;
        if (j < 0) {
          left.push(i);
          ++tied;
          continue;
        }
      }
      s.assign(i, j);
      if (owner >= 0) {
        s.column_of[owner] = -1;
        (--limit > 0 ? waiting : left).push(owner);
      }
    }
  }
  while (left.count > 0) waiting.push(left.pop());
  return tied;
}

// Rows whose ties reach beyond their list look for a tight column among the free ones directly. `free` is scratch for
// one int for each column.
template <class T>
void take_free_tight_columns(State<T>& s, Lists<T>& lists, RowStack& waiting, int* free) {
  int free_count = 0;
  for (int j = 0; j < s.columns; ++j)
    if (s.row_of[j] < 0) free[free_count++] = j;
  if (free_count > s.columns / 4) return;  // then a path is short, and cheaper than this
  int left = 0;
  for (int k = 0; k < waiting.count; ++k) {
    const int i = waiting.rows[k];
    const BestTwo best = lists.best(i);
    bool found = false;
    if (best.first <= lists.bound(i))
      for (int f = 0; f < free_count && !found; ++f)
        if (s.margin(i, free[f]) >= best.first) {
          s.assign(i, free[f]);
          free[f] = free[--free_count];
          found = true;
        }
    if (!found) waiting.rows[left++] = i;
  }
  waiting.count = left;
}

// Rows that have bid with a tolerance. All others keep what they have: their column's price rises only when another
// row takes it, and what else they could gain only falls.
struct Bidders {
  RowStack rows;
  bool* member;
  void add(int i) {
    if (member[i]) return;
    member[i] = true;
    rows.push(i);
  }
};

// Every bid raises a price by eps more than it must, so that no row can block another for long; at the end all assigned
// rows are within eps of their best. Stops when at most `tail` rows wait or after `limit` bids.
template <class T>
void auction_phase(State<T>& s, Lists<T>& lists, RowStack& waiting, Bidders& bidders, double eps, int tail,
                   int64_t limit) {
  BidGroup<T> group;
  while (waiting.count > tail && limit > 0) {
    group.look(lists, waiting);
    for (int k = 0; k < group.count; ++k) {
      const int i = group.rows[k];
      const BestTwo best = group.best[k];
      assert(best.column >= 0);  // the solver has seen to it that every row has an allowed pair
      if (group.overtaken(k)) {
        waiting.push(i);
        continue;
      }
      --limit;
      ++s.work->counts.bids;
      const double step = best.second > -kInf ? best.first - best.second : 0;
      s.price[best.column] += step + eps;
      bidders.add(i);
      const int owner = s.row_of[best.column];
      s.assign(i, best.column);
      if (owner >= 0) {
        s.column_of[owner] = -1;
        waiting.push(owner);
      }
    }
  }
}

// Bidders that are not within `eps` of their best give their column back, and wait with those that are free.
template <class T>
void release_loose_rows(State<T>& s, Lists<T>& lists, RowStack& waiting, const Bidders& bidders, double eps) {
  for (int k = 0; k < bidders.rows.count; ++k) {
    const int i = bidders.rows.rows[k], j = s.column_of[i];
    if (j < 0 || s.margin(i, j) >= lists.best(i).first - eps) continue;
    s.release(i);
    waiting.push(i);
  }
}

}  // namespace lmcfast::LMCFAST_LEVEL
