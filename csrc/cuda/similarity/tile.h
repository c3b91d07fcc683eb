// From an operand's numbers in global memory to words in shared memory, by way of registers: the loads of a step are in
// flight while the products of the step before are formed.
#pragma once

#include <cstdint>

#include "cuda/similarity/elements.h"

namespace lmcfast::cuda {

constexpr int kProductThreads = 128;
constexpr int kUnitsApart = 8;                            // between the units that one thread brings
constexpr int kStagedWords = kProductTile / kUnitsApart;  // words that one thread brings in a step
static_assert(kUnitsApart * kStepWords == kProductThreads, "a thread brings one word of each eighth unit");

// Which words a thread brings. Neighbouring lanes read along the positions where those lie side by side, else along the
// units: eight of them, one sector of 32 bytes of float32.
struct Share {
  int word, unit;
};

__device__ __forceinline__ Share share_of(const ProductOperand& x, int thread) {
  if (x.gather == nullptr && x.position_stride == 1) return {thread % kStepWords, thread / kStepWords};
  return {thread / kUnitsApart, thread % kUnitsApart};
}

// Where a depth of an operand lies, units aside; kOutside past the end.
__device__ __forceinline__ int64_t depth_offset(const ProductOperand& x, unsigned positions, unsigned depth,
                                                unsigned at) {
  if (at >= depth) return kOutside;
  const unsigned block = at / positions, position = at - block * positions;
  const int64_t source = x.gather ? x.gather[position] : int64_t(position);
  return block * x.block_stride + source * x.position_stride;
}

// The words of depths from `start` on, of the units [first_unit, min(units, first_unit + 64)).
template <class Kind>
__device__ __forceinline__ void fetch(typename Kind::Word (&staged)[kStagedWords], const ProductOperand& x,
                                      const ProductTerm& term, unsigned start, int first_unit, int units) {
  const Share share = share_of(x, threadIdx.x);
  const unsigned positions = unsigned(term.positions), depth = unsigned(term.blocks) * positions;
  const unsigned at = start + unsigned(share.word) * Kind::kPerWord;
  const int64_t first = depth_offset(x, positions, depth, at);
  const int64_t second = Kind::kPerWord == 2 ? depth_offset(x, positions, depth, at + 1) : kOutside;
  LMCFAST_UNROLL
  for (int k = 0; k < kStagedWords; ++k) {
    const int unit = first_unit + share.unit + k * kUnitsApart;
    const int64_t base = unit * x.unit_stride;
    const bool inside = unit < units;
    staged[k] = Kind::load(x, inside && first != kOutside ? base + first : kOutside,
                           inside && second != kOutside ? base + second : kOutside);
  }
}

template <class Word>
__device__ __forceinline__ void deposit(Word* tile, const Word (&staged)[kStagedWords], const ProductOperand& x) {
  const Share share = share_of(x, threadIdx.x);
  LMCFAST_UNROLL
  for (int k = 0; k < kStagedWords; ++k) tile[(share.unit + k * kUnitsApart) * kPitch + share.word] = staged[k];
}

}  // namespace lmcfast::cuda
