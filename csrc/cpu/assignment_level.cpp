// The solver for one vector level. Compiled once for each, with LMCFAST_LEVEL set and the processor's flags.
#include "certificate.h"
#include "dense.h"
#include "level.h"
#include "list_solver.h"
#include "scan_order.h"
#include "small.h"
#include "state.h"
#include "transpose.h"

namespace lmcfast::LMCFAST_LEVEL {

namespace {

// Prices far above the scores would drown them in rounding; such a start is worth nothing.
constexpr double kWidestStart = 4;

constexpr int64_t kThreadedSize = int64_t(1) << 20;

// Up to here the whole matrix fits the nearer caches, and lists cost more than they save.
constexpr int kDenseRows = 384;

// Whether the present prices, of this spread, are a better start than zero prices, by a sample of the rows: the sum of
// all profits and prices bounds what any assignment is worth, and the lower bound is nearer to the optimum. Also false
// when the spread is far wider than the scores of the sample, or one of these is invalid.
template <class T>
bool better_than_zero(const State<T>& s, double spread) {
  const int sample = s.rows < 64 ? s.rows : 64;
  double excess = 0, largest = 0;  // of the profits at the present prices over those at zero prices
  for (int t = 0; t < sample; ++t) {
    Doubles priced = broadcast(-kInf), plain = priced, least = -priced;
    for_each_vector(s, int(int64_t(t) * s.rows / sample), -kInf, [&](Doubles a, int j) {
      priced = max(priced, a - load(s.price + j));
      plain = max(plain, a);
      least = min(least, select(less(broadcast(-kInf), a), a, broadcast(0.0)));
    });
    const double best = reduce_max(plain);
    largest = larger(largest, larger(best, -reduce_min(least)));
    if (best > -kInf) excess += reduce_max(priced) - best;
  }
  s.work->counts.scores_read += int64_t(sample) * s.columns;
  double prices = 0;
  for (int j = 0; j < s.columns; ++j) prices += s.price[j];
  return spread <= kWidestStart * largest && excess / sample + prices / s.columns <= 1e-12 * largest;
}

// Copies the caller's start prices, shifted so that the lowest is 0 (which changes no decision). False: no usable
// start, and the prices are zero.
template <class T>
bool start_warm(const OrientedProblem<T>& problem, State<T>& s) {
  // With spare columns an optimum needs the unassigned ones at the lowest price, which prices of another problem break.
  if (problem.rows != problem.columns) return false;
  if (problem.column_prices) {
    std::memcpy(s.price, problem.column_prices, size_t(s.columns) * sizeof(double));
  } else if (problem.row_prices) {
    for (int j = 0; j < s.columns; ++j) s.price[j] = -kInf;
    for (int i = 0; i < s.rows; ++i)
      for (int j = 0; j < s.columns; ++j) s.price[j] = larger(s.price[j], s.score(i, j) - problem.row_prices[i]);
    s.work->counts.scores_read += int64_t(s.rows) * s.columns;
  } else {
    return false;
  }
  double least = kInf, most = -kInf;
  for (int j = 0; j < s.columns; ++j) {
    least = smaller(least, s.price[j]);
    most = larger(most, s.price[j]);
  }
  for (int j = 0; j < s.columns; ++j) s.price[j] -= least;
  if (most - least < kInf && better_than_zero(s, most - least)) return true;
  for (int j = 0; j < s.columns; ++j) s.price[j] = 0;
  return false;
}

// Whether the rows of a problem whose columns lie together are copied only when they are needed (lazy_rows.h). Scores
// in float64 are checked in a read of their own, which would need them all. A square problem may start from prices,
// with which its lists need whole rows.
template <class T>
bool copies_lazily(const OrientedProblem<T>& problem) {
  if (sizeof(T) != sizeof(float) || problem.column_stride == 1 || problem.rows <= kDenseRows) return false;
  return problem.rows < problem.columns || LazyRows<T>::suits_strips(problem.rows, problem.columns);
}

template <class T>
Status solve(const OrientedProblem<T>& given, const SolveOptions& options, OrientedResult& out) {
  out.row = out.column = -1;
  Workspace& w = Workspace::of_this_thread();
  const Workspace::Frame frame(w);
  OrientedProblem<T> problem = given;
  const bool ordered = options.ties == Ties::scipy;
  if (given.column_stride != 1 && (ordered || !copies_lazily(given))) {
    T* const copy = w.take<T>(int64_t(given.rows) * given.columns);
    copy_transposed(given.scores, given.rows, given.columns, given.column_stride, copy, given.columns);
    problem.scores = copy;
    problem.row_stride = given.columns;
    problem.column_stride = 1;
  }
  if (problem.columns <= kSmallColumns && !ordered && !problem.column_prices && !problem.row_prices) {
    if (problem.columns <= 8) return solve_small<8>(problem, options, out);
    if (problem.columns <= 16) return solve_small<16>(problem, options, out);
    if (problem.columns <= 24) return solve_small<24>(problem, options, out);
    if (problem.columns <= 32) return solve_small<32>(problem, options, out);
    if (problem.columns <= 48) return solve_small<48>(problem, options, out);
    return solve_small<64>(problem, options, out);
  }
  Work work;
  work.interrupted = options.interrupt.ask;
  work.argument = options.interrupt.argument;
  // Smaller problems are done before a second thread has woken up.
  work.threads = int64_t(problem.rows) * problem.columns >= kThreadedSize ? options.threads : 1;
  const int64_t size = padded(problem.columns);
  State<T> s{problem.scores,
             problem.row_stride,
             problem.rows,
             problem.columns,
             problem.sign,
             w.take<double>(size),
             out.column_of,
             w.take<int>(problem.columns),
             w.take<uint64_t>(State<T>::words(problem.columns)),
             &work};
  if (copies_lazily(problem)) {
    s.column_stride = problem.column_stride;
    s.lazy = new (w.take<LazyRows<T>>(1)) LazyRows<T>(s.scores, s.rows, s.columns, s.column_stride);
  }
  for (int64_t j = 0; j < size; ++j) s.price[j] = 0;
  s.clear_assignment();

  // The list method checks the scores in the read that it makes anyway.
  const bool dense = ordered || s.rows <= kDenseRows;
  ScoreCheck check{true, false, -1, -1};
  if (dense) check = check_scores(s);
  s.all_finite = check.all_finite;
  const bool warm = check.valid && !ordered && start_warm(problem, s);
  const bool prove = options.certify != Certify::none;
  Status status = Status::invalid_score;
  work.counts.warm += warm;
  if (dense && check.valid) {
    ++work.counts.dense;
    status = ordered ? solve_in_scan_order(s, &out.row) : solve_dense(s, warm, &out.row);
    if (status == Status::ok && prove) write_profits_by_reading(s, out.profits);
  } else if (check.valid) {
    ++work.counts.lists;
    ListSolver<T> solver(s);
    solver.build(warm, &check);
    if (check.valid) status = solver.solve(&out.row);
    if (status == Status::ok && options.certify == Certify::full) write_profits_by_reading(s, out.profits);
    else if (status == Status::ok && prove) solver.write_profits(out.profits);
  }
  if (status == Status::invalid_score) {
    out.row = check.row;
    out.column = check.column;
    out.value = double(s.row(check.row)[check.column]);
  }
  if (status == Status::ok) {
    const Certificate proof = certify(s, prove, out.profits);
    out.objective = proof.objective;
    out.gap = proof.gap;
    if (!proof.proved) {
      out.value = proof.gap;
      status = Status::not_certified;
    }
    std::memcpy(out.prices, s.price, size_t(s.columns) * sizeof(double));
  }
  out.counts = work.counts;
  return status;
}

bool supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
  return true;
#endif
}

#define LMCFAST_STRING_OF(x) #x
#define LMCFAST_STRING(x) LMCFAST_STRING_OF(x)

}  // namespace

extern const Level kLevel;
const Level kLevel = {LMCFAST_STRING(LMCFAST_LEVEL), supported, solve<float>, solve<double>};

}  // namespace lmcfast::LMCFAST_LEVEL
