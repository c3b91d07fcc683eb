// Vectors of the width that the processor of this level has, as thin names over compiler vectors and a few intrinsics.
//
// A file that includes this one is compiled once per level (LMCFAST_LEVEL: baseline, v3, v4); everything stands in a
// namespace of that level and has internal linkage or a level-only type in its name, so that no function compiled for a
// newer processor can be picked by the linker for an older one. Vectors are never wider than the target's registers:
// GCC scalarises comparisons and selections on wider ones.
//
// `Doubles` holds `kLanes` float64 and is the type of all price arithmetic; `Floats` holds twice as many float32 and is
// used where scores are compared with scores.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef LMCFAST_LEVEL
#error "LMCFAST_LEVEL names the level that this file is compiled for"
#endif

#define LMCFAST_INLINE static inline __attribute__((always_inline))
#define LMCFAST_INLINE_MEMBER inline __attribute__((always_inline))

namespace lmcfast::LMCFAST_LEVEL {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int kLanes = kVectorBytes / int(sizeof(double));
constexpr double kInf = std::numeric_limits<double>::infinity();

typedef double Doubles __attribute__((vector_size(kVectorBytes)));
typedef double UnalignedDoubles __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
typedef int64_t Indices __attribute__((vector_size(kVectorBytes)));
typedef int64_t UnalignedIndices __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef float UnalignedFloats __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
typedef float HalfFloats __attribute__((vector_size(kVectorBytes / 2)));
typedef float UnalignedHalfFloats __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));

LMCFAST_INLINE Doubles load(const double* p) { return *reinterpret_cast<const UnalignedDoubles*>(p); }
LMCFAST_INLINE void store(double* p, Doubles v) { *reinterpret_cast<UnalignedDoubles*>(p) = v; }
LMCFAST_INLINE Indices load(const int64_t* p) { return *reinterpret_cast<const UnalignedIndices*>(p); }
LMCFAST_INLINE void store(int64_t* p, Indices v) { *reinterpret_cast<UnalignedIndices*>(p) = v; }
LMCFAST_INLINE Doubles broadcast(double x) { return x - Doubles{}; }
LMCFAST_INLINE Indices broadcast(int64_t x) { return x - Indices{}; }

LMCFAST_INLINE Indices lane_numbers() {
  Indices v{};
  for (int k = 0; k < kLanes; ++k) v[k] = k;
  return v;
}

