// Warp operations against plain loops, and fragments of the tensor-core products against plain products.
#include "check.h"

using namespace lmcfast::cuda;
using test::Array;
using test::Random;
using test::runs;

namespace {

__global__ void shuffles(const int* x, int* out, int width, int by) {
  const int lane = int(threadIdx.x), v = x[lane];
  out[lane] = __shfl_sync(~0u, v, by, width);
  out[32 + lane] = __shfl_xor_sync(~0u, v, by, width);
  out[64 + lane] = __shfl_up_sync(~0u, v, unsigned(by), width);
  out[96 + lane] = __shfl_down_sync(~0u, v, unsigned(by), width);
}

TEST(shuffles_of_every_width) {
  Array<int> x(32), out(128);
  for (int i = 0; i < 32; ++i) x[i] = i * i + 1;
  for (int width = 2; width <= 32; width *= 2) {
    for (int by = 0; by < width; ++by) {
      CHECK(runs(Launch{1, 32}, shuffles, x.data, out.data, width, by));
      for (int lane = 0; lane < 32; ++lane) {
        const int begin = lane / width * width, place = lane - begin;
        CHECK_EQUAL(out[lane], x[begin + by]);
        CHECK_EQUAL(out[32 + lane], x[lane ^ by]);
        CHECK_EQUAL(out[64 + lane], x[place >= by ? lane - by : lane]);
        CHECK_EQUAL(out[96 + lane], x[place + by < width ? lane + by : lane]);
      }
    }
  }
}

__global__ void wide_shuffle(double* x, uint2* y) {
  x[threadIdx.x] = __shfl_xor_sync(~0u, x[threadIdx.x], 5);
  const u64 word = u64(y[threadIdx.x].x) << 32 | y[threadIdx.x].y;
  y[threadIdx.x].x = unsigned(__shfl_sync(~0u, word, 3) >> 32);
}

TEST(shuffles_of_eight_bytes) {
  Array<double> x(32);
  Array<uint2> y(32);
  for (int i = 0; i < 32; ++i) {
    x[i] = i + 0.25;
    y[i] = make_uint2(unsigned(i) + 100, 1);
  }
  CHECK(runs(Launch{1, 32}, wide_shuffle, x.data, y.data));
  for (int i = 0; i < 32; ++i) CHECK_EQUAL(x[i], (i ^ 5) + 0.25);
  for (int i = 0; i < 32; ++i) CHECK_EQUAL(y[i].x, 103u);
}

struct Votes {
  unsigned ballot, match, top, low, sum, conjunction, disjunction, parity;
  int any, all, signed_top, signed_low, signed_sum;
};

__global__ void votes(const unsigned* x, unsigned mask, Votes* out) {
  if (!(mask >> threadIdx.x & 1)) return;
  const unsigned v = x[threadIdx.x];
  Votes r = {};
  r.ballot = __ballot_sync(mask, v % 3 == 0);
  r.any = __any_sync(mask, v > 4000000000u);
  r.all = __all_sync(mask, v > 1000);
  r.match = __match_any_sync(mask, v % 4);
  r.top = reduce_max(mask, v);
  r.low = reduce_min(mask, v);
  r.sum = reduce_add(mask, v);
  r.conjunction = reduce_and(mask, v | 0xff00u);
  r.disjunction = reduce_or(mask, v & 0xff0ff00fu);
  r.parity = reduce_xor(mask, v);
  r.signed_top = reduce_max(mask, int(v));
  r.signed_low = reduce_min(mask, int(v));
  r.signed_sum = reduce_add(mask, int(v) / 64);
  out[threadIdx.x] = r;
}

void check_votes(Array<unsigned>& x, unsigned mask, Array<Votes>& out) {
  Votes w = {};
  w.low = ~0u;
  w.conjunction = ~0u;
  w.all = 1;
  w.signed_top = int(0x80000000u);
  w.signed_low = 0x7fffffff;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const unsigned v = x[i];
    w.ballot |= unsigned(v % 3 == 0) << i;
    w.any |= v > 4000000000u;
    w.all &= v > 1000;
    w.top = v > w.top ? v : w.top;
    w.low = v < w.low ? v : w.low;
    w.sum += v;
    w.conjunction &= v | 0xff00u;
    w.disjunction |= v & 0xff0ff00fu;
    w.parity ^= v;
    w.signed_top = int(v) > w.signed_top ? int(v) : w.signed_top;
    w.signed_low = int(v) < w.signed_low ? int(v) : w.signed_low;
    w.signed_sum += int(v) / 64;
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    w.match = 0;
    for (int k = 0; k < 32; ++k) w.match |= unsigned((mask >> k & 1) && x[k] % 4 == x[i] % 4) << k;
    const Votes& r = out[i];
    CHECK_EQUAL(r.ballot, w.ballot);
    CHECK_EQUAL(r.match, w.match);
    CHECK_EQUAL(r.any != 0, w.any != 0);
    CHECK_EQUAL(r.all != 0, w.all != 0);
    CHECK_EQUAL(r.top, w.top);
    CHECK_EQUAL(r.low, w.low);
    CHECK_EQUAL(r.sum, w.sum);
    CHECK_EQUAL(r.conjunction, w.conjunction);
    CHECK_EQUAL(r.disjunction, w.disjunction);
    CHECK_EQUAL(r.parity, w.parity);
    CHECK_EQUAL(r.signed_top, w.signed_top);
    CHECK_EQUAL(r.signed_low, w.signed_low);
    CHECK_EQUAL(r.signed_sum, w.signed_sum);
  }
}

