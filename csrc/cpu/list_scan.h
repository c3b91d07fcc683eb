// One scan of a row: which columns belong on its candidate list, and a bound on all others.
//
// A scan needs a threshold that about kUsual columns reach. It is guessed from a sample of the row; a guess that is far
// off is replaced by the least of 16 class maxima (columns by lane), which about 16 * H(16) = 54 columns reach,
// whatever the distribution. When very many columns tie at the threshold, the list takes the better ones and some of
// the ties.
#pragma once

#include <algorithm>

#include "buffer.h"
#include "state.h"

namespace lmcfast::LMCFAST_LEVEL {

constexpr int kUsual = 44;                // entries that a list should have
constexpr int kFewest = 14, kMost = 192;  // a guessed threshold must give that many
constexpr int kTieFill = 48;              // length up to which ties are taken
constexpr int kHits = 512;                // hits looked at before a scan is called tied

// The values of a row as the scan sees them: `V` lanes at a time, exact.
// At zero prices float32 scores are compared as they are; otherwise a[i,j] - p[j] is formed in float64.
template <class T>
struct PricedValues {
  using Vector = Doubles;
  using Scalar = double;
  static constexpr int kWidth = kLanes;
  static constexpr bool kExact = true;
  const T* row;
  const double* price;
  double sign;
  Vector at(int j) const { return broadcast(sign) * load(row + j) - load(price + j); }
  Scalar one(int j) const { return sign * double(row[j]) - price[j]; }
};

struct PlainFloats {
  using Vector = Floats;
  using Scalar = float;
  static constexpr int kWidth = kFloatLanes;
  static constexpr bool kExact = true;
  const float* row;
  float sign;
  Vector at(int j) const { return broadcast(sign) * load_floats(row + j); }
  Scalar one(int j) const { return sign * row[j]; }
};

// a[i,j] - p[j] formed in float32 from prices that were rounded down: never below the value that it stands for, but for
// a rounding that is monotone. So a[i,j] - p[j] < t where this is below a float32 threshold t: as a bound t is as good
// as one found in float64, at half the arithmetic. Useless for ties, which it does not see.
struct RoundedValues {
  using Vector = Floats;
  using Scalar = float;
  static constexpr int kWidth = kFloatLanes;
  static constexpr bool kExact = false;
  const float* row;
  const float* price;  // rounded_down
  float sign;
  Vector at(int j) const { return broadcast(sign) * load_floats(row + j) - load_floats(price + j); }
  Scalar one(int j) const { return sign * row[j] - price[j]; }
};

// The largest float32 that is not above x.
LMCFAST_INLINE float rounded_down(double x) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  if (x >= double(kLargest)) return kLargest;
  const float nearest = float(x);
  return double(nearest) > x ? __builtin_nextafterf(nearest, -kLargest) : nearest;
}

// Takes the values shown to it for nothing.
struct Unseen {
  template <class V>
  LMCFAST_INLINE_MEMBER void look(V) {}
};

// Holds no memory but its own, so rows can be scanned on several threads.
template <class Values>
class RowScan {
 public:
  using Scalar = typename Values::Scalar;
  using Vector = typename Values::Vector;

  int count = 0;             // columns found
  int hits[kHits + 2 * 64];  // which; a sweep may end up to 64 past kHits, and append_positions writes ahead
  double bound = 0;          // on the value of every column not among them

  // `next_row`: distance in elements to the row that will be scanned next, 0 when unknown.
  RowScan(const Values& v, int columns, int64_t next_row) : v_(v), columns_(columns), next_row_(next_row) {}

