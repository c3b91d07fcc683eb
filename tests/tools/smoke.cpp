// Solves small problems through the core's interface and compares them with brute force: a check for machines on which
// only a C++ program runs (cross builds, sanitizers). Prints what it did; exit code 1 on the first difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "lmcfast/assignment.h"

namespace {

// The best sum over all ways to give each of `rows` <= `columns` rows its own column.
template <class T>
double brute_force(const std::vector<T>& a, int rows, int columns) {
  std::vector<int> order(columns);
  std::iota(order.begin(), order.end(), 0);
  double best = -INFINITY;
  do {
    double sum = 0;
    for (int i = 0; i < rows; ++i) sum += a[i * columns + order[i]];
    best = std::max(best, sum);
  } while (std::next_permutation(order.begin(), order.end()));
  return best;
}

template <class T>
int check(std::mt19937& random, int rows, int columns, bool ties) {
  std::vector<T> a(rows * columns);
  for (T& x : a) x = T(ties ? int(random() % 4) : std::normal_distribution<double>()(random));
  for (int i = 0; i < rows; ++i)  // forbidden pairs, never on the diagonal, so that the problem stays feasible
    for (int j = 0; j < columns; ++j)
      if (i != j && random() % 10 == 0) a[i * columns + j] = -INFINITY;
  std::vector<int64_t> assigned(rows);
  std::vector<double> prices(columns);
  double objective, gap;
  lmcfast::AssignmentResult result{};
  result.columns = assigned.data();
  result.prices = prices.data();
  result.objective = &objective;
  result.gap = &gap;
  lmcfast::AssignmentOptions options;
  options.certify = lmcfast::Certify::full;
  const lmcfast::AssignmentProblem<T> problem{a.data(), 1, rows, columns, 0, columns, 1, nullptr};
  const lmcfast::Status status = lmcfast::solve_assignment(problem, options, result);
  if (status != lmcfast::Status::ok) {
    std::printf("status %d on %d x %d\n", int(status), rows, columns);
    return 1;
  }
  if (rows <= 8 && columns <= 8 && std::fabs(objective - brute_force(a, rows, columns)) > 1e-9) {
    std::printf("objective %.17g on %d x %d\n", objective, rows, columns);
    return 1;
  }
  return 0;
}

}  // namespace

int main() {
  std::mt19937 random(20240204);
  int count = 0, failed = 0;
  for (int k = 0; k < 300; ++k, ++count) {
    const int columns = 1 + int(random() % 7), rows = 1 + int(random() % columns);
    failed +=
        k % 2 ? check<float>(random, rows, columns, k % 3 == 0) : check<double>(random, rows, columns, k % 3 == 0);
  }
  for (int n : {16, 31, 64, 200, 450, 700}) {
    failed += check<float>(random, n, n, false) + check<float>(random, n, n + n / 3, true);
    failed += check<double>(random, n, n, true) + check<double>(random, n - 3, n, false);
    count += 4;
  }
  std::printf("level %s: %d problems solved, %d wrong\n", lmcfast::level_in_use(), count, failed);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