// The instructions that a plain vector expression does not reach. `Mask` is what a comparison of Doubles gives.
#if defined(__AVX512F__)
using Mask = __mmask8;
LMCFAST_INLINE Doubles load(const float* p) { return (Doubles)_mm512_cvtps_pd(_mm256_loadu_ps(p)); }
LMCFAST_INLINE Doubles max(Doubles a, Doubles b) { return (Doubles)_mm512_max_pd((__m512d)a, (__m512d)b); }
LMCFAST_INLINE Doubles min(Doubles a, Doubles b) { return (Doubles)_mm512_min_pd((__m512d)a, (__m512d)b); }
LMCFAST_INLINE Mask less(Doubles a, Doubles b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ); }
LMCFAST_INLINE Mask equal(Doubles a, Doubles b) { return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ); }
LMCFAST_INLINE unsigned bits(Mask m) { return m; }
LMCFAST_INLINE Doubles select(Mask m, Doubles yes, Doubles no) {
  return (Doubles)_mm512_mask_mov_pd((__m512d)no, m, (__m512d)yes);
}
LMCFAST_INLINE Indices select(Mask m, Indices yes, Indices no) {
  return (Indices)_mm512_mask_mov_epi64((__m512i)no, m, (__m512i)yes);
}
LMCFAST_INLINE void store_where(Mask m, int64_t* p, Indices v) { _mm512_mask_storeu_epi64(p, m, (__m512i)v); }
// Eight loads and the shuffles that join them: half the time of the gather instruction on Zen 4, and no slower
// elsewhere.
LMCFAST_INLINE Doubles gather(const double* p, const int* at) {
  const auto four = [&](int k) { return _mm256_setr_pd(p[at[k]], p[at[k + 1]], p[at[k + 2]], p[at[k + 3]]); };
  return (Doubles)_mm512_insertf64x4(_mm512_castpd256_pd512(four(0)), four(4), 1);
}
LMCFAST_INLINE double reduce_max(Doubles v) { return _mm512_reduce_max_pd((__m512d)v); }
LMCFAST_INLINE double reduce_min(Doubles v) { return _mm512_reduce_min_pd((__m512d)v); }
#elif defined(__AVX2__)
using Mask = __m256d;
LMCFAST_INLINE Doubles load(const float* p) { return (Doubles)_mm256_cvtps_pd(_mm_loadu_ps(p)); }
LMCFAST_INLINE Doubles max(Doubles a, Doubles b) { return (Doubles)_mm256_max_pd((__m256d)a, (__m256d)b); }
LMCFAST_INLINE Doubles min(Doubles a, Doubles b) { return (Doubles)_mm256_min_pd((__m256d)a, (__m256d)b); }
LMCFAST_INLINE Mask less(Doubles a, Doubles b) { return _mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_LT_OQ); }
LMCFAST_INLINE Mask equal(Doubles a, Doubles b) { return _mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_EQ_OQ); }
LMCFAST_INLINE unsigned bits(Mask m) { return unsigned(_mm256_movemask_pd(m)); }
LMCFAST_INLINE Doubles select(Mask m, Doubles yes, Doubles no) {
  return (Doubles)_mm256_blendv_pd((__m256d)no, (__m256d)yes, m);
}
LMCFAST_INLINE Indices select(Mask m, Indices yes, Indices no) {
  return (Indices)_mm256_blendv_pd((__m256d)no, (__m256d)yes, m);
}
// Not the masked store of AVX2, which is slow wherever it is microcode.
LMCFAST_INLINE void store_where(Mask m, int64_t* p, Indices v) { store(p, select(m, v, load(p))); }
LMCFAST_INLINE Doubles gather(const double* p, const int* at) {
  return Doubles{p[at[0]], p[at[1]], p[at[2]], p[at[3]]};
}
LMCFAST_INLINE double reduce_max(Doubles v) {
  __m128d h = _mm_max_pd(_mm256_castpd256_pd128((__m256d)v), _mm256_extractf128_pd((__m256d)v, 1));
  return _mm_cvtsd_f64(_mm_max_sd(h, _mm_unpackhi_pd(h, h)));
}
LMCFAST_INLINE double reduce_min(Doubles v) { return -reduce_max(-v); }
#elif defined(__SSE2__)
using Mask = __m128d;
LMCFAST_INLINE Doubles load(const float* p) {
  return (Doubles)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
LMCFAST_INLINE Doubles max(Doubles a, Doubles b) { return (Doubles)_mm_max_pd((__m128d)a, (__m128d)b); }
LMCFAST_INLINE Doubles min(Doubles a, Doubles b) { return (Doubles)_mm_min_pd((__m128d)a, (__m128d)b); }
LMCFAST_INLINE Mask less(Doubles a, Doubles b) { return _mm_cmplt_pd((__m128d)a, (__m128d)b); }
LMCFAST_INLINE Mask equal(Doubles a, Doubles b) { return _mm_cmpeq_pd((__m128d)a, (__m128d)b); }
LMCFAST_INLINE unsigned bits(Mask m) { return unsigned(_mm_movemask_pd(m)); }
LMCFAST_INLINE Doubles select(Mask m, Doubles yes, Doubles no) {
  return (Doubles)_mm_or_pd(_mm_and_pd(m, (__m128d)yes), _mm_andnot_pd(m, (__m128d)no));
}
LMCFAST_INLINE Indices select(Mask m, Indices yes, Indices no) { return (Indices)select(m, (Doubles)yes, (Doubles)no); }
LMCFAST_INLINE void store_where(Mask m, int64_t* p, Indices v) { store(p, select(m, v, load(p))); }
LMCFAST_INLINE Doubles gather(const double* p, const int* at) { return Doubles{p[at[0]], p[at[1]]}; }
LMCFAST_INLINE double reduce_max(Doubles v) { return v[0] > v[1] ? v[0] : v[1]; }
LMCFAST_INLINE double reduce_min(Doubles v) { return v[0] < v[1] ? v[0] : v[1]; }
#else  // any other processor: aarch64's compilers turn these expressions into NEON
using Mask = Indices;
LMCFAST_INLINE Doubles load(const float* p) {
  Doubles v;
  for (int k = 0; k < kLanes; ++k) v[k] = p[k];
  return v;
}
LMCFAST_INLINE Doubles max(Doubles a, Doubles b) { return a > b ? a : b; }
LMCFAST_INLINE Doubles min(Doubles a, Doubles b) { return a < b ? a : b; }
LMCFAST_INLINE Mask less(Doubles a, Doubles b) { return a < b; }
LMCFAST_INLINE Mask equal(Doubles a, Doubles b) { return a == b; }
LMCFAST_INLINE unsigned bits(Mask m) {
  unsigned r = 0;
  for (int k = 0; k < kLanes; ++k) r |= unsigned(m[k] & 1) << k;
  return r;
}
LMCFAST_INLINE Doubles select(Mask m, Doubles yes, Doubles no) { return m ? yes : no; }
LMCFAST_INLINE Indices select(Mask m, Indices yes, Indices no) { return m ? yes : no; }
LMCFAST_INLINE void store_where(Mask m, int64_t* p, Indices v) { store(p, select(m, v, load(p))); }
LMCFAST_INLINE Doubles gather(const double* p, const int* at) {
  Doubles v;
  for (int k = 0; k < kLanes; ++k) v[k] = p[at[k]];
  return v;
}
LMCFAST_INLINE double reduce_max(Doubles v) {
  double r = v[0];
  for (int k = 1; k < kLanes; ++k) r = v[k] > r ? v[k] : r;
  return r;
}
LMCFAST_INLINE double reduce_min(Doubles v) { return -reduce_max(-v); }
#endif

// Float32 scores against float32 scores: `at_least` has bit k set where lane k of a is >= that of b.
constexpr int kFloatLanes = 2 * kLanes;
LMCFAST_INLINE Floats load_floats(const float* p) { return *reinterpret_cast<const UnalignedFloats*>(p); }
LMCFAST_INLINE Floats broadcast(float x) { return x - Floats{}; }
#if defined(__AVX512F__)
LMCFAST_INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
LMCFAST_INLINE Floats min(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
LMCFAST_INLINE unsigned at_least(Floats a, Floats b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
LMCFAST_INLINE unsigned at_least(Doubles a, Doubles b) {
  return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GE_OQ);
}
#elif defined(__AVX2__)
LMCFAST_INLINE Floats max(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
LMCFAST_INLINE Floats min(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
LMCFAST_INLINE unsigned at_least(Floats a, Floats b) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GE_OQ)));
}
LMCFAST_INLINE unsigned at_least(Doubles a, Doubles b) {
  return unsigned(_mm256_movemask_pd(_mm256_cmp_pd((__m256d)a, (__m256d)b, _CMP_GE_OQ)));
}
#elif defined(__SSE2__)
LMCFAST_INLINE Floats max(Floats a, Floats b) { return (Floats)_mm_max_ps((__m128)a, (__m128)b); }
LMCFAST_INLINE Floats min(Floats a, Floats b) { return (Floats)_mm_min_ps((__m128)a, (__m128)b); }
LMCFAST_INLINE unsigned at_least(Floats a, Floats b) {
  return unsigned(_mm_movemask_ps(_mm_cmpge_ps((__m128)a, (__m128)b)));
}
LMCFAST_INLINE unsigned at_least(Doubles a, Doubles b) {
  return unsigned(_mm_movemask_pd(_mm_cmpge_pd((__m128d)a, (__m128d)b)));
}
#else
LMCFAST_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
LMCFAST_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }
LMCFAST_INLINE unsigned at_least(Floats a, Floats b) {
  unsigned r = 0;
  for (int k = 0; k < kFloatLanes; ++k) r |= unsigned(a[k] >= b[k]) << k;
  return r;
}
LMCFAST_INLINE unsigned at_least(Doubles a, Doubles b) { return bits(Mask(a >= b)); }
#endif

