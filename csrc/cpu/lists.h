// Candidate lists: the best few columns of every row, with a bound on all others.
//
// For row i the list holds columns L[i] with their scores as of the last scan of the row, and bound[i] is an upper
// bound on a[i,j] - p[j] over every column outside the list. While prices only rise the bound stays valid without being
// touched. So the best value of a row is known exactly whenever the best value inside its list is >= bound[i]; only
// otherwise is the whole row read again. Everything between two reads works on a few hundred bytes in the cache.
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

constexpr int kUsual = 54;                // entries that a list should have
constexpr int kFewest = 20, kMost = 192;  // a guessed threshold must give that many
constexpr int kTieFill = 48;              // length up to which ties are taken
constexpr int kHits = 512;                // hits looked at before a scan is called tied

// The values of a row as the scan sees them: `V` lanes at a time, exact.
// At zero prices float32 scores are compared as they are; otherwise a[i,j] - p[j] is formed in float64.
template <class T>
struct PricedValues {
  using Vector = Doubles;
  using Scalar = double;
  static constexpr int kWidth = kLanes;
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
  const float* row;
  float sign;
  Vector at(int j) const { return broadcast(sign) * load_floats(row + j); }
  Scalar one(int j) const { return sign * row[j]; }
};

template <class T>
class Lists {
 public:
  explicit Lists(State<T>& s) : s_(s) {
    Workspace& w = Workspace::of_this_thread();
    length_ = w.take<int>(s.rows);
    room_ = w.take<int>(s.rows);
    bound_ = w.take<double>(s.rows);
    columns_ = w.take<int*>(s.rows);
    scores_ = w.take<T*>(s.rows);
    scans_ = w.take<unsigned char>(s.rows);
    for (int i = 0; i < s.rows; ++i) length_[i] = room_[i] = scans_[i] = 0;
  }

  // Lists of all rows at the present prices.
  void build_all() {
    for (int i = 0; i < s_.rows; ++i) {
      read_ahead_ = i + 1 < s_.rows ? s_.row_stride : 0;
      scan(i);
    }
    read_ahead_ = 0;
  }

  // The same at zero prices, where float32 scores can be compared as they are. Looks at every score on the way and
  // returns the largest magnitude: infinity if one is infinite or NaN.
  float build_all_at_zero_prices() {
    Magnitude magnitude;
    for (int i = 0; i < s_.rows; ++i) {
      read_ahead_ = i + 1 < s_.rows ? s_.row_stride : 0;
      s_.work->counts.scores_read += s_.columns;
      const PlainFloats v{s_.row(i), float(s_.sign)};
      Magnitude seen;
      if (!scan_values(i, v, [&](auto x) { seen.look(x); })) look_at_row(s_, i, seen);
      magnitude.look(seen);
    }
    read_ahead_ = 0;
    return magnitude.largest();
  }

  // Reads row i again, at the present prices.
  void rebuild(int i) {
    ++s_.work->counts.rescans;
    if (scans_[i] < 255) ++scans_[i];
    scan(i);
  }

  int length(int i) const { return length_[i]; }
  const int* columns(int i) const { return columns_[i]; }
  const T* scores(int i) const { return scores_[i]; }  // maximised: sign * stored score
  double bound(int i) const { return bound_[i]; }

  // The two best values inside the list of row i. The list is padded to whole vectors with forbidden pairs.
  BestTwo best_in_list(int i) const {
    Doubles first = broadcast(-kInf), second = first;
    Indices at = broadcast(int64_t(0)), position = lane_numbers();
    const int* const columns = columns_[i];
    const T* const scores = scores_[i];
    for (int k = 0; k < length_[i]; k += kLanes) {
      const Doubles v = load(scores + k) - gather(s_.price, columns + k);
      const Mask better = less(first, v);
      second = max(second, min(v, first));
      at = select(better, position, at);
      first = max(first, v);
      position += kLanes;
    }
    BestTwo best = top_two(first, second, [&](int lane) { return columns[at[lane]]; });
    if (best.first == -kInf) best.column = -1;
    return best;
  }

  // The best value of the whole row exactly, and an upper bound on the second best.
  BestTwo best(int i) {
    BestTwo b = best_in_list(i);
    if (b.first < bound_[i]) {
      rebuild(i);
      b = best_in_list(i);
    }
    b.second = larger(b.second, bound_[i]);
    return b;
  }

  // A free column inside the list of row i that is worth exactly `value`, or -1.
  int free_column_worth(int i, double value) const {
    for (int k = 0; k < length_[i]; ++k) {
      const int j = columns_[i][k];
      if (s_.row_of[j] < 0 && double(scores_[i][k]) - s_.price[j] == value) return j;
    }
    return -1;
  }

