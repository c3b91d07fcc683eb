// The front of the CPU solver: brings every problem into the solver's orientation, spreads batches over threads, and
// turns results back.
#include "lmcfast/assignment.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <thread>

#include "levels.h"
#include "pool.h"
#include "workspace.h"

namespace lmcfast {

namespace {

Status solve_at_level(const OrientedProblem<float>& p, const SolveOptions& o, OrientedResult& r) {
  return level().solve_float(p, o, r);
}
Status solve_at_level(const OrientedProblem<double>& p, const SolveOptions& o, OrientedResult& r) {
  return level().solve_double(p, o, r);
}

void add(AssignmentCounts& sum, const AssignmentCounts& c) {
  sum.scores_read += c.scores_read;
  sum.bids += c.bids;
  sum.paths += c.paths;
  sum.path_steps += c.path_steps;
  sum.rescans += c.rescans;
  sum.phases += c.phases;
  sum.dense += c.dense;
  sum.lists += c.lists;
  sum.fallbacks += c.fallbacks;
  sum.warm += c.warm;
}

// Contiguous rows at `to` from strides of which neither is 1.
template <class T>
void make_contiguous(const T* from, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, T* to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[i * columns + j] = from[i * row_stride + j * column_stride];
}

// How one problem is presented to the solver. Copied: neither the rows nor the columns lie together.
struct Orientation {
  bool transposed, copied;
};

template <class T>
Orientation orientation(const AssignmentProblem<T>& p, Ties ties) {
  const bool rows_lie_together = p.column_stride == 1 || p.columns <= 1;
  const bool columns_lie_together = p.row_stride == 1 || p.rows <= 1;
  const bool square_by_columns = p.rows == p.columns && columns_lie_together && !rows_lie_together;
  const bool turn_square = square_by_columns && ties == Ties::any;  // the transpose has other ties
  return {p.rows > p.columns || turn_square, !rows_lie_together && !columns_lie_together};
}

// What is wrong with problem k of a batch: the status and the place.
struct Failure {
  Status status = Status::ok;
  int64_t problem = -1, row = -1, column = -1;
  double value = 0;
};

template <class T>
Failure solve_one(const AssignmentProblem<T>& p, const AssignmentOptions& options, Interrupt interrupt, int64_t k,
                  AssignmentResult& out, AssignmentCounts& counts) {
  Workspace& w = Workspace::of_this_thread();
  const Workspace::Frame frame(w);
  const Orientation way = orientation(p, options.ties);
  const double sign = options.maximize ? 1 : -1;
  OrientedProblem<T> problem{};
  problem.sign = sign;
  problem.rows = int(way.transposed ? p.columns : p.rows);
  problem.columns = int(way.transposed ? p.rows : p.columns);
  problem.row_stride = way.transposed ? p.column_stride : p.row_stride;
  problem.column_stride = way.transposed ? p.row_stride : p.column_stride;
  if (problem.rows == 1) problem.row_stride = 1;  // a stride without a second element may be anything
  if (problem.columns == 1) problem.column_stride = 1;
  problem.scores = p.scores + k * p.batch_stride;
  if (way.copied) {
    T* copy = w.take<T>(int64_t(problem.rows) * problem.columns);
    make_contiguous(problem.scores, problem.rows, problem.columns, problem.row_stride, problem.column_stride, copy);
    problem.scores = copy;
    problem.row_stride = problem.columns;
    problem.column_stride = 1;
  }
  if (p.start_prices) {
    double* start = w.take<double>(p.columns);
    for (int64_t j = 0; j < p.columns; ++j) start[j] = sign * p.start_prices[k * p.columns + j];
    (way.transposed ? problem.row_prices : problem.column_prices) = start;
  }

  OrientedResult result{};
  result.column_of = w.take<int>(problem.rows);
  result.prices = w.take<double>(problem.columns);
  result.profits = w.take<double>(problem.rows);
  const int threads = p.batch == 1 ? options.threads : 1;
  const Status status = solve_at_level(problem, {options.certify, options.ties, threads, interrupt}, result);
  add(counts, result.counts);
  if (status != Status::ok) {
    Failure failure{status, k, result.row, result.column, result.value};
    if (way.transposed) std::swap(failure.row, failure.column);
    return failure;
  }

  // In a transposed solve the caller's columns are the solver's rows: their prices are the profits.
  int64_t* columns = out.columns + k * p.rows;
  double* prices = out.prices + k * p.columns;
  const double* solved = way.transposed ? result.profits : result.prices;
  for (int64_t j = 0; j < p.columns; ++j) prices[j] = sign * solved[j];
  if (way.transposed) {
    for (int64_t i = 0; i < p.rows; ++i) columns[i] = -1;
    for (int r = 0; r < problem.rows; ++r) columns[result.column_of[r]] = r;
  } else {
    for (int64_t i = 0; i < p.rows; ++i) columns[i] = result.column_of[i];
  }
  out.objective[k] = result.objective;
  out.gap[k] = result.gap;
  return {};
}

template <class T>
Status solve_batch(const AssignmentProblem<T>& p, const AssignmentOptions& options, AssignmentResult& out) {
  out.counts = {};
  out.problem = out.row = out.column = -1;
  if (p.batch == 0 || p.rows == 0 || p.columns == 0) {
    for (int64_t k = 0; k < p.batch * p.rows; ++k) out.columns[k] = -1;
    for (int64_t k = 0; k < p.batch * p.columns; ++k) out.prices[k] = 0;
    for (int64_t k = 0; k < p.batch; ++k) out.objective[k] = 0, out.gap[k] = 0;
    return Status::ok;
  }
  std::mutex mutex;
  Failure first;
  std::atomic<int64_t> give_up{p.batch};  // problems after the first failing one need no answer
  const std::thread::id caller = std::this_thread::get_id();
  auto solve = [&](int64_t k) {
    if (k > give_up.load(std::memory_order_relaxed)) return;
    Interrupt interrupt{};
    if (std::this_thread::get_id() == caller) interrupt = {options.interrupted, options.interrupted_argument};
    AssignmentCounts counts;
    Failure failure;
    try {
      failure = solve_one(p, options, interrupt, k, out, counts);
    } catch (const std::bad_alloc&) {
      failure = {Status::out_of_memory, k, -1, -1, 0};
    }
    const std::lock_guard<std::mutex> lock(mutex);
    add(out.counts, counts);
    // An interrupt outranks everything: the caller's handler has spoken already. Else the first problem counts.
    if (failure.status == Status::ok || first.status == Status::interrupted) return;
    if (failure.status != Status::interrupted && first.problem >= 0 && first.problem < k) return;
    first = failure;
    give_up.store(failure.status == Status::interrupted ? -1 : k);
  };
  using Solve = decltype(solve);
  if (p.batch == 1) solve(0);  // its threads go to the passes inside
  else parallel_for(p.batch, options.threads, [](void* s, int64_t k) { (*static_cast<Solve*>(s))(k); }, &solve);
  if (first.problem < 0) return Status::ok;
  out.problem = first.problem;
  out.row = first.row;
  out.column = first.column;
  out.value = first.value;
  return first.status;
}

}  // namespace

Status solve_assignment(const AssignmentProblem<float>& p, const AssignmentOptions& o, AssignmentResult& r) {
  return solve_batch(p, o, r);
}
Status solve_assignment(const AssignmentProblem<double>& p, const AssignmentOptions& o, AssignmentResult& r) {
  return solve_batch(p, o, r);
}

}  // namespace lmcfast
