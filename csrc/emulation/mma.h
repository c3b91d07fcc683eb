// mma.sync on fragments: C (16 x 8, float) += A (16 x K) B (K x 8). In the emulator all lanes hand in their registers
// and the last one multiplies. Products are exact, an element's sum is cut off towards zero once: so do tensor cores
// (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021), but these cut off on the way
// too, in an order and to a width that are not stated. Compare with a tolerance.
#pragma once

#include "half.h"
#include "warp.h"

namespace lmcfast::emulation {

struct MmaPost {
  float* c;
  const unsigned *a, *b;
};

// Where an element lives, after the PTX manual. Lane = 4 * group + place; `i` counts a lane's elements.
struct MmaPlace {
  int row, column;
};
LMCFAST_UNSEEN inline MmaPlace place_of_c(int group, int place, int i) {
  return {group + 8 * (i >> 1), 2 * place + (i & 1)};
}

// m16n8k8, TF32: one element a register.
struct MmaTf32 {
  static constexpr int depth = 8, a_elements = 4, b_elements = 2;
  LMCFAST_UNSEEN static MmaPlace a(int group, int place, int i) { return {group + 8 * (i & 1), place + 4 * (i >> 1)}; }
  LMCFAST_UNSEEN static MmaPlace b(int group, int place, int i) { return {place + 4 * i, group}; }
  LMCFAST_UNSEEN static double value(const unsigned* registers, int i) {
    return bits<float>(registers[i] & ~0x1fffu);  // the hardware does not read the low 13 bits
  }
};
// m16n8k16, 16-bit: two elements a register, the lower half first.
struct Mma16Bit {
  static constexpr int depth = 16, a_elements = 8, b_elements = 4;
  LMCFAST_UNSEEN static MmaPlace a(int group, int place, int i) {
    return {group + 8 * (i >> 1 & 1), 2 * place + (i & 1) + 8 * (i >> 2)};
  }
  LMCFAST_UNSEEN static MmaPlace b(int group, int place, int i) { return {2 * place + (i & 1) + 8 * (i >> 1), group}; }
  LMCFAST_UNSEEN static unsigned short half_of(const unsigned* registers, int i) {
    return static_cast<unsigned short>(registers[i / 2] >> 16 * (i % 2));
  }
};
struct MmaBfloat16 : Mma16Bit {
  LMCFAST_UNSEEN static double value(const unsigned* registers, int i) {
    return bits<float>(unsigned(half_of(registers, i)) << 16);
  }
};
struct MmaHalf : Mma16Bit {
  LMCFAST_UNSEEN static double value(const unsigned* registers, int i) { return decode_half(half_of(registers, i)); }
};

template <class Layout>
LMCFAST_UNSEEN inline void multiply_fragments(void** posts, unsigned) {
  double a[16][Layout::depth], b[Layout::depth][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaPost& post = *static_cast<const MmaPost*>(posts[lane]);
    for (int i = 0; i < Layout::a_elements; ++i) {
      const MmaPlace p = Layout::a(lane / 4, lane % 4, i);
      a[p.row][p.column] = Layout::value(post.a, i);
    }
    for (int i = 0; i < Layout::b_elements; ++i) {
      const MmaPlace p = Layout::b(lane / 4, lane % 4, i);
      b[p.row][p.column] = Layout::value(post.b, i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    MmaPost& post = *static_cast<MmaPost*>(posts[lane]);
    for (int i = 0; i < 4; ++i) {
      const MmaPlace p = place_of_c(lane / 4, lane % 4, i);
      double sum = post.c[i];
      for (int k = 0; k < Layout::depth; ++k) sum += a[p.row][k] * b[k][p.column];
      post.c[i] = narrow(Rounding::zero, sum);
    }
  }
}

template <class Layout>
LMCFAST_UNSEEN inline void mma(float* c, const unsigned* a, const unsigned* b, Site site) {
  MmaPost post{c, a, b};
  collective(~0u, Operation::mma, &post, multiply_fragments<Layout>, false, site);
}

}  // namespace lmcfast::emulation

namespace lmcfast::cuda {

// To nearest, ties away from zero; infinities and NaN stay.
inline unsigned to_tf32(float value) {
  const unsigned word = emulation::bits<unsigned>(value);
  return (word & 0x7f800000u) == 0x7f800000u ? word : (word + 0x1000u) & ~0x1fffu;
}
inline void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], LMCFAST_SITE) {
  emulation::mma<emulation::MmaTf32>(c, a, b, site);
}
inline void mma_bfloat16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], LMCFAST_SITE) {
  emulation::mma<emulation::MmaBfloat16>(c, a, b, site);
}
inline void mma_half(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], LMCFAST_SITE) {
  emulation::mma<emulation::MmaHalf>(c, a, b, site);
}

}  // namespace lmcfast::cuda
