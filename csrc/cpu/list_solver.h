// The method for large problems: everything but a few passes over the matrix happens on candidate lists.
//
//   1. start prices, chosen before any list exists, since any are legal then
//   2. lists of all rows (one read)
//   3. bids with eps = 0
//   4. shortest augmenting paths, while they promise to be cheap
//   5. if rows are left: auction phases with falling eps, then 3 and paths for the rest
// Every loop has a budget of work; when it is spent, the dense method finishes with the prices and the partial
// assignment that stand.
#pragma once

#include <algorithm>

#include "certificate.h"
#include "dense.h"
#include "list_bids.h"
#include "list_paths.h"
#include "lists.h"
#include "sorted_start.h"
#include "start.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class T>
class ListSolver {
 public:
  explicit ListSolver(State<T>& s)
      : s_(s),
        lists_(s),
        waiting_{Workspace::of_this_thread().take<int>(s.rows)},
        bidders_{{Workspace::of_this_thread().take<int>(s.rows)}, Workspace::of_this_thread().take<bool>(s.rows)},
        scratch_(Workspace::of_this_thread().take<int>(s.columns)) {}

  // Start prices and lists. `warm`: the prices in the state are the start. The scores are checked in the same read
  // where possible; lists of invalid scores are worth nothing.
  void build(bool warm, ScoreCheck* check) {
    bool checked = false;
    if (!warm && start_in_order(check, &checked)) return;
    const bool zero = !warm && keep_zero_prices(s_);
    if constexpr (sizeof(T) == sizeof(float)) {
      const double largest = lists_.build_all_and_check(zero);
      if (!checked) *check = checked_by_largest(s_, largest);
      built_ = true;
    } else {
      if (!checked) *check = check_scores(s_);
      if (check->valid) build_lists();
    }
  }

  // After a valid check. On `infeasible`, `*left` is a row that cannot be assigned together with those assigned before
  // it.
  Status solve(int* left) {
    if (!built_) return Status::ok;  // the sorted start assigned every row
    if (s_.work->should_stop()) return Status::interrupted;
    for (int i = s_.rows - 1; i >= 0; --i) {
      if (lists_.length(i) == 0) {  // not one allowed pair; no later stage need think of such rows
        *left = i;
        return Status::infeasible;
      }
      if (s_.column_of[i] < 0) waiting_.push(i);
    }
    const bool tied = bid_without_tolerance(3);
    ListPaths<T> paths(s_, lists_);
    Status status = cheap_paths(paths, tied, left);
    if (status != Status::ok || waiting_.count == 0) return status;
    bool within_budget = true;
    if (waiting_.count > tail() && s_.rows == s_.columns) {
      status = auction(&within_budget);
      if (status != Status::ok) return status;
      release_loose_rows(s_, lists_, waiting_, bidders_, 0);
      bid_without_tolerance(20);
      paths.find_free_columns();
    }
    return finish(paths, within_budget, left);
  }

  // The profits of all rows for the certificate, nearly always without reading a row.
  void write_profits(double* profits) {
    if (!built_) return write_profits_by_reading(s_, profits);
    for (int i = 0; i < s_.rows; ++i) profits[i] = lists_.best(i).first;
  }

 private:
  static constexpr int kBudget = 45;  // reads of all rows that a stage may cost before the dense method takes over

  // An auction leaves so many rows to the paths: its last bidders would fight for long over few columns.
  int tail() const { return s_.rows / 1000; }

  void build_lists() {
    lists_.build_all();
    built_ = true;
  }

  // Tries the sorted start. True when the prices are set, and the lists built unless every row is assigned already;
  // also true when the scores turned out to be invalid.
  bool start_in_order(ScoreCheck* check, bool* checked) {
    if (s_.rows != s_.columns) return false;
    SortedStart<T> start(s_);
    if (!start.plausible()) return false;
    *check = check_scores(s_);
    *checked = true;
    if (!check->valid) return true;
    if (!check->all_finite || !start.guess(s_.price)) return false;  // a forbidden pair has no place in an order
    const int missed = take_in_order(s_, start);
    if (missed == 0) return true;
    s_.clear_assignment();
    build_lists();
    double violation = 0;
    for (int k = 0; k < s_.rows; ++k) {
      const int i = start.rows()[k], j = start.columns()[k];
      const double short_of_best = lists_.best(i).first - s_.margin(i, j);
      if (short_of_best <= 0) s_.assign(i, j);
      else violation += short_of_best;
    }
    sorted_unit_ = 3 * violation / s_.rows;
    return true;
  }