 private:
  void scan(int i) {
    s_.work->counts.scores_read += s_.columns;
    scan_values(i, PricedValues<T>{s_.row(i), s_.price, s_.sign}, [](auto) {});
  }

  // A row that is scanned often gets a longer list.
  bool often_scanned(int i) const { return scans_[i] > 4; }

  // Returns whether every value was shown to `look`: so it is when the guess was good.
  template <class Values, class Look>
  bool scan_values(int i, const Values& v, Look look) {
    using Scalar = typename Values::Scalar;
    constexpr Scalar kNone = -std::numeric_limits<Scalar>::infinity();
    const Scalar guessed = guess(v, often_scanned(i));
    int hits = guessed > kNone ? collect(v, guessed, kMost, look) : 0;
    if (hits >= kFewest && hits <= kMost) {
      store(i, hits, double(guessed));
      return true;
    }
    const Scalar threshold = class_threshold(v, often_scanned(i) ? 2 : 1);
    hits = collect(v, threshold > kNone ? threshold : std::numeric_limits<Scalar>::lowest(), kHits, [](auto) {});
    if (hits > kMost) keep_the_best(i, v, hits, threshold);
    else store(i, hits, double(threshold));
    return false;
  }

  // About the value that kUsual (or twice as many) columns reach, from every eighth vector of the row: the least of 4
  // (6) class maxima of that sample, which about 4 * H(4) = 8.3 (14.7) of its entries reach.
  template <class Values>
  typename Values::Scalar guess(const Values& v, bool longer) const {
    using Scalar = typename Values::Scalar;
    constexpr int W = Values::kWidth, kStep = 8, kSets = W < 16 ? 16 / W : 2;
    const int vectors = s_.columns / W;
    if (vectors < 2 * kStep * kSets) return -std::numeric_limits<Scalar>::infinity();
    typename Values::Vector best[kSets];
    for (int t = 0; t < kSets; ++t) best[t] = v.at(t * kStep * W);
    for (int k = kSets; (k + kSets - 1) * kStep < vectors; k += kSets)
      for (int t = 0; t < kSets; ++t) best[t] = max(best[t], v.at((k + t) * kStep * W));
    Scalar maxima[6];
    const int classes = longer ? 6 : 4;
    for (int c = 0; c < classes; ++c) maxima[c] = -std::numeric_limits<Scalar>::infinity();
    for (int t = 0, c = 0; t < kSets; ++t)
      for (int k = 0; k < W; ++k, c = c + 1 < classes ? c + 1 : 0) maxima[c] = larger_of(maxima[c], Scalar(best[t][k]));
    Scalar least = maxima[0];
    for (int c = 1; c < classes; ++c) least = maxima[c] < least ? maxima[c] : least;
    return least;
  }

