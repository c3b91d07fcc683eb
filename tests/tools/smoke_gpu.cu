// Solves small problems with the assignment kernels, and forms a few products with the similarity kernels, in the
// emulator: a program for builds with sanitizers, checked by itself. Arguments: the largest size; "relaxed" to plant
// the fault that the auction's atomic hands nothing over, which the thread sanitizer must find.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/device.h"
#include "lmcfast/cuda_assignment.h"
#include "lmcfast/cuda_devices.h"
#include "lmcfast/cuda_similarity.h"

namespace {

using namespace lmcfast;
using namespace lmcfast::cuda;

std::mt19937 random_bits(20240605);
int solved = 0, wrong = 0;
long long scans = 0, bids = 0;

double normal() { return std::normal_distribution<double>()(random_bits); }

enum class Kind { random, ties, constant, dead, forbidden, columns, count };

double score(Kind kind, int i, int j) {
  switch (kind) {
    case Kind::ties:
      return double(random_bits() % 4);
    case Kind::constant:
      return 1;
    case Kind::dead:
      return i % 3 && j % 3 ? normal() : 0;
    case Kind::forbidden:
      return i != j && random_bits() % 10 == 0 ? -INFINITY : normal();
    case Kind::columns:
      return normal() + 0.1 * j;  // all rows list the same columns first
    default:
      return normal();
  }
}

void store(std::vector<float>& out, size_t at, double v) { out[at] = float(v); }
void store(std::vector<double>& out, size_t at, double v) { out[at] = v; }
void store(std::vector<__nv_bfloat16>& out, size_t at, double v) { out[at] = __float2bfloat16_rn(float(v)); }
void store(std::vector<__half>& out, size_t at, double v) { out[at] = __float2half_rn(float(v)); }
double number(float v) { return v; }
double number(double v) { return v; }
double number(__nv_bfloat16 v) { return __bfloat162float(v); }
double number(__half v) { return __half2float(v); }

// The sum over the columns that were given, each at most once; NaN where that is not an assignment.
template <class T>
double sum_of(const T* scores, int rows, int columns, const int64_t* assigned) {
  std::vector<bool> taken(size_t(columns), false);
  double sum = 0;
  int count = 0;
  for (int i = 0; i < rows; ++i) {
    const int64_t j = assigned[i];
    if (j < 0) continue;
    if (j >= columns || taken[size_t(j)]) return NAN;
    taken[size_t(j)] = true;
    sum += number(scores[i * columns + j]);
    ++count;
  }
  return count == std::min(rows, columns) ? sum : NAN;
}

void judge(const AssignmentReport& report, double sum, int rows, int columns, Kind kind, const char* how) {
  const double error = std::fabs(report.objective - sum);
  const bool good = !(report.status & kRefused) && error <= 1e-9 * (1 + std::fabs(sum));
  ++solved;
  scans += report.scans;
  bids += report.bids;
  if (good) return;
  ++wrong;
  std::printf("%s, %d x %d, kind %d: status %lld, objective %.17g, sum %.17g, gap %g\n", how, rows, columns, int(kind),
              (long long)report.status, report.objective, sum, report.gap);
}

void judge_enqueued(const Enqueued& done, const char* how) {
  if (done.error == 0) return;
  ++wrong;
  std::printf("%s: %s\n", how, error_text(done.error));
}

template <class T>
struct Problems {
  int count, rows, columns;
  Kind kind;
  std::vector<T> scores;
  std::vector<int64_t> assigned;
  std::vector<double> prices;
  std::vector<AssignmentReport> reports;

  Problems(int count, int rows, int columns, Kind kind)
      : count(count),
        rows(rows),
        columns(columns),
        kind(kind),
        scores(size_t(count) * size_t(rows * columns)),
        assigned(size_t(count * rows)),
        prices(size_t(count * columns)),
        reports(size_t(count)) {
    for (int k = 0; k < count; ++k)
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) store(scores, size_t((k * rows + i) * columns + j), score(kind, i, j));
  }
  AssignmentProblem first() {
    return {scores.data(), rows, columns, columns, 1, nullptr, assigned.data(), prices.data(), nullptr};
  }
  void judge_all(const char* how) const {
    for (int k = 0; k < count; ++k) {
      const double sum = sum_of(&scores[size_t(k * rows * columns)], rows, columns, &assigned[size_t(k * rows)]);
      judge(reports[size_t(k)], sum, rows, columns, kind, how);
    }
  }
};

AssignmentOptions options_of(Dtype type, bool whole_lists) {
  AssignmentOptions options;
  options.type = type;
  options.blocks = 4;
  options.threads = 64;
  options.path_threads = 64;
  options.full_list = whole_lists ? 128 : 0;  // 0: bounds matter in small problems, too
  return options;
}