  // Two rounds of bids, then a look at the free columns. True when at least half of the rows left are stuck on ties.
  bool bid_without_tolerance(int bids_per_row) {
    int tied = 0;
    for (int round = 0; round < 2 && waiting_.count > 0; ++round) {
      tied = bid_on_lists(s_, lists_, waiting_, int64_t(waiting_.count) * bids_per_row + 1000, scratch_);
      if (tied == waiting_.count) break;
    }
    const bool stuck = 2 * tied >= waiting_.count;
    if (waiting_.count > 0) take_free_tight_columns(s_, lists_, waiting_, scratch_);
    return stuck;
  }

  // Augments while the cost of the paths so far, carried on to the rows left, stays below that of an auction. On ties
  // an auction is the wrong tool, so paths may cost more. So it is when a path was long: there is a gap between what
  // classes of columns are worth, and an auction would have to climb it in steps that suit the inside of a class.
  Status cheap_paths(ListPaths<T>& paths, bool tied, int* left) {
    const bool sorted = sorted_unit_ > 0;
    bool gap = false;
    const int64_t before = paths.work();
    int64_t last = before;
    double height = -1;
    for (int done = 0; waiting_.count > 0; ++done) {
      const double limit = (gap ? 40.0 : tied && !sorted ? 8.0 : 0.5) * s_.rows;
      const double work = double(paths.work() - before);
      if (work > 0.5 * s_.rows + 8.0 * done) {
        const double estimate = work / larger(done, 1) * waiting_.count;
        const bool cheap = work + estimate <= (tied && !sorted && !gap ? 8 : 1) * limit;
        if (!cheap && !((tied || sorted || gap) && work < limit)) break;
      }
      *left = waiting_.pop();
      if (!paths.augment(*left)) return Status::infeasible;
      if (s_.work->should_stop()) return Status::interrupted;
      if (!gap && paths.work() - last > 20) {
        if (height < 0) height = mean_height(64).mean;
        gap = height > 0 && paths.length() > 3 * height;
      }
      last = paths.work();
    }
    return Status::ok;
  }

  struct Height {
    double mean, largest;
  };

  // How far the best value of a row lies above its bound, on average over about `sample` rows, and the largest
  // magnitude of those best values.
  Height mean_height(int sample) const {
    double sum = 0, largest = 0;
    int count = 0;
    for (int i = 0; i < s_.rows; i += s_.rows / sample > 1 ? s_.rows / sample : 1, ++count) {
      const BestTwo best = lists_.best_in_list(i);
      double low = lists_.bound(i);
      if (low == -kInf) low = best.second > -kInf ? best.second : best.first;
      sum += best.first > low ? best.first - low : 0;
      largest = larger(largest, best.first < 0 ? -best.first : best.first);
    }
    return {sum / count, largest};
  }

  // The scale on which prices are still wrong, the unit of eps. After a sorted start, how far it misses; else the mean
  // height; not less than a small part of the scores' median deviation, since the former is 0 on ties, and a mean is
  // useless on heavy tails.
  double price_unit() const {
    if (sorted_unit_ > 0) return sorted_unit_;
    const Height height = mean_height(s_.rows);
    const double unit = larger(larger(height.mean, 0.015 * median_deviation()), 1e-6 * height.largest);
    return unit > 0 ? unit : 1e-6 * largest_magnitude();
  }

