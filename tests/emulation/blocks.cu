// Threads of a block, blocks of a cluster, blocks of a grid.
#include "check.h"

using namespace lmcfast::cuda;
using test::Array;
using test::runs;

namespace {

Launch cooperative(unsigned grid, unsigned block) {
  Launch l;
  l.grid = grid;
  l.block = block;
  l.cooperative = true;
  return l;
}

__global__ void block_sum(const float* x, int n, float* out) {
  LMCFAST_SHARED(float, part, [32]);
  float sum = 0;
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) sum += x[i];
  for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.f;
    for (int distance = 16; distance; distance /= 2) sum += __shfl_down_sync(~0u, sum, unsigned(distance));
    if (threadIdx.x == 0) *out = sum;
  }
}

TEST(sum_of_a_block) {
  Array<float> x(1000), out(1);
  float wanted = 0;
  for (int i = 0; i < x.size; ++i) wanted += x[i] = float(i % 17);
  for (unsigned threads : {32u, 64u, 256u, 1024u}) {
    CHECK(runs(Launch{1, threads}, block_sum, x.data, x.size, out.data));
    CHECK_EQUAL(out[0], wanted);
  }
}

// The last block to finish adds up what all have left behind.
__global__ void last_block_sum(const unsigned* x, unsigned* part, unsigned* ticket, unsigned* out) {
  LMCFAST_SHARED(unsigned, last, [1]);
  const unsigned sum = reduce_add(~0u, x[blockIdx.x * 32 + threadIdx.x]);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = sum;
    __threadfence();
    last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last[0] || threadIdx.x) return;
  unsigned total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += __ldcg(&part[b]);
  *out = total;
}

TEST(last_block_done) {
  Array<unsigned> x(320), part(10), ticket(1), out(1);
  unsigned wanted = 0;
  for (int i = 0; i < x.size; ++i) wanted += x[i] = unsigned(i * i);
  CHECK(runs(Launch{10, 32}, last_block_sum, x.data, part.data, ticket.data, out.data));
  CHECK_EQUAL(out[0], wanted);
}

__global__ void votes(unsigned* out) {
  const int t = int(threadIdx.x);
  if (__syncthreads_or(t == 77)) atomicAdd(&out[0], 1u);
  if (__syncthreads_or(t > 1000)) atomicAdd(&out[1], 1u);
  if (__syncthreads_and(t < 100)) atomicAdd(&out[2], 1u);
  if (__syncthreads_and(t != 5)) atomicAdd(&out[3], 1u);
  if (__syncthreads_count(t % 3 == 0) == 34) atomicAdd(&out[4], 1u);
}

TEST(votes_of_a_block) {
  Array<unsigned> out(5);
  CHECK(runs(Launch{1, 100}, votes, out.data));
  const unsigned wanted[] = {100, 0, 100, 0, 100};
  for (int i = 0; i < 5; ++i) CHECK_EQUAL(out[i], wanted[i]);
}

__global__ void count_exits(unsigned* out) {  // threads that have exited are not waited for
  if (threadIdx.x % 2) return;
  __syncthreads();
  if (__syncthreads_count(1) == int(blockDim.x / 2)) atomicAdd(out, 1u);
}

TEST(exited_threads) {
  Array<unsigned> out(1);
  CHECK(runs(Launch{3, 128}, count_exits, out.data));
  CHECK_EQUAL(out[0], 192u);
}

// Neighbours exchange through global memory, round after round; out[total] counts stale values.
__global__ void exchange(u64* cell, unsigned* log, int rounds) {
  const unsigned me = blockIdx.x * blockDim.x + threadIdx.x, total = gridDim.x * blockDim.x;
  for (int r = 0; r < rounds; ++r) {
    atomicMax(&cell[r], u64(me * 2654435761u) << 17 | me);
    log[me] = unsigned(r);
    grid_sync();
    const unsigned seen = log[(me + 7) % total];
    grid_sync();
    if (seen != unsigned(r)) atomicAdd(&log[total], 1u);
  }
}

TEST(cooperative_grid) {
  Array<u64> cell(8);
  Array<unsigned> log(513);
  CHECK(runs(cooperative(4, 128), exchange, cell.data, log.data, 8));
  CHECK_EQUAL(log[512], 0u);
  u64 wanted = 0;
  for (unsigned me = 0; me < 512; ++me) {
    const u64 v = u64(me * 2654435761u) << 17 | me;
    wanted = v > wanted ? v : wanted;
  }
  for (int r = 0; r < 8; ++r) CHECK_EQUAL(cell[r], wanted);
}