  // The usual single sweep, with a guessed threshold; a second one where so many reach it that they must be ties.
  // `longer`: look for about twice as many. `shift`: where to start taking ties. Every value read is shown to `seen`.
  // False when the guess is far off; then not every value may have been shown, and search() finds the list.
  template <class Seen>
  bool sweep(bool longer, int shift, Seen& seen) {
    const Scalar guessed = guess(longer);
    count = guessed > kNone ? collect(guessed, kMost, seen) : 0;
    bound = double(guessed);
    if (count <= kMost || !Values::kExact) return count >= kFewest && count <= kMost;
    const int better = collect(next_above(guessed), kMost, seen);
    if (better > kMost) return false;
    fill_with_ties(better, guessed, shift);
    return true;
  }

  // Several sweeps, whatever the row is like. `shift`: where to start taking ties.
  void search(bool longer, int shift) {
    const Scalar threshold = class_threshold(longer ? 2 : 1);
    count = collect(threshold > kNone ? threshold : std::numeric_limits<Scalar>::lowest(), kHits);
    bound = double(threshold);
    if (count > kMost) keep_the_best(count, threshold, shift);
  }

 private:
  static constexpr int W = Values::kWidth;
  static constexpr Scalar kNone = -std::numeric_limits<Scalar>::infinity();

  // About the value that kUsual (or twice as many) columns reach, from every eighth vector of the row: the least of 3
  // (5) class maxima of that sample, which about 3 H(3) = 5.5 (5 H(5) = 11.4) of its entries reach.
  Scalar guess(bool longer) const { return longer ? least_class_maximum<5>() : least_class_maximum<3>(); }

  // Vectors of the sample belong to the classes in turn.
  template <int kClasses>
  Scalar least_class_maximum() const {
    constexpr int kStep = 8;
    const int sampled = (columns_ / W + kStep - 1) / kStep;
    if (sampled < kClasses || sampled * W < 32) return kNone;
    Vector best[kClasses];
    for (int c = 0; c < kClasses; ++c) best[c] = v_.at(c * kStep * W);
    int k = kClasses;
    for (; k + kClasses <= sampled; k += kClasses)
      for (int c = 0; c < kClasses; ++c) best[c] = max(best[c], v_.at((k + c) * kStep * W));
    for (int c = 0; c < kClasses; ++c)
      if (k + c < sampled) best[c] = max(best[c], v_.at((k + c) * kStep * W));
    Vector least = largest_of_all(best[0]);
    for (int c = 1; c < kClasses; ++c) least = min(least, largest_of_all(best[c]));
    return least[0];
  }

  // The least of 16 * `factor` class maxima (of as many as there are, on narrow vectors): at least that many columns
  // reach it. -inf when a class has no allowed pair.
  Scalar class_threshold(int factor) const {
    constexpr int kSets = 8;
    Vector best[kSets];
    for (int t = 0; t < kSets; ++t) best[t] = broadcast(kNone);
    const int whole = columns_ / W * W;
    int j = 0;
    for (; j + kSets * W <= whole; j += kSets * W)
      for (int t = 0; t < kSets; ++t) best[t] = max(best[t], v_.at(j + t * W));
    for (int t = 0; j < whole; j += W, ++t) best[t] = max(best[t], v_.at(j));
    for (; j < columns_; ++j) best[0][j - whole] = larger_of(best[0][j - whole], v_.one(j));
    int sets = kSets;
    while (sets > 1 && (sets / 2) * W >= 16 * factor) {
      sets /= 2;
      for (int t = 0; t < sets; ++t) best[t] = max(best[t], best[t + sets]);
    }
    Vector least = best[0];
    for (int t = 1; t < sets; ++t) least = min(least, best[t]);
    Scalar threshold = least[0];
    for (int k = 1; k < W; ++k) threshold = least[k] < threshold ? least[k] : threshold;
    return threshold;
  }

  static Scalar larger_of(Scalar a, Scalar b) { return a > b ? a : b; }