TEST(votes_and_reductions) {
  Random random;
  Array<unsigned> x(32);
  Array<Votes> out(32);
  for (unsigned mask : {~0u, 0xffu, 0xf0f0f0f0u, 0x80000001u, 0x10u}) {
    for (int i = 0; i < 32; ++i) x[i] = random() << 16 ^ random();
    CHECK(runs(Launch{1, 32}, votes, x.data, mask, out.data));
    check_votes(x, mask, out);
  }
}

__global__ void top_two(const unsigned* x, unsigned* out) {
  const unsigned v = x[blockIdx.x * 32 + threadIdx.x], first = reduce_max(~0u, v);
  const unsigned who = __ballot_sync(~0u, v == first);
  const unsigned second = reduce_max(~0u, int(threadIdx.x) == __ffs(int(who)) - 1 ? 0u : v);
  if (threadIdx.x) return;
  out[2 * blockIdx.x] = first;
  out[2 * blockIdx.x + 1] = second;
}

TEST(top_two_of_a_warp) {
  Random random;
  Array<unsigned> x(320), out(20);
  for (int i = 0; i < x.size; ++i) x[i] = random() % 100;
  CHECK(runs(Launch{10, 32}, top_two, x.data, out.data));
  for (int b = 0; b < 10; ++b) {
    unsigned first = 0, second = 0;
    for (int i = 0; i < 32; ++i) {
      const unsigned v = x[32 * b + i];
      second = v > first ? first : v > second ? v : second;
      first = v > first ? v : first;
    }
    CHECK_EQUAL(out[2 * b], first);
    CHECK_EQUAL(out[2 * b + 1], second);
  }
}

__global__ void two_groups(unsigned* out) {  // lanes of one warp in different collectives, each with its own mask
  LMCFAST_SHARED(unsigned, s, [32]);
  const unsigned lane = threadIdx.x;
  s[lane] = lane;
  if (lane % 2) {
    __syncwarp(0xaaaaaaaau);
    out[lane] = s[lane ^ 2] + reduce_add(0xaaaaaaaau, lane);
  } else {
    __syncwarp(0x55555555u);
    out[lane] = s[lane ^ 4] + reduce_max(0x55555555u, lane);
  }
}

TEST(groups_of_a_warp) {
  Array<unsigned> out(32);
  CHECK(runs(Launch{1, 32}, two_groups, out.data));
  for (unsigned i = 0; i < 32; ++i) CHECK_EQUAL(out[int(i)], i % 2 ? (i ^ 2) + 256 : (i ^ 4) + 30);
}

