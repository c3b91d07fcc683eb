// The word of a column: its price, as a multiple of `delta`, above its owner (row + 1, 0: free).
//
// One atomic maximum raises the price, takes the column and returns the owner who lost it. Within a phase a word only
// grows, so no bid can be lost, nobody waits for anybody, and bounds computed from older prices stay valid.
// delta = 2^-40 times the power of two above the largest |score|, so prices reach 64 times that power.
#pragma once

#include "state.h"

namespace lmcfast::cuda {

constexpr int kOwnerBits = 17;
constexpr u64 kOwnerMask = (1ull << kOwnerBits) - 1;
constexpr u64 kPriceLimit = 1ull << (63 - kOwnerBits);
static_assert(kMostShorter < (1ll << kOwnerBits) - 1, "every row needs an owner's number");

__device__ inline u64 make_word(u64 units, int owner) { return units << kOwnerBits | u64(owner + 1); }
__device__ inline u64 units_of(u64 word) { return word >> kOwnerBits; }
__device__ inline int owner_of(u64 word) { return int(word & kOwnerMask) - 1; }
__device__ inline bool is_free(u64 word) { return (word & kOwnerMask) == 0; }
__device__ inline double price_of(u64 units, double delta) { return double((long long)units) * delta; }
__device__ inline double word_price(u64 word, double delta) { return price_of(units_of(word), delta); }

}  // namespace lmcfast::cuda
