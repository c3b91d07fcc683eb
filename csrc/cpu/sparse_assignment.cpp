// The solver for listed pairs: bids without a tolerance, then shortest augmenting paths with a heap.
//
// Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems",
// Computing 38 (1987) 325-340, for maximisation, with rows as bidders; symbols and invariant as in state.h.
#include "lmcfast/sparse_assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "sum.h"

namespace lmcfast {

namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();
constexpr double kLargest = 0x1p1000;  // prices are sums of differences of scores: beyond this they could overflow

// rows <= columns, a[i,j] = sign * value, to be maximised.
struct Lists {
  const int64_t* indptr;
  const int32_t* indices;
  const double* values;
  int rows, columns;
  double sign;
};

// The lists by columns, with the storage that they point to.
struct Transposed {
  std::vector<int64_t> indptr;
  std::vector<int32_t> indices;
  std::vector<double> values;

  explicit Transposed(const SparseAssignmentProblem& p) : indptr(size_t(p.columns) + 1, 0) {
    const int64_t entries = p.indptr[p.rows];
    indices.resize(size_t(entries));
    values.resize(size_t(entries));
    for (int64_t e = 0; e < entries; ++e) ++indptr[size_t(p.indices[e]) + 1];
    for (int64_t j = 0; j < p.columns; ++j) indptr[size_t(j) + 1] += indptr[size_t(j)];
    std::vector<int64_t> next(indptr.begin(), indptr.end() - 1);
    for (int64_t i = 0; i < p.rows; ++i)
      for (int64_t e = p.indptr[i]; e < p.indptr[i + 1]; ++e) {
        const int64_t at = next[size_t(p.indices[e])]++;
        indices[size_t(at)] = int32_t(i);
        values[size_t(at)] = p.values[e];
      }
  }
};

class SparseSolver {
 public:
  SparseSolver(const Lists& lists, const AssignmentOptions& options, AssignmentCounts& counts)
      : lists_(lists),
        options_(options),
        counts_(counts),
        price(size_t(lists.columns), 0.0),
        column_of(size_t(lists.rows), -1),
        row_of(size_t(lists.columns), -1),
        distance_(size_t(lists.columns)),
        reached_from_(size_t(lists.columns)),
        seen_in_(size_t(lists.columns), 0),
        closed_in_(size_t(lists.columns), 0) {}

  // On `infeasible`, `*left` is a row that cannot be assigned together with those before it.
  Status solve(int* left) {
    std::vector<int> waiting(size_t(lists_.rows));
    for (int k = 0; k < lists_.rows; ++k) waiting[size_t(k)] = lists_.rows - 1 - k;
    if (lists_.rows == lists_.columns) start_at_column_maxima();
    for (int round = 0; round < kRoundsOfBids && !waiting.empty(); ++round) bid(waiting);
    while (!waiting.empty()) {
      *left = waiting.back();
      waiting.pop_back();
      if (!augment(*left)) return Status::infeasible;
      if (should_stop()) return Status::interrupted;
    }
    return Status::ok;
  }

  double profit(int i) const {
    double best = kNone;
    for (int64_t e = lists_.indptr[i]; e < lists_.indptr[i + 1]; ++e) best = std::max(best, margin(e));
    return best;
  }

 private:
  static constexpr int kRoundsOfBids = 2;

  struct Event {
    double distance;
    int column;
    bool operator<(const Event& other) const { return distance > other.distance; }  // the nearest on top of the heap
  };

  struct BestTwo {
    double first, second;
    int column;
  };

  double score(int64_t e) const { return lists_.sign * lists_.values[e]; }
  double margin(int64_t e) const { return score(e) - price[size_t(lists_.indices[e])]; }

  bool should_stop() {
    if (counts_.scores_read < next_question_) return false;
    next_question_ = counts_.scores_read + (int64_t(1) << 22);
    return options_.interrupted && options_.interrupted(options_.interrupted_argument);
  }

  void assign(int i, int j) {
    column_of[size_t(i)] = j;
    row_of[size_t(j)] = i;
  }

  // Any prices are a legal start where every column will be assigned; the lowest is 0.
  void start_at_column_maxima() {
    std::fill(price.begin(), price.end(), kNone);
    const int64_t entries = lists_.indptr[lists_.rows];
    for (int64_t e = 0; e < entries; ++e) {
      double& most = price[size_t(lists_.indices[e])];
      most = std::max(most, score(e));
    }
    counts_.scores_read += entries;
    const double least = *std::min_element(price.begin(), price.end());
    for (double& p : price) p = least == kNone ? 0 : p - least;
  }