// Hides from the compiler how `v` was made, where it would make it again at every use.
template <class V>
LMCFAST_INLINE void keep_in_register([[maybe_unused]] V& v) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(v));
#endif
}

// p, but not known to the processor before `x` is. Loads through it are not tried before a store to an address that
// depends on what x was found from; one tried too early and found wrong costs the processor all that it did since.
template <class P>
LMCFAST_INLINE P* not_before(int64_t x, P* p) {
#if defined(__x86_64__)
  __asm__("and $0, %0" : "+r"(x));
  return p + x;
#else
  (void)x;
  return p;
#endif
}

// Writes p[j] by storing the whole vector that it lies in (p is padded and starts a vector). A vector load that follows
// at once takes its value from that store; after a store of one double it would have to wait for the cache.
LMCFAST_INLINE void put(double* p, int64_t j, double x) {
  double* const block = p + j / kLanes * kLanes;
#if defined(__AVX512F__)
  Doubles v = select(Mask(1u << (j % kLanes)), broadcast(x), load(block));
  keep_in_register(v);  // else it becomes a masked store, from which no load takes its value at once
#else
  const Mask lane = equal(__builtin_convertvector(lane_numbers(), Doubles), broadcast(double(j % kLanes)));
  const Doubles v = select(lane, broadcast(x), load(block));
#endif
  store(block, v);
}