  // Columns that reach the threshold go to hits, in order. Stops soon after `most`, with more than that. Every value
  // that was read is shown to `seen`.
  template <class Seen>
  int collect(Scalar threshold, int most, Seen& seen) {
    // Copies, so that the compiler knows them to be out of reach of the stores to hits, and keeps them in registers.
    const Values v = v_;
    Seen all = seen;
    const int64_t next_row = next_row_;
    const int columns = columns_;
    const Vector reach = broadcast(threshold);
    int* end = hits;
    int j = 0;
    while (j + 64 <= columns && end - hits <= most) {
      // Eight masks first, then what they say, so that neither loop waits for the other.
      constexpr int kMasks = 8;
      uint64_t masks[kMasks];
      const int first = j;
      int count = 0;
      for (; count < kMasks && j + 64 <= columns; j += 64) {
        uint64_t mask = 0;
        for (int k = 0; k < 64; k += W) {
          const Vector x = v.at(j + k);
          all.look(x);
          mask |= uint64_t(at_least(x, reach)) << k;
        }
        masks[count++] = mask;
      }
      for (int m = 0; m < count && end - hits <= most; ++m) {
        const int at = first + 64 * m;
        // The sample of the next row jumps through memory; without this it would wait for every line. To the
        // second-level cache: two rows and the prices would not fit the first. Here, where nothing else is read.
        for (int k = 0; k < 64; k += 64 / int(sizeof(*v.row))) __builtin_prefetch(v.row + at + k + next_row, 0, 2);
        end = append_positions(end, masks[m], at);
      }
    }
    for (; j < columns && end - hits <= most; ++j) {
      all.look(v.one(j));
      if (v.one(j) >= threshold) *end++ = j;
    }
    seen = all;
    return int(end - hits);
  }
  int collect(Scalar threshold, int most) {
    Unseen unseen;
    return collect(threshold, most, unseen);
  }

  // More columns reach the threshold than a list holds.
  void keep_the_best(int reached, Scalar threshold, int shift) {
    const int better = collect(next_above(threshold), kMost);
    if (better <= kMost) return fill_with_ties(better, threshold, shift);
    if (reached <= kHits) return keep_largest(hits, collect(threshold, kHits));
    Buffer<int> all;
    for (int j = 0; j < columns_; ++j) all.push(j);
    keep_largest(all.begin(), columns_);
  }

  static float next_above(float x) { return __builtin_nextafterf(x, std::numeric_limits<float>::infinity()); }
  static double next_above(double x) { return __builtin_nextafter(x, kInf); }

  // `found` columns are above the threshold and in hits; very many tie with it. Takes some of these, from a place on
  // that depends on the row, so that rows that are all alike prefer different columns.
  void fill_with_ties(int found, Scalar threshold, int shift) {
    const int most = found + 16 > kTieFill ? found + 16 : kTieFill, full = most < kMost ? most : kMost;
    const Vector level = broadcast(threshold);
    const int whole = columns_ / W * W;
    const int first = shift < whole ? shift / W * W : 0;
    for (int k = 0; k < whole && found < full; k += W) {
      const int j = first + k < whole ? first + k : first + k - whole;
      const Vector x = v_.at(j);
      unsigned tie = at_least(x, level) & at_least(level, x);
      if (k == 0 && shift < whole) tie &= ~0u << (shift - first);
      for (; tie && found < full; tie &= tie - 1) hits[found++] = j + first_bit(tie);
    }
    for (int j = whole; j < columns_ && found < full; ++j)
      if (v_.one(j) == threshold) hits[found++] = j;
    count = found;
    bound = double(threshold);
  }

  // The best kMost of the candidates become the list.
  void keep_largest(int* candidate, int candidates) {
    const auto better = [&](int a, int b) { return v_.one(a) > v_.one(b); };
    std::nth_element(candidate, candidate + kMost, candidate + candidates, better);
    for (int k = 0; k < kMost; ++k) hits[k] = candidate[k];
    count = kMost;
    bound = double(v_.one(candidate[kMost]));
  }

  const Values& v_;
  const int columns_;
  const int64_t next_row_;
};

}  // namespace lmcfast::LMCFAST_LEVEL