// One warp: C (16 x 8) += A (16 x depth) B (depth x 8), elements placed as the PTX manual's tables have it.
__global__ void product_tf32(const float* a, const float* b, float* c) {
  const int group = int(threadIdx.x) / 4, place = int(threadIdx.x) % 4;
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = c[(group + i / 2 * 8) * 8 + place * 2 + i % 2];
  unsigned left[4], right[2];
  for (int i = 0; i < 4; ++i) left[i] = to_tf32(a[(group + i % 2 * 8) * 8 + place + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) right[i] = to_tf32(b[(place + i * 4) * 8 + group]);
  mma_tf32(sum, left, right);
  for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + place * 2 + i % 2] = sum[i];
}

struct Bfloat16 {
  __device__ static unsigned code(float v) { return __bfloat16_as_ushort(__float2bfloat16_rn(v)); }
  __device__ static void product(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_bfloat16(c, a, b);
  }
};
struct Half {
  __device__ static unsigned code(float v) { return __half_as_ushort(__float2half_rn(v)); }
  __device__ static void product(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_half(c, a, b); }
};

template <class Format>
__global__ void product_16_bit(const float* a, const float* b, float* c) {
  const int group = int(threadIdx.x) / 4, place = int(threadIdx.x) % 4;
  float sum[4];
  for (int i = 0; i < 4; ++i) sum[i] = c[(group + i / 2 * 8) * 8 + place * 2 + i % 2];
  unsigned left[4], right[2];
  for (int i = 0; i < 4; ++i) {
    const float* pair = &a[(group + i % 2 * 8) * 16 + place * 2 + i / 2 * 8];
    left[i] = Format::code(pair[0]) | Format::code(pair[1]) << 16;
  }
  for (int i = 0; i < 2; ++i) {
    const float* pair = &b[(place * 2 + i * 8) * 8 + group];
    right[i] = Format::code(pair[0]) | Format::code(pair[8]) << 16;
  }
  Format::product(sum, left, right);
  for (int i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + place * 2 + i % 2] = sum[i];
}

// With small integers every product and sum is exact in every format, in any order.
void check_product(void (*kernel)(const float*, const float*, float*), int depth) {
  Random random;
  Array<float> a(16 * depth), b(depth * 8), c(16 * 8), before(16 * 8);
  for (int i = 0; i < a.size; ++i) a[i] = float(int(random() % 33) - 16);
  for (int i = 0; i < b.size; ++i) b[i] = float(int(random() % 33) - 16);
  for (int i = 0; i < c.size; ++i) before[i] = c[i] = float(int(random() % 1000));
  CHECK(runs(Launch{1, 32}, kernel, a.data, b.data, c.data));
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float wanted = before[i * 8 + j];
      for (int k = 0; k < depth; ++k) wanted += a[i * depth + k] * b[k * 8 + j];
      CHECK_EQUAL(c[i * 8 + j], wanted);
    }
  }
}

TEST(tensor_core_products) {
  check_product(product_tf32, 8);
  check_product(product_16_bit<Bfloat16>, 16);
  check_product(product_16_bit<Half>, 16);
}

__global__ void round_tf32(const float* x, unsigned* out) { out[threadIdx.x] = to_tf32(x[threadIdx.x]); }

TEST(rounding_to_tf32) {
  Array<float> x(6);
  Array<unsigned> out(6);
  const float values[] = {1.f, 1.f + 0x1p-11f, 1.f + 0x1p-12f, -(1.f + 0x1p-11f), 3.f + 0x1.8p-10f, 0.f};
  const float wanted[] = {1.f, 1.f + 0x1p-10f, 1.f, -(1.f + 0x1p-10f), 3.f + 0x1p-9f, 0.f};
  for (int i = 0; i < 6; ++i) x[i] = values[i];
  CHECK(runs(Launch{1, 6}, round_tf32, x.data, out.data));
  for (int i = 0; i < 6; ++i) {
    float value;
    std::memcpy(&value, &out[i], sizeof value);
    CHECK_EQUAL(value, wanted[i]);
  }
}

}  // namespace