// The lanes in the order 0 ^ kStep, 1 ^ kStep, ...: each has changed places with the one `kStep` away.
template <int kStep, int... k>
LMCFAST_INLINE Doubles exchanged(Doubles v, std::integer_sequence<int, k...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, (k ^ kStep)...);
#else
  return __builtin_shuffle(v, Indices{(k ^ kStep)...});
#endif
}
template <int kStep, int... k>
LMCFAST_INLINE Floats exchanged(Floats v, std::integer_sequence<int, k...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, (k ^ kStep)...);
#else
  typedef int32_t Order __attribute__((vector_size(kVectorBytes)));
  return __builtin_shuffle(v, Order{(k ^ kStep)...});
#endif
}

// The two largest of all lanes, in every lane, given the two largest seen in each lane. Lanes that meet have seen
// disjoint sets, so nothing is counted twice.
template <int kStep, class V>
LMCFAST_INLINE void reduce_top_two(V& first, V& second) {
  constexpr std::make_integer_sequence<int, kVectorBytes / int(sizeof(first[0]))> lanes{};
  const V other = exchanged<kStep>(first, lanes);
  second = max(min(first, other), max(second, exchanged<kStep>(second, lanes)));
  first = max(first, other);
  if constexpr (kStep > 1) reduce_top_two<kStep / 2>(first, second);
}

// The least of all lanes, in every lane.
template <int kStep = kLanes / 2>
LMCFAST_INLINE Doubles least_of_all(Doubles v) {
  v = min(v, exchanged<kStep>(v, std::make_integer_sequence<int, kLanes>{}));
  if constexpr (kStep > 1) v = least_of_all<kStep / 2>(v);
  return v;
}

// The largest of all lanes, in every lane.
template <int kStep, class V>
LMCFAST_INLINE V largest_by_steps(V v) {
  v = max(v, exchanged<kStep>(v, std::make_integer_sequence<int, kVectorBytes / int(sizeof(v[0]))>{}));
  if constexpr (kStep > 1) v = largest_by_steps<kStep / 2>(v);
  return v;
}
LMCFAST_INLINE Doubles largest_of_all(Doubles v) { return largest_by_steps<kLanes / 2>(v); }
LMCFAST_INLINE Floats largest_of_all(Floats v) { return largest_by_steps<kFloatLanes / 2>(v); }

// The lanes of the low bits of `lanes`.
LMCFAST_INLINE Mask mask_of(uint64_t lanes) {
#if defined(__AVX512F__)
  return Mask(lanes);
#else
  return equal(Doubles((broadcast(int64_t(lanes)) >> lane_numbers()) & 1), Doubles(broadcast(int64_t(1))));
#endif
}

