// The auction's kernels in states that a GPU may bring about and that no schedule of the emulator does.
#include "check.h"

#if !defined(__CUDACC__)

#include <vector>

#include "cuda/assignment/launch.h"

using namespace lmcfast::cuda;
namespace emulation = lmcfast::emulation;

namespace {

// A problem on the device up to where its first bids begin.
struct Auction {
  AssignmentReport report = {};
  std::vector<int64_t> columns_out;
  std::vector<double> prices_out;
  std::vector<u64> workspace;
  State<float> s;
  Launch shape{8, 64};

  Auction(const std::vector<float>& scores, int rows, int columns)
      : columns_out(size_t(rows)), prices_out(size_t(columns)), workspace(1 << 20) {
    AssignmentProblem p = {};
    p.scores = scores.data();
    p.rows = rows;
    p.columns = p.row_stride = columns;
    p.column_stride = 1;
    p.columns_out = columns_out.data();
    p.prices_out = prices_out.data();
    AssignmentOptions o;
    o.full_list = 0;
    s = make_state<float>(p, o, workspace.data(), &report);
    for (const auto kernel : {clear_kernel<float>, scan_kernel<float>, plan_kernel<float>, begin_phase_kernel<float>}) {
      const bool one_block = kernel == plan_kernel<float>;
      CHECK(test::runs(one_block ? Launch{1, 64} : shape, kernel, s));
    }
  }
};

void configure(std::uint64_t seed) {
  emulation::Options options;
  options.seed = seed;
  options.residency = 16;
  options.work_limit = 10'000'000;
  emulation::configure(options);
}

// 40 columns tie at a price between two floats, so that keys round their value up; the floor price of one has not
// arrived. Its key alone is far above the others, and the list's bound above the best value.
TEST(late_floor_price) {
  configure(0);
  const int columns = 100, tied = 40;
  std::vector<float> scores(columns, 0.f);
  for (int j = 0; j < tied; j++) scores[size_t(j)] = 1;
  Auction a(scores, 1, columns);
  const double delta = a.s.control->delta;
  const u64 units = u64(0.1 / delta);
  for (int j = 0; j < columns; j++) {
    a.s.word[j] = make_word(units, -1);
    a.s.floor_price[j] = __double2float_rd(price_of(units, delta));
  }
  a.s.floor_price[3] = 0;
  a.s.bound[0] = 2;  // the row is scanned again
  CHECK(test::runs(a.shape, chains_kernel<float>, a.s));
  CHECK_EQUAL(a.s.control->bids, 1u);
  CHECK_EQUAL(a.s.control->left, 0u);
  CHECK(a.s.control->exact_scans > 0);
}

// Rows bid for the same columns at once: the last word's price stays, whoever comes last with its floor.
TEST(floor_prices_of_crossing_bids) {
  const int rows = 24, columns = 25;
  std::vector<float> scores(size_t(rows * columns));
  test::Random random;
  for (int j = 0; j < columns; j++) scores[size_t(j)] = random.uniform();
  for (int k = columns; k < rows * columns; k++)
    scores[size_t(k)] = scores[size_t(k % columns)] + 1e-3f * random.uniform();
  for (int seed = 1; seed <= 200; seed++) {
    configure(std::uint64_t(seed));
    const Auction a(scores, rows, columns);
    CHECK(test::runs(a.shape, chains_kernel<float>, a.s));
    CHECK(a.s.control->bids > u64(rows));
    for (int j = 0; j < columns; j++)
      CHECK_EQUAL(a.s.floor_price[j], __double2float_rd(word_price(a.s.word[j], a.s.control->delta)));
  }
}

}  // namespace
#endif