#if LMCFAST_CLUSTERS
__global__ void ring(unsigned* out, unsigned cluster) {
  LMCFAST_SHARED(unsigned, ahead, [5]);
  LMCFAST_SHARED(unsigned, mine, [1]);
  if (threadIdx.x < 5) ahead[threadIdx.x] = 1;
  if (threadIdx.x == 0) mine[0] = blockIdx.x * 10;
  cluster_sync();
  const unsigned rank = blockIdx.x % cluster;
  if (threadIdx.x == 0) out[blockIdx.x] = *map_shared_rank(&mine[0], (rank + 1) % cluster) * ahead[4];
  cluster_sync();
}

TEST(ring_of_a_cluster) {
  if (!test::has_clusters()) return;
  Array<unsigned> out(16);
  for (unsigned cluster : {1u, 2u, 4u, 8u}) {
    Launch l{16, 32};
    l.cluster = cluster;
    CHECK(runs(l, ring, out.data, cluster));
    for (unsigned b = 0; b < 16; ++b) CHECK_EQUAL(out[int(b)], (b / cluster * cluster + (b + 1) % cluster) * 10);
  }
}
#endif

template <class T>
__global__ void reverse(T* x) {  // dynamic shared memory, and a static variable of the template's own
  LMCFAST_DYNAMIC_SHARED(memory);
  LMCFAST_SHARED(T, copy, [64]);
  T* s = reinterpret_cast<T*>(memory);
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  copy[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
  x[threadIdx.x] = copy[threadIdx.x];
}

template <class T>
void check_reverse(size_t bytes) {
  Array<T> x(64);
  for (int i = 0; i < 64; ++i) x[i] = T(i);
  Launch l{1, 64};
  l.shared = bytes;
  CHECK(runs(l, reverse<T>, x.data));
  for (int i = 0; i < 64; ++i) CHECK_EQUAL(x[i], T(63 - i));
}

TEST(shared_memory) {
  check_reverse<float>(64 * sizeof(float));
  check_reverse<double>(64 * sizeof(double));
  check_reverse<double>(60 << 10);  // more than a kernel has without asking
}

__global__ void indices(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

TEST(three_dimensions) {
  Array<unsigned> out(2 * 3 * 4 * 5 * 6 * 7);
  Launch l;
  l.grid = dim3(2, 3, 4);
  l.block = dim3(5, 6, 7);
  CHECK(runs(l, indices, out.data));
  for (int i = 0; i < out.size; ++i) CHECK_EQUAL(out[i], unsigned(i / 210 * 1000 + i % 210));
}

__global__ void handed_over(u64* word, unsigned* data) {  // each block in turn, when the word has reached its number
  if (threadIdx.x) return;
  while (load(word) != blockIdx.x) {
  }
  fetch_max(word, blockIdx.x);
  store_owned(data, load_owned(data) * 3 + blockIdx.x);
  fetch_max(word, blockIdx.x + 1);
}

TEST(data_behind_fetch_max) {
  Array<u64> word(1);
  Array<unsigned> data(1);
  CHECK(runs(cooperative(4, 32), handed_over, word.data, data.data));
  CHECK_EQUAL(data[0], 1u * 9 + 2 * 3 + 3);
  CHECK_EQUAL(word[0], 4u);
}

__global__ void atomics(int* i, unsigned* u, float* f, double* d, u64* w) {
  const int t = int(threadIdx.x);
  atomicAdd(&i[0], -t);
  atomicSub(&i[1], t);
  atomicMin(&i[2], 50 - t);
  atomicMax(&i[3], t - 50);
  atomicOr(&u[0], 1u << t % 32);
  atomicAnd(&u[1], ~(1u << t % 8));
  atomicXor(&u[2], unsigned(t));
  atomicExch(&u[3], 7u);
  atomicAdd(f, 0.5f);
  atomicAdd(d, 0.25);
  for (u64 old = load(w), seen; (seen = atomicCAS(w, old, old + 3)) != old; old = seen) {
  }
}

TEST(atomic_operations) {
  Array<int> i(4);
  Array<unsigned> u(4);
  Array<float> f(1);
  Array<double> d(1);
  Array<u64> w(1);
  u[1] = ~0u;
  CHECK(runs(Launch{1, 100}, atomics, i.data, u.data, f.data, d.data, w.data));
  const int wanted[] = {-4950, -4950, -49, 49};
  for (int k = 0; k < 4; ++k) CHECK_EQUAL(i[k], wanted[k]);
  unsigned parity = 0;
  for (unsigned t = 0; t < 100; ++t) parity ^= t;
  const unsigned bits[] = {~0u, 0xffffff00u, parity, 7};
  for (int k = 0; k < 4; ++k) CHECK_EQUAL(u[k], bits[k]);
  CHECK_EQUAL(f[0], 50.f);
  CHECK_EQUAL(d[0], 25.);
  CHECK_EQUAL(w[0], 300u);
}

}  // namespace