  // Of several best columns a free one.
  BestTwo best_two(int i) {
    BestTwo best{kNone, kNone, -1};
    counts_.scores_read += lists_.indptr[i + 1] - lists_.indptr[i];
    for (int64_t e = lists_.indptr[i]; e < lists_.indptr[i + 1]; ++e) {
      const double v = margin(e);
      if (v == kNone) continue;
      const int j = lists_.indices[e];
      if (v > best.first) best = {v, best.first, j};
      else if (v > best.second) best.second = v;
      if (v == best.first && row_of[size_t(best.column)] >= 0 && row_of[size_t(j)] < 0) best.column = j;
    }
    return best;
  }

  // Every waiting row raises the price of its best column by its lead over the second best and takes it, and the owner
  // bids in turn, in chains of a few. Rows that could only trade places wait on, for the shortest paths.
  void bid(std::vector<int>& waiting) {
    constexpr int kLongestChain = 16;
    std::vector<int> aside;
    for (int chain = 0; !waiting.empty();) {
      const int i = waiting.back();
      waiting.pop_back();
      const BestTwo best = best_two(i);
      ++counts_.bids;
      const int j = best.column, owner = j < 0 ? -1 : row_of[size_t(j)];
      const double by = best.second > kNone ? best.first - best.second : 0;
      if (j < 0 || (owner >= 0 && !(price[size_t(j)] + by > price[size_t(j)]))) {
        aside.push_back(i);
        chain = 0;
        continue;
      }
      price[size_t(j)] += by;
      assign(i, j);
      if (owner < 0) {
        chain = 0;
        continue;
      }
      column_of[size_t(owner)] = -1;
      if (++chain < kLongestChain) {
        waiting.push_back(owner);
      } else {
        aside.push_back(owner);
        chain = 0;
      }
    }
    waiting.assign(aside.rbegin(), aside.rend());
  }

  // Shortest augmenting path from row `start` (Dijkstra over u[i] - a[i,j] + p[j] >= 0). The nearest free column is
  // remembered apart: only owned columns nearer than it can matter, and only these enter the heap.
  bool augment(int start) {
    ++search_;
    ++counts_.paths;
    heap_.clear();
    scanned_.clear();
    end_ = -1;
    end_distance_ = std::numeric_limits<double>::infinity();
    counts_.scores_read += lists_.indptr[start + 1] - lists_.indptr[start];
    double reach = 0, row_profit = profit(start);
    if (row_profit == kNone) return false;
    for (int i = start;;) {
      relax(i, reach, row_profit);
      while (!heap_.empty() && is_stale(heap_.front())) pop();
      if (heap_.empty() || heap_.front().distance >= end_distance_) break;
      const Event next = heap_.front();
      pop();
      closed_in_[size_t(next.column)] = search_;
      scanned_.push_back(next);
      reach = next.distance;
      i = row_of[size_t(next.column)];
      row_profit = assigned_margin(i);
    }
    if (end_ < 0) return false;
    for (const Event& e : scanned_) price[size_t(e.column)] += end_distance_ - e.distance;
    for (int j = end_, i = -1; i != start;) {
      i = reached_from_[size_t(j)];
      const int next = column_of[size_t(i)];
      assign(i, j);
      j = next;
    }
    return true;
  }

  void relax(int i, double reach, double row_profit) {
    ++counts_.path_steps;
    counts_.scores_read += lists_.indptr[i + 1] - lists_.indptr[i];
    for (int64_t e = lists_.indptr[i]; e < lists_.indptr[i + 1]; ++e) {
      const size_t j = size_t(lists_.indices[e]);
      const double through = std::max(reach, reach + (row_profit - margin(e)));
      if (!(through < end_distance_) || closed_in_[j] == search_) continue;
      if (seen_in_[j] == search_ && distance_[j] <= through) continue;
      seen_in_[j] = search_;
      distance_[j] = through;
      reached_from_[j] = i;
      if (row_of[j] < 0) {
        end_ = int(j);
        end_distance_ = through;
      } else {
        heap_.push_back({through, int(j)});
        std::push_heap(heap_.begin(), heap_.end());
      }
    }
  }

  bool is_stale(const Event& e) const {
    return closed_in_[size_t(e.column)] == search_ || distance_[size_t(e.column)] < e.distance;
  }
  void pop() {
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
  }

  // Of an assigned row, which is tight up to rounding: from its own pair.
  double assigned_margin(int i) const {
    int64_t e = lists_.indptr[i];
    while (lists_.indices[e] != column_of[size_t(i)]) ++e;
    return margin(e);
  }

