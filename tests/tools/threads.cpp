// Uses the thread pool as callers may: several threads solve at once, each with several threads, batches and large
// problems, after tasks that throw; a forked child solves too. Made for the thread sanitizer. Prints what it did; exit
// code 1 when a result depends on the threads.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "lmcfast/assignment.h"
#include "pool.h"

namespace {

struct Solved {
  std::vector<int64_t> columns;
  std::vector<double> prices, objective, gap;
  lmcfast::Status status;
  bool operator==(const Solved& o) const {
    return columns == o.columns && prices == o.prices && objective == o.objective && status == o.status;
  }
};

struct Problem {
  int64_t batch, rows, columns;
  std::vector<float> scores;

  Problem(unsigned seed, int64_t batch_, int64_t rows_, int64_t columns_)
      : batch(batch_), rows(rows_), columns(columns_), scores(size_t(batch_ * rows_ * columns_)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& a : scores) a = normal(random);
  }

  Solved solve(int threads) const {
    Solved s{std::vector<int64_t>(size_t(batch * rows)), std::vector<double>(size_t(batch * columns)),
             std::vector<double>(size_t(batch)), std::vector<double>(size_t(batch)), lmcfast::Status::ok};
    lmcfast::AssignmentResult result{};
    result.columns = s.columns.data();
    result.prices = s.prices.data();
    result.objective = s.objective.data();
    result.gap = s.gap.data();
    lmcfast::AssignmentOptions options;
    options.certify = lmcfast::Certify::full;
    options.threads = threads;
    s.status = lmcfast::solve_assignment(
        lmcfast::AssignmentProblem<float>{scores.data(), batch, rows, columns, rows * columns, columns, 1, nullptr},
        options, result);
    return s;
  }
};

int check_exceptions() {
  int caught = 0;
  for (int round = 0; round < 50; ++round) try {
      lmcfast::parallel_for(
          64, 3,
          [](void*, int64_t k) {
            if (k == 40) throw std::runtime_error("task");
          },
          nullptr);
    } catch (const std::runtime_error&) {
      ++caught;
    }
  return caught == 50 ? 0 : 1;
}

int check_fork(const Problem& problem, const Solved& expected) {
  const pid_t child = fork();
  if (child == 0) _exit(problem.solve(3) == expected ? 0 : 1);
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}

}  // namespace

int main() {
  const Problem problems[] = {{1, 40, 12, 12}, {2, 9, 30, 41}, {3, 1, 700, 700}, {4, 1, 500, 620}, {5, 3, 90, 90}};
  std::vector<Solved> expected;
  for (const Problem& p : problems) expected.push_back(p.solve(1));
  std::atomic<int> wrong{0}, solved{0};
  wrong += check_exceptions();
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 10; ++round)
        for (size_t k = 0; k < expected.size(); ++k, ++solved) {
          const size_t p = (k + size_t(caller)) % expected.size();
          wrong += !(problems[p].solve(2 + (round + caller) % 3) == expected[p]);
        }
    });
  for (std::thread& caller : callers) caller.join();
  wrong += check_fork(problems[0], expected[0]);
  std::printf("threads: %d problems solved at once, %d wrong\n", solved.load(), wrong.load());
  return wrong.load() ? EXIT_FAILURE : EXIT_SUCCESS;
}
