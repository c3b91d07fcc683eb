// The host interface of the assignment solver: checks sizes, chooses launch shapes, dispatches by storage.
#include <algorithm>

#include "assignment/entry.h"
#include "lmcfast/cuda_assignment.h"

namespace lmcfast::cuda {

namespace {

const Entry& entry(Dtype type) {
  switch (type) {
    case Dtype::float64:
      return kFloat64;
    case Dtype::bfloat16:
      return kBfloat16;
    case Dtype::float16:
      return kFloat16;
    default:
      return kFloat32;
  }
}

bool fits(int64_t rows, int64_t columns) {
  const int64_t shorter = std::min(rows, columns), longer = std::max(rows, columns);
  return shorter >= 0 && shorter <= kMostShorter && longer <= kMostLonger;
}

// What launch shapes depend on.
struct DeviceLimits {
  int multiprocessors = 0, shared_bytes = 0;  // of one block, when asked for
  int error = 0;
};

DeviceLimits device_limits() {
  DeviceLimits d;
  int device = 0;
  cudaError_t e = cudaGetDevice(&device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&d.multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (e == cudaSuccess) e = cudaDeviceGetAttribute(&d.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  d.error = int(e);
  return d;
}

constexpr int kStaticShared =
    1024;  // more than any kernel with shortest paths or held rows has beside its dynamic part

Shape choose_shape(const AssignmentProblem& p, const AssignmentOptions& o, const DeviceLimits& d) {
  Shape s{};
  s.threads = unsigned(o.threads > 0 ? o.threads : 128);
  s.blocks = unsigned(o.blocks > 0 ? o.blocks : 4 * d.multiprocessors);
  s.chain_threads = o.deterministic ? 32 : s.threads;
  s.chain_blocks = o.deterministic ? 1 : s.blocks;
  s.path_threads = unsigned(o.path_threads > 0 ? o.path_threads : 512);
  const auto fits = [&](bool keys) {
    return path_bytes(std::max(p.rows, p.columns), keys) + kStaticShared <= size_t(d.shared_bytes);
  };
  s.shared_least = fits(false);
  s.shared_keys = fits(true);
  s.shared_most = size_t(std::max(d.shared_bytes - kStaticShared, 0));
  return s;
}

// Threads of a block of a batch, about a warp for 16 rows; fewer where the storage allows no more.
unsigned batch_threads(const AssignmentOptions& o, int64_t longest) {
  if (o.threads > 0) return unsigned(o.threads);
  return unsigned(32 * std::clamp<int64_t>(longest / 16, 2, 12));
}

BatchArguments batch_arguments(const AssignmentProblem& base, const AssignmentOptions& o, int64_t longest,
                               void* workspace, AssignmentReport* reports) {
  BatchArguments a{};
  a.base = base;
  a.workspace = static_cast<unsigned char*>(workspace);
  a.reports = reports;
  a.step_limit = step_limit(o, int(longest));
  a.bid_limit = o.bid_limit;
  a.full_list = o.full_list;
  a.maximize = o.maximize;
  a.deterministic = o.deterministic;
  return a;
}

// A problem without rows or columns goes through the batch's kernel, which knows how to write nothing.
Enqueued enqueue_empty(const AssignmentProblem& p, const AssignmentOptions& o, AssignmentReport* report,
                       Stream stream) {
  return entry(o.type).batch(batch_arguments(p, o, 1, nullptr, report), 1, 1, 32, stream);
}

constexpr Enqueued kInvalid{int(cudaErrorInvalidValue), 0};

using EnqueueOne = decltype(Entry::one);

Enqueued enqueue(EnqueueOne run, const AssignmentProblem& p, const AssignmentOptions& o, void* workspace,
                 AssignmentReport* report, Stream stream) {
  if (!fits(p.rows, p.columns)) return kInvalid;
  if (p.rows == 0 || p.columns == 0) return enqueue_empty(p, o, report, stream);
  const DeviceLimits d = device_limits();
  if (d.error != 0) return {d.error, 0};
  return run(p, o, choose_shape(p, o, d), workspace, report, stream);
}

}  // namespace

size_t workspace_bytes(int64_t rows, int64_t columns, Dtype type) {
  return fits(rows, columns) ? entry(type).workspace(rows, columns) : 0;
}

std::vector<WorkspaceArray> workspace_arrays(int64_t rows, int64_t columns, Dtype type) {
  return fits(rows, columns) ? entry(type).arrays(rows, columns) : std::vector<WorkspaceArray>{};
}

Enqueued enqueue_assignment(const AssignmentProblem& p, const AssignmentOptions& o, void* workspace,
                            AssignmentReport* report, Stream stream) {
  return enqueue(entry(o.type).one, p, o, workspace, report, stream);
}

Enqueued enqueue_resume(const AssignmentProblem& p, const AssignmentOptions& o, void* workspace,
                        AssignmentReport* report, Stream stream) {
  return enqueue(entry(o.type).resume, p, o, workspace, report, stream);
}

size_t batch_workspace_bytes(int64_t count, int64_t rows, int64_t columns, Dtype type) {
  if (std::max(rows, columns) > kMostBatched) return 0;
  return size_t(count) * entry(type).batch_workspace(rows, columns);
}

Enqueued enqueue_batch(const AssignmentProblem& first, int64_t count, int64_t batch_stride, const AssignmentOptions& o,
                       void* workspace, AssignmentReport* reports, Stream stream) {
  const int64_t longest = std::max(first.rows, first.columns);
  if (longest > kMostBatched || first.rows < 0 || first.columns < 0) return kInvalid;
  if (count == 0) return {0, 0};
  BatchArguments a = batch_arguments(first, o, longest, workspace, reports);
  a.batch_stride = batch_stride;
  a.workspace_stride = entry(o.type).batch_workspace(first.rows, first.columns);
  return entry(o.type).batch(a, count, longest, batch_threads(o, longest), stream);
}

size_t lay_out_batch(AssignmentEntry* table, int64_t count, Dtype type) {
  size_t used = 0;
  for (int64_t k = 0; k < count; k++) {
    table[k].workspace = int64_t(used);
    used += entry(type).batch_workspace(table[k].rows, table[k].columns);
  }
  return used;
}

Enqueued enqueue_ragged(const AssignmentProblem& base, const AssignmentEntry* table, int64_t count, int64_t longest,
                        const AssignmentOptions& o, void* workspace, AssignmentReport* reports, Stream stream) {
  if (longest > kMostBatched || longest < 0) return kInvalid;
  if (count == 0) return {0, 0};
  BatchArguments a = batch_arguments(base, o, longest, workspace, reports);
  a.table = table;
  return entry(o.type).batch(a, count, longest, batch_threads(o, longest), stream);
}

}  // namespace lmcfast::cuda