  const Lists& lists_;
  const AssignmentOptions& options_;
  AssignmentCounts& counts_;

 public:
  std::vector<double> price;
  std::vector<int> column_of, row_of;

 private:
  std::vector<double> distance_;
  std::vector<int> reached_from_;
  std::vector<int> seen_in_, closed_in_;  // the search that last reached, or closed, a column
  std::vector<Event> heap_, scanned_;
  int search_ = 0, end_ = -1;
  double end_distance_ = 0;
  int64_t next_question_ = int64_t(1) << 22;
};

// NaN, infinities that do not forbid, scores beyond the range of prices, pairs listed twice.
Status check(const SparseAssignmentProblem& p, double sign, AssignmentResult& out) {
  std::vector<int> listed_by(size_t(p.columns), -1);
  for (int64_t i = 0; i < p.rows; ++i)
    for (int64_t e = p.indptr[i]; e < p.indptr[i + 1]; ++e) {
      const double a = sign * p.values[e];
      int& before = listed_by[size_t(p.indices[e])];
      const bool valid = a <= kLargest && (a >= -kLargest || a == kNone);
      if (valid && before != int(i)) {
        before = int(i);
        continue;
      }
      out.row = i;
      out.column = p.indices[e];
      out.value = p.values[e];
      return valid ? Status::repeated_pair : Status::invalid_score;
    }
  return Status::ok;
}

// Compares the dual bound with the assignment's value, as `certify` of certificate.h does for dense scores.
Status prove(const Lists& lists, const SparseSolver& s, std::vector<double>& profits, AssignmentResult& out) {
  ExactSum value, bound;
  double scale = 0;
  bool prices_fit = true;
  for (int j = 0; j < lists.columns; ++j) {
    const double p = s.price[size_t(j)];
    bound.add(p);
    scale = std::max(scale, std::fabs(p));
    prices_fit &= lists.rows == lists.columns || (s.row_of[size_t(j)] < 0 ? p == 0 : p >= 0);
  }
  for (int i = 0; i < lists.rows; ++i) {
    profits[size_t(i)] = s.profit(i);
    bound.add(profits[size_t(i)]);
    int64_t e = lists.indptr[i];
    while (lists.indices[e] != s.column_of[size_t(i)]) ++e;
    const double a = lists.sign * lists.values[e];
    value.add(a);
    scale = std::max(scale, std::fabs(a));
  }
  out.counts.scores_read += lists.indptr[lists.rows];
  bound.add(-value);
  *out.objective = lists.sign * value.value();
  *out.gap = bound.value();
  if (prices_fit && std::fabs(*out.gap) <= 16.0 * lists.rows * 0x1p-53 * scale) return Status::ok;
  out.value = *out.gap;
  return Status::not_certified;
}

Status solve_oriented(const Lists& lists, bool transposed, const AssignmentOptions& options, AssignmentResult& out) {
  SparseSolver solver(lists, options, out.counts);
  int left = -1;
  Status status = solver.solve(&left);
  if (status == Status::infeasible) (transposed ? out.column : out.row) = left;
  if (status != Status::ok) return status;
  std::vector<double> profits(size_t(lists.rows));
  status = prove(lists, solver, profits, out);
  const std::vector<int>& columns = transposed ? solver.row_of : solver.column_of;
  const std::vector<double>& prices = transposed ? profits : solver.price;
  std::copy(columns.begin(), columns.end(), out.columns);
  std::transform(prices.begin(), prices.end(), out.prices, [&](double p) { return lists.sign * p; });
  return status;
}

}  // namespace

Status solve_sparse_assignment(const SparseAssignmentProblem& p, const AssignmentOptions& options,
                               AssignmentResult& out) {
  out.counts = {};
  out.problem = 0;
  out.row = out.column = -1;
  *out.objective = *out.gap = 0;
  const double sign = options.maximize ? 1 : -1;
  try {
    const Status status = check(p, sign, out);
    if (status != Status::ok) return status;
    if (p.rows == 0 || p.columns == 0) {
      std::fill(out.columns, out.columns + p.rows, -1);
      std::fill(out.prices, out.prices + p.columns, 0.0);
      return Status::ok;
    }
    if (p.rows <= p.columns)
      return solve_oriented({p.indptr, p.indices, p.values, int(p.rows), int(p.columns), sign}, false, options, out);
    const Transposed t(p);
    return solve_oriented({t.indptr.data(), t.indices.data(), t.values.data(), int(p.columns), int(p.rows), sign}, true,
                          options, out);
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
}

}  // namespace lmcfast
