// The 16-bit floats as storage: conversions from and to float, with every rounding. No arithmetic.
#pragma once

#include "arithmetic.h"

struct __half {
  unsigned short bits;
};
struct __nv_bfloat16 {
  unsigned short bits;
};
using half = __half;
using nv_bfloat16 = __nv_bfloat16;

namespace lmcfast::emulation {

// Both formats: a sign, `exponent` bits, `fraction` bits. Values beyond the range: infinity, or the largest number
// where the direction asks for it, as IEEE 754 has it.
template <int exponent, int fraction>
inline unsigned short encode(Rounding rounding, float value) {
  constexpr int bias = (1 << (exponent - 1)) - 1, lowest = 1 - bias;  // of normal numbers
  constexpr unsigned infinity = ((1u << exponent) - 1) << fraction;
  const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
  if (std::isnan(value)) return 0x7fff;
  if (std::isinf(value)) return static_cast<unsigned short>(sign | infinity);
  if (value == 0) return static_cast<unsigned short>(sign);
  const double magnitude = std::fabs(double(value));
  const int power = std::max(std::ilogb(magnitude), lowest);
  const double units = std::ldexp(magnitude, fraction - power);  // exact; an integer if no rounding is needed
  const double below = std::floor(units), rest = units - below;
  const bool odd = std::fmod(below, 2) != 0;
  const bool outward = (rounding == Rounding::nearest && (rest > 0.5 || (rest == 0.5 && odd))) ||
                       (rounding == Rounding::up && !sign && rest > 0) ||
                       (rounding == Rounding::down && sign && rest > 0);
  // Units count on through the powers of two: a carry out of the fraction raises the exponent by itself.
  const unsigned code = (unsigned(power - lowest) << fraction) + unsigned(below + outward);
  if (code < infinity) return static_cast<unsigned short>(sign | code);
  const bool infinite =
      rounding == Rounding::nearest || (rounding == Rounding::up && !sign) || (rounding == Rounding::down && sign);
  return static_cast<unsigned short>(sign | (infinite ? infinity : infinity - 1));
}

inline float decode_half(unsigned short bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float magnitude = std::ldexp(float(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return bits & 0x8000 ? -magnitude : magnitude;
}

}  // namespace lmcfast::emulation

inline float __half2float(__half v) { return lmcfast::emulation::decode_half(v.bits); }
inline float __bfloat162float(__nv_bfloat16 v) { return __uint_as_float(unsigned(v.bits) << 16); }
inline unsigned short __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(unsigned short v) { return {v}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) { return {v}; }

#define LMCFAST_ROUNDED(suffix, rounding)                                                  \
  inline __half __float2half##suffix(float v) {                                            \
    return {lmcfast::emulation::encode<5, 10>(lmcfast::emulation::Rounding::rounding, v)}; \
  }                                                                                        \
  inline __nv_bfloat16 __float2bfloat16##suffix(float v) {                                 \
    return {lmcfast::emulation::encode<8, 7>(lmcfast::emulation::Rounding::rounding, v)};  \
  }
LMCFAST_ROUNDED(, nearest)
LMCFAST_ROUNDED(_rn, nearest)
LMCFAST_ROUNDED(_ru, up)
LMCFAST_ROUNDED(_rd, down)
LMCFAST_ROUNDED(_rz, zero)
#undef LMCFAST_ROUNDED
