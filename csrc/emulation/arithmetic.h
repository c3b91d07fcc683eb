// Intrinsics of numbers: bits, and arithmetic with a given rounding. All exact, also for zeros, infinities and
// denormals; the suffix is the direction: to nearest even, up, down, towards zero.
#pragma once

#include <math.h>

#include <cfenv>
#include <cfloat>
#include <climits>
#include <cmath>
#include <type_traits>

#include "atomics.h"

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline unsigned __brev(unsigned v) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (v >> i & 1u) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned((std::uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((std::uint64_t(high) << 32 | low) >> (shift & 31));
}

inline unsigned __float_as_uint(float v) { return lmcfast::emulation::bits<unsigned>(v); }
inline int __float_as_int(float v) { return lmcfast::emulation::bits<int>(v); }
inline float __uint_as_float(unsigned v) { return lmcfast::emulation::bits<float>(v); }
inline float __int_as_float(int v) { return lmcfast::emulation::bits<float>(v); }
inline long long __double_as_longlong(double v) { return lmcfast::emulation::bits<long long>(v); }
inline double __longlong_as_double(long long v) { return lmcfast::emulation::bits<double>(v); }
inline int __double2hiint(double v) { return int(lmcfast::emulation::bits<std::uint64_t>(v) >> 32); }
inline int __double2loint(double v) { return int(lmcfast::emulation::bits<std::uint64_t>(v)); }

// As on the device: the types may differ, and of a number and a NaN the number is taken.
template <class A, class B>
constexpr std::common_type_t<A, B> min(A x, B y) {
  using T = std::common_type_t<A, B>;
  const T a = T(x), b = T(y);
  return a < b || b != b ? a : b;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A x, B y) {
  using T = std::common_type_t<A, B>;
  const T a = T(x), b = T(y);
  return a > b || b != b ? a : b;
}

namespace lmcfast::emulation {

enum class Rounding { nearest, up, down, zero };

// The float next to `nearest` on the wanted side, if `nearest`, a float rounded to nearest from a sum `value` + `error`
// (error: less than a unit of value), lies on the other side of it. An infinity that came from finite values is
// replaced by the largest finite number where the direction asks for it.
inline float towards(Rounding rounding, float nearest, double value, double error) {
  if (!std::isfinite(value) || rounding == Rounding::nearest) return nearest;
  const bool below = nearest < value || (nearest == value && error > 0);
  const bool above = nearest > value || (nearest == value && error < 0);
  const bool up = rounding == Rounding::up || (rounding == Rounding::zero && value < 0);
  if (up && below) return std::nextafterf(nearest, INFINITY);
  if (!up && above) return std::nextafterf(nearest, -INFINITY);
  return nearest;
}

inline float narrow(Rounding rounding, double value) { return towards(rounding, float(value), value, 0); }

// x + y. The sum of two floats needs more bits than a double has; the rest is exact by the two-sum of Knuth.
inline float add(Rounding rounding, float x, float y) {
  const double a = x, b = y, sum = a + b, t = sum - a, rest = (a - (sum - t)) + (b - t);
  if (sum == 0)
    return rounding == Rounding::down && !(x == 0 && y == 0 && !std::signbit(x) && !std::signbit(y)) ? -0.f
                                                                                                     : float(sum);
  return towards(rounding, float(sum), sum, rest);
}

// A product of two floats is exact in double.
inline float multiply(Rounding rounding, float x, float y) { return narrow(rounding, double(x) * y); }

// By the processor's rounding mode. Volatile: the compiler must neither fold nor move the operation.
template <class F>
inline auto with_rounding(Rounding rounding, F f) {
  static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  const int old = std::fegetround();
  std::fesetround(modes[int(rounding)]);
  volatile auto result = f();
  std::fesetround(old);
  return decltype(f())(result);
}
template <class T>
inline T quotient(Rounding rounding, T x, T y) {
  volatile T a = x, b = y;
  return with_rounding(rounding, [&] { return T(a / b); });
}
template <class T>
inline T fused(Rounding rounding, T x, T y, T z) {
  volatile T a = x, b = y, c = z;
  return with_rounding(rounding, [&] { return T(std::fma(T(a), T(b), T(c))); });
}
inline double add(Rounding rounding, double x, double y) {
  volatile double a = x, b = y;
  return with_rounding(rounding, [&] { return double(a + b); });
}
inline double multiply(Rounding rounding, double x, double y) {
  volatile double a = x, b = y;
  return with_rounding(rounding, [&] { return double(a * b); });
}

}  // namespace lmcfast::emulation

#define LMCFAST_ROUNDED(suffix, rounding)                                                 \
  inline float __fadd_##suffix(float a, float b) {                                        \
    return lmcfast::emulation::add(lmcfast::emulation::Rounding::rounding, a, b);         \
  }                                                                                       \
  inline float __fsub_##suffix(float a, float b) {                                        \
    return lmcfast::emulation::add(lmcfast::emulation::Rounding::rounding, a, -b);        \
  }                                                                                       \
  inline float __fmul_##suffix(float a, float b) {                                        \
    return lmcfast::emulation::multiply(lmcfast::emulation::Rounding::rounding, a, b);    \
  }                                                                                       \
  inline float __fdiv_##suffix(float a, float b) {                                        \
    return lmcfast::emulation::quotient(lmcfast::emulation::Rounding::rounding, a, b);    \
  }                                                                                       \
  inline float __fmaf_##suffix(float a, float b, float c) {                               \
    return lmcfast::emulation::fused(lmcfast::emulation::Rounding::rounding, a, b, c);    \
  }                                                                                       \
  inline double __dadd_##suffix(double a, double b) {                                     \
    return lmcfast::emulation::add(lmcfast::emulation::Rounding::rounding, a, b);         \
  }                                                                                       \
  inline double __dsub_##suffix(double a, double b) {                                     \
    return lmcfast::emulation::add(lmcfast::emulation::Rounding::rounding, a, -b);        \
  }                                                                                       \
  inline double __dmul_##suffix(double a, double b) {                                     \
    return lmcfast::emulation::multiply(lmcfast::emulation::Rounding::rounding, a, b);    \
  }                                                                                       \
  inline double __ddiv_##suffix(double a, double b) {                                     \
    return lmcfast::emulation::quotient(lmcfast::emulation::Rounding::rounding, a, b);    \
  }                                                                                       \
  inline double __fma_##suffix(double a, double b, double c) {                            \
    return lmcfast::emulation::fused(lmcfast::emulation::Rounding::rounding, a, b, c);    \
  }                                                                                       \
  inline float __double2float_##suffix(double a) {                                        \
    return lmcfast::emulation::narrow(lmcfast::emulation::Rounding::rounding, a);         \
  }                                                                                       \
  inline float __int2float_##suffix(int a) {                                              \
    return lmcfast::emulation::narrow(lmcfast::emulation::Rounding::rounding, double(a)); \
  }                                                                                       \
  inline float __uint2float_##suffix(unsigned a) {                                        \
    return lmcfast::emulation::narrow(lmcfast::emulation::Rounding::rounding, double(a)); \
  }
LMCFAST_ROUNDED(rn, nearest)
LMCFAST_ROUNDED(ru, up)
LMCFAST_ROUNDED(rd, down)
LMCFAST_ROUNDED(rz, zero)
#undef LMCFAST_ROUNDED