// The masks of `kCount` vectors as one integer, the first in the lowest bits.
template <int kCount>
LMCFAST_INLINE uint64_t joined(const Mask* masks) {
#if defined(__AVX512F__)
  if constexpr (kCount == 2) return _mm512_kunpackb(masks[1], masks[0]);
  if constexpr (kCount == 4)
    return _mm512_kunpackw(_mm512_kunpackb(masks[3], masks[2]), _mm512_kunpackb(masks[1], masks[0]));
  if constexpr (kCount == 8)
    return _mm512_kunpackd(_mm512_kunpackw(_mm512_kunpackb(masks[7], masks[6]), _mm512_kunpackb(masks[5], masks[4])),
                           _mm512_kunpackw(_mm512_kunpackb(masks[3], masks[2]), _mm512_kunpackb(masks[1], masks[0])));
#endif
  uint64_t all = 0;
  for (int k = 0; k < kCount; ++k) all |= uint64_t(bits(masks[k])) << (k * kLanes);
  return all;
}

// Appends first + k to `out` for every bit k of the mask, in order, and returns the new end. May write up to 64 entries
// past what it appends: where bits are rare, four at once need no branch, and a branch on each would be unpredictable.
LMCFAST_INLINE int* append_positions(int* out, uint64_t mask, int first) {
#if defined(__BMI__)
  int* const end = out + __builtin_popcountll(mask);
#if defined(__AVX512F__)
  if (end - out > 16) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int k = 0; k < 64; k += 16) {
      const __mmask16 hit = __mmask16(mask >> k);
      _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(hit, _mm512_add_epi32(lanes, _mm512_set1_epi32(first + k))));
      out += __builtin_popcount(hit);
    }
    return end;
  }
#endif
  do {
    for (int k = 0; k < 4; ++k) {
      out[k] = first + int(_tzcnt_u64(mask));
      mask &= mask - 1;
    }
    out += 4;
  } while (mask);
  return end;
#else
  for (; mask; mask &= mask - 1) *out++ = first + __builtin_ctzll(mask);
  return out;
#endif
}

// Largest magnitude seen, as the bits of |x|: integers of the same order, in which NaN and infinity come last.
class Magnitude {
 public:
  LMCFAST_INLINE_MEMBER void look(Floats x) {
    const Bits bits = (Bits)x & 0x7fffffff;
    largest_ = bits > largest_ ? bits : largest_;
  }
  LMCFAST_INLINE_MEMBER void look(const Magnitude& other) {
    largest_ = other.largest_ > largest_ ? other.largest_ : largest_;
  }
  LMCFAST_INLINE_MEMBER void look(float x) {
    Floats v{};
    v[0] = x;
    look(v);
  }
  // Infinity when there was an infinity or a NaN.
  LMCFAST_INLINE_MEMBER float largest() const {
    int32_t most = 0;
    for (int k = 0; k < kFloatLanes; ++k) most = largest_[k] > most ? largest_[k] : most;
    if (most >= 0x7f800000) return std::numeric_limits<float>::infinity();
    float x;
    std::memcpy(&x, &most, sizeof x);
    return x;
  }

 private:
  typedef int32_t Bits __attribute__((vector_size(kVectorBytes)));
  Bits largest_{};
};

// The first `count` < kLanes entries at p as float64; the other lanes hold `fill`. Nothing past the end is read.
template <class T>
LMCFAST_INLINE Doubles load_partial(const T* p, int64_t count, double fill) {
#if defined(__AVX512F__)
  const __mmask8 present = __mmask8((1u << count) - 1);
  const __m512d rest = _mm512_set1_pd(fill);
  if constexpr (sizeof(T) == sizeof(float))
    return (Doubles)_mm512_mask_cvtps_pd(rest, present, _mm256_maskz_loadu_ps(present, (const float*)p));
  else return (Doubles)_mm512_mask_loadu_pd(rest, present, p);
#else
  Doubles v = broadcast(fill);
  for (int64_t k = 0; k < count; ++k) v[k] = double(p[k]);
  return v;
#endif
}

LMCFAST_INLINE Floats load_partial_floats(const float* p, int64_t count, float fill) {
#if defined(__AVX512F__)
  return (Floats)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), __mmask16((1u << count) - 1), p);
#else
  Floats v = broadcast(fill);
  for (int64_t k = 0; k < count; ++k) v[k] = p[k];
  return v;
#endif
}

LMCFAST_INLINE int first_bit(unsigned mask) { return __builtin_ctz(mask); }
LMCFAST_INLINE double larger(double a, double b) { return a > b ? a : b; }
LMCFAST_INLINE double smaller(double a, double b) { return a < b ? a : b; }

}  // namespace lmcfast::LMCFAST_LEVEL