template <class T>
void solve_all(int rows, int columns, Kind kind, Dtype type, unsigned seed) {
  lmcfast::emulation::Options emulation = lmcfast::emulation::options();
  emulation.seed = seed;
  lmcfast::emulation::configure(emulation);
  const AssignmentOptions options = options_of(type, seed % 2);
  Problems<T> one(1, rows, columns, kind);
  std::vector<double> workspace(workspace_bytes(rows, columns, type) / sizeof(double) + 64);
  const auto align = [](std::vector<double>& memory) {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 255) / 256 * 256);
  };
  judge_enqueued(enqueue_assignment(one.first(), options, align(workspace), one.reports.data(), nullptr), "one");
  one.judge_all("one");
  Problems<T> batch(3, rows, columns, kind);
  workspace.assign(batch_workspace_bytes(3, rows, columns, type) / sizeof(double) + 64, 0);
  judge_enqueued(enqueue_batch(batch.first(), 3, int64_t(rows) * columns, options, align(workspace),
                               batch.reports.data(), nullptr),
                 "batch");
  batch.judge_all("batch");
}

void solve_sizes(int largest) {
  unsigned seed = 0;
  for (int n : {1, 2, 17, 40, 70, 100, 140}) {
    for (int k = 0; k < int(Kind::count) && n <= largest; ++k) {
      const Kind kind = Kind(k);
      solve_all<float>(n, n, kind, Dtype::float32, seed++);
      switch (k) {
        case 0:
          solve_all<double>(n, n + n / 2, kind, Dtype::float64, seed++);
          break;
        case 1:
          solve_all<__nv_bfloat16>(n + n / 3, n, kind, Dtype::bfloat16, seed++);
          break;
        case 2:
          solve_all<__half>(n, n, kind, Dtype::float16, seed++);
          break;
        default:
          break;
      }
    }
  }
}

// All lists begin with the same columns, so rows are read again while others bid, and the new lists go from warp to
// warp with the row.
void hand_over_lists() {
  const long long before = scans;
  for (unsigned seed : {2u, 4u}) solve_all<float>(70, 70, Kind::columns, Dtype::float32, seed);
  if (scans > before) return;
  ++wrong;
  std::printf("no row was read again\n");
}

// S = A B^T and a float64 inner product, of odd sizes, against plain loops.
void multiply(int rows, int columns, int depth) {
  std::vector<float> a(size_t(rows * depth)), b(size_t(columns * depth)), out(size_t(rows * columns));
  for (float& v : a) v = float(normal());
  for (float& v : b) v = float(normal());
  ProductTerm term = {};
  term.a = {a.data(), nullptr, depth, 0, 1, int64_t(Dtype::float32)};
  term.b = {b.data(), nullptr, depth, 0, 1, int64_t(Dtype::float32)};
  term.blocks = 1;
  term.positions = depth;
  term.weight = 1;
  const ProductGroup group = {out.data(), columns, 1, rows, columns, 0, 1, 0, 0};
  ProductCall call = {};
  call.groups = &group;
  call.terms = &term;
  call.group_count = 1;
  call.tiles = ((rows + kProductTile - 1) / kProductTile) * ((columns + kProductTile - 1) / kProductTile);
  call.products = Dtype::float32;
  call.tensor_cores = true;
  if (const int error = similarity(call)) std::printf("similarity: %s\n", error_text(error)), ++wrong;
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      double sum = 0, size = 0;
      for (int k = 0; k < depth; ++k) {
        const double product = double(a[size_t(i * depth + k)]) * b[size_t(j * depth + k)];
        sum += product;
        size += std::fabs(product);
      }
      if (std::fabs(out[size_t(i * columns + j)] - sum) <= 1e-6 * size) continue;
      ++wrong;
      std::printf("product %d x %d: %g, not %g\n", i, j, double(out[size_t(i * columns + j)]), sum);
    }
  }
  ++solved;
}

}  // namespace

int main(int count, char** arguments) {
  const int largest = count > 1 ? std::atoi(arguments[1]) : 140;
  lmcfast::emulation::Options options;
  options.relaxed_fetch_max = count > 2 && std::strcmp(arguments[2], "relaxed") == 0;
  lmcfast::emulation::configure(options);
  hand_over_lists();
  if (!options.relaxed_fetch_max) {
    solve_sizes(largest);
    multiply(70, 66, 33);
  }
  std::printf("%d problems, %d wrong; %lld bids, %lld rows read again\n", solved, wrong, bids, scans);
  return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