  // Of the finite scores, from a read of its own: for the rare problem whose best scores are all 0 and tied.
  double largest_magnitude() const {
    double largest = 0;
    s_.work->counts.scores_read += int64_t(s_.rows) * s_.columns;
    for (int i = 0; i < s_.rows; ++i)
      for (int j = 0; j < s_.columns; ++j) {
        const double a = s_.score(i, j);
        if (a > -kInf) largest = larger(largest, a < 0 ? -a : a);
      }
    return largest;
  }

  double median_deviation() const {
    Buffer<double> sample;
    const int row_step = s_.rows / 64 > 0 ? s_.rows / 64 : 1, column_step = s_.columns / 64 > 0 ? s_.columns / 64 : 1;
    for (int i = 0; i < s_.rows; i += row_step)
      for (int j = (i * 7) % 13; j < s_.columns; j += column_step)
        if (s_.score(i, j) > -kInf) sample.push(s_.score(i, j));
    if (sample.size() < 8) return 0;
    const double middle = median(sample);
    for (int k = 0; k < sample.size(); ++k) sample[k] = sample[k] > middle ? sample[k] - middle : middle - sample[k];
    return median(sample);
  }

  static double median(Buffer<double>& x) {
    const auto less_than = [](double a, double b) { return a < b; };  // a type of this level, see state.h
    double* const middle = x.begin() + x.size() / 2;
    std::nth_element(x.begin(), middle, x.end(), less_than);
    return *middle;
  }

  // Where few rows are left the prices are nearly right: eps starts small, and rows that are within it keep their
  // columns. Else every phase starts afresh.
  Status auction(bool* within_budget) {
    const double waiting = double(waiting_.count) / s_.rows, unit = price_unit();
    const bool few = waiting < 0.1;
    const double last = (sorted_unit_ > 0 ? 1e-4 : few ? 5e-5 : 1e-5) * unit;
    const int64_t rescans = s_.work->counts.rescans, bids = s_.work->counts.bids;
    int patience = few ? 4 : 10;  // bids for each row
    for (int i = 0; i < s_.rows; ++i) bidders_.member[i] = false;
    bool settled = false;  // once one phase has ended by itself, eps only falls
    for (double eps = (few ? larger(waiting, 1e-3) : 0.1) * unit;; eps = larger(eps / (few ? 20 : 10), last)) {
      if (few) release_loose_rows(s_, lists_, waiting_, bidders_, eps);
      else release_all_rows();
      ++s_.work->counts.phases;
      for (;;) {
        auction_phase(s_, lists_, waiting_, bidders_, eps, tail(), int64_t(patience) * s_.rows);
        if (s_.work->should_stop()) return Status::interrupted;
        if (waiting_.count <= tail()) break;
        if (s_.work->counts.rescans - rescans > int64_t(kBudget) * s_.rows ||
            s_.work->counts.bids - bids > int64_t(12) * kBudget * s_.rows) {
          *within_budget = false;
          return Status::ok;
        }
        if (!settled) eps *= 5;
        patience = 10;
      }
      settled = true;
      patience = 10;
      if (eps <= last) return Status::ok;
    }
  }

  void release_all_rows() {
    s_.clear_assignment();
    waiting_.count = 0;
    for (int i = s_.rows - 1; i >= 0; --i) waiting_.push(i);
  }

  Status finish(ListPaths<T>& paths, bool within_budget, int* left) {
    const int64_t before = s_.work->counts.scores_read;
    const int64_t budget = int64_t(kBudget) * s_.rows * s_.columns;
    while (waiting_.count > 0) {
      if (!within_budget || s_.work->counts.scores_read - before > budget) {
        ++s_.work->counts.fallbacks;
        return finish_dense(s_, waiting_, left);
      }
      *left = waiting_.pop();
      if (!paths.augment(*left)) return Status::infeasible;
      if (s_.work->should_stop()) return Status::interrupted;
    }
    return Status::ok;
  }

  State<T>& s_;
  Lists<T> lists_;
  RowStack waiting_;
  Bidders bidders_;
  bool built_ = false;      // the lists
  double sorted_unit_ = 0;  // > 0 after a sorted start: three times its mean violation
  int* scratch_;            // one int for each column, of which there are at least as many as rows
};

}  // namespace lmcfast::LMCFAST_LEVEL