  // The least of 16 * `factor` class maxima (of as many as there are, on narrow vectors): at least that many columns
  // reach it. -inf when a class has no allowed pair.
  template <class Values>
  typename Values::Scalar class_threshold(const Values& v, int factor) const {
    using Scalar = typename Values::Scalar;
    using Vector = typename Values::Vector;
    constexpr int W = Values::kWidth, kSets = 8;
    const Vector none = broadcast(-std::numeric_limits<Scalar>::infinity());
    Vector best[kSets];
    for (int t = 0; t < kSets; ++t) best[t] = none;
    const int whole = s_.columns / W * W;
    int j = 0;
    for (; j + kSets * W <= whole; j += kSets * W)
      for (int t = 0; t < kSets; ++t) best[t] = max(best[t], v.at(j + t * W));
    for (int t = 0; j < whole; j += W, ++t) best[t] = max(best[t], v.at(j));
    for (; j < s_.columns; ++j) best[0][j - whole] = larger_of(best[0][j - whole], v.one(j));
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

  template <class Scalar>
  static Scalar larger_of(Scalar a, Scalar b) {
    return a > b ? a : b;
  }

  // Columns that reach the threshold go to hits_, in order. Stops soon after `most`, with more than that. Every value
  // that was read is shown to `look`.
  template <class Values, class Look>
  int collect(const Values& v, typename Values::Scalar threshold, int most, Look look) {
    constexpr int W = Values::kWidth;
    const typename Values::Vector reach = broadcast(threshold);
    int* end = hits_;
    int j = 0;
    for (; j + 64 <= s_.columns && end - hits_ <= most; j += 64) {
      uint64_t mask = 0;
      // The sample of the next row jumps through memory; without this it would wait for every line.
      for (int k = 0; k < 64; k += 64 / int(sizeof(T))) __builtin_prefetch(v.row + j + k + read_ahead_);
      for (int k = 0; k < 64; k += W) {
        const typename Values::Vector x = v.at(j + k);
        look(x);
        mask |= uint64_t(at_least(x, reach)) << k;
      }
      end = append_positions(end, mask, j);
    }
    for (; j < s_.columns && end - hits_ <= most; ++j) {
      look(v.one(j));
      if (v.one(j) >= threshold) *end++ = j;
    }
    return int(end - hits_);
  }

  // More columns reach the threshold than a list holds.
  template <class Values>
  void keep_the_best(int i, const Values& v, int hits, typename Values::Scalar threshold) {
    if (hits <= kHits) return keep_largest(i, v, hits_, hits);
    const int better = collect(v, next_above(threshold), kMost, [](auto) {});
    if (better <= kMost) return fill_with_ties(i, v, better, threshold);
    for (int j = 0; j < s_.columns; ++j) all_.push(j);
    keep_largest(i, v, all_.begin(), s_.columns);
    all_.clear();
  }

  static float next_above(float x) { return __builtin_nextafterf(x, std::numeric_limits<float>::infinity()); }
  static double next_above(double x) { return __builtin_nextafter(x, kInf); }

  // `count` columns are above the threshold and in hits_; very many tie with it. Takes some of these, from a place on
  // that depends on the row, so that rows that are all alike prefer different columns.
  template <class Values>
  void fill_with_ties(int i, const Values& v, int count, typename Values::Scalar threshold) {
    const int most = count + 16 > kTieFill ? count + 16 : kTieFill, full = most < kMost ? most : kMost;
    constexpr int W = Values::kWidth;
    const typename Values::Vector level = broadcast(threshold);
    const int whole = s_.columns / W * W;
    const int shift = int(int64_t(i) * s_.columns / s_.rows);
    const int first = shift < whole ? shift / W * W : 0;
    for (int k = 0; k < whole && count < full; k += W) {
      const int j = first + k < whole ? first + k : first + k - whole;
      const typename Values::Vector x = v.at(j);
      unsigned tie = at_least(x, level) & at_least(level, x);
      if (k == 0 && shift < whole) tie &= ~0u << (shift - first);
      for (; tie && count < full; tie &= tie - 1) hits_[count++] = j + first_bit(tie);
    }
    for (int j = whole; j < s_.columns && count < full; ++j)
      if (v.one(j) == threshold) hits_[count++] = j;
    store(i, count, double(threshold));
  }

  // The best kMost of the candidates become the list.
  template <class Values>
  void keep_largest(int i, const Values& v, int* candidate, int count) {
    const auto better = [&](int a, int b) { return v.one(a) > v.one(b); };
    std::nth_element(candidate, candidate + kMost, candidate + count, better);
    for (int k = 0; k < kMost; ++k) hits_[k] = candidate[k];
    store(i, kMost, double(v.one(candidate[kMost])));
  }

  // The hits become the list of row i. Columns outside are worth at most `bound`.
  void store(int i, int count, double bound) {
    const int size = int(padded(count));
    if (size > room_[i]) {
      room_[i] = size <= 64 ? 64 : size <= 128 ? 128 : kMost;
      columns_[i] = static_cast<int*>(take(size_t(room_[i]) * sizeof(int)));
      scores_[i] = static_cast<T*>(take(size_t(room_[i]) * sizeof(T)));
    }
    const T* const row = s_.row(i);
    const T sign = T(s_.sign);
    for (int k = 0; k < count; ++k) {
      columns_[i][k] = hits_[k];
      scores_[i][k] = sign * row[hits_[k]];
    }
    for (int k = count; k < size; ++k) {
      columns_[i][k] = 0;
      scores_[i][k] = -std::numeric_limits<T>::infinity();
    }
    length_[i] = count;
    bound_[i] = bound;
  }

  // Lists lie packed in slabs; a list that outgrows its place leaves it empty. The slabs are the workspace's, so no
  // frame of it may end between two scans.
  void* take(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > slab_left_) {
      slab_left_ = kSlab;
      slab_ = static_cast<char*>(Workspace::of_this_thread().take_bytes(kSlab));
    }
    void* const p = slab_;
    slab_ += bytes;
    slab_left_ -= bytes;
    return p;
  }

  static constexpr size_t kSlab = size_t(1) << 18;

  State<T>& s_;
  int* length_;
  int* room_;
  double* bound_;
  int** columns_;
  T** scores_;
  unsigned char* scans_;
  char* slab_ = nullptr;
  size_t slab_left_ = 0;
  int64_t read_ahead_ = 0;  // distance to the row that is read next, 0 when unknown
  Buffer<int> all_;
  int hits_[kHits + 2 * 64];  // append_positions writes ahead
};

}  // namespace lmcfast::LMCFAST_LEVEL
