// Candidate lists from one pass in the order of storage, for scores whose columns lie side by side.
//
// The scores of one row are then a stride apart, and to bring them together means to write the whole matrix anew. But
// the lists of many rows can be built at once: a threshold for each is guessed from a sample of the columns, then the
// columns pass by one after another, and a score that reaches its row's threshold goes to the end of its row's list.
#pragma once

#include "list_scan.h"

namespace lmcfast::LMCFAST_LEVEL {

// For float32 scores at zero prices, which are compared as they are.
class TallScan {
 public:
  static constexpr int kRows = 1024;  // at most so many at once: what is written to stays in the second-level cache

  // Element (i, j) of the scores is at from[i + j * column_stride].
  TallScan(const float* from, int columns, int64_t column_stride, float sign)
      : from_(from), columns_(columns), column_stride_(column_stride), sign_(sign) {
    Workspace& w = Workspace::of_this_thread();
    threshold_ = w.take<float>(kRows);
    length_ = w.take<int>(kRows);
    best_ = w.take<float>(kRows * kSampleRank);
    list_columns_ = w.take<int>(int64_t(kRows) * kMost);
    list_scores_ = w.take<float>(int64_t(kRows) * kMost);
    hits_ = w.take<int>(kRows + 64);
  }

  // Lists of rows begin, ..., end - 1, at most kRows. Every score is shown to `seen`. False when so many columns reach
  // the thresholds that most of the rows must be full of ties; then not every score may have been shown.
  bool collect(int begin, int end, Magnitude& seen) {
    begin_ = begin;
    rows_ = end - begin;
    guess_thresholds();
    for (int i = 0; i < rows_; ++i) length_[i] = 0;
    int64_t found = 0;
    for (int j = 0; j < columns_; ++j) {
      found += add_column(j, seen);
      if (j % 64 == 63 && found > int64_t(4 * kUsual) * rows_ * (j + 1) / columns_ + 32 * rows_) return false;
    }
    return true;
  }

  // Of row begin + k: columns that reach its threshold, as far as there is room for them, and their maximised scores.
  bool complete(int k) const { return length_[k] <= kMost; }
  int length(int k) const { return length_[k]; }
  float threshold(int k) const { return threshold_[k]; }
  const int* columns(int k) const { return list_columns_ + int64_t(k) * kMost; }
  const float* scores(int k) const { return list_scores_ + int64_t(k) * kMost; }

  static constexpr int kStep = 8;  // from one column of the sample to the next

 private:
  // The threshold is the score of this rank in the sample: about 48 columns reach it.
  static constexpr int kSampleRank = 6;

  static constexpr int kLine = 64 / int(sizeof(float));

  const float* column(int j) const { return from_ + begin_ + j * column_stride_; }

  void guess_thresholds() {
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    for (int k = 0; k < kSampleRank * kRows; ++k) best_[k] = kNone;
    const Floats sign = broadcast(sign_);
    for (int j = 0; j < columns_; j += kStep) {
      const float* const a = column(j);
      const int64_t next = j + kStep < columns_ ? kStep * column_stride_ : 0;
      int i = 0;
      for (; i + kFloatLanes <= rows_; i += kFloatLanes) {
        __builtin_prefetch(a + next + i, 0, 2);
        Floats x = sign * load_floats(a + i);
        for (int r = 0; r < kSampleRank; ++r) {
          float* const at = best_ + r * kRows + i;
          const Floats before = load_floats(at);
          store_lanes(at, max(before, x));
          x = min(before, x);
        }
      }
      for (; i < rows_; ++i) insert(i, sign_ * a[i]);
    }
    for (int i = 0; i < rows_; ++i) {
      const float t = best_[(kSampleRank - 1) * kRows + i];
      threshold_[i] = t > kNone ? t : std::numeric_limits<float>::lowest();
    }
  }

  void insert(int i, float x) {
    for (int r = 0; r < kSampleRank; ++r) {
      float& at = best_[r * kRows + i];
      const float before = at;
      if (!(x > before)) continue;
      at = x;
      x = before;
    }
  }

  // Returns how many rows column j was added to.
  int add_column(int j, Magnitude& seen) {
    const float* const a = column(j);
    const float* const threshold = threshold_;
    const Floats sign = broadcast(sign_);
    const int64_t next = j + 2 < columns_ ? 2 * column_stride_ : 0;
    Magnitude all = seen;
    int* end = hits_;
    int i = 0;
    for (; i + 64 <= rows_; i += 64) {
      uint64_t mask = 0;
      for (int k = 0; k < 64; k += kLine) __builtin_prefetch(a + next + i + k, 0, 2);
      for (int k = 0; k < 64; k += kFloatLanes) {
        const Floats x = sign * load_floats(a + i + k);
        all.look(x);
        mask |= uint64_t(at_least(x, load_floats(threshold + i + k))) << k;
      }
      end = append_positions(end, mask, i);
    }
    for (; i < rows_; ++i) {
      all.look(a[i]);
      if (sign_ * a[i] >= threshold[i]) *end++ = i;
    }
    seen = all;
    for (const int* hit = hits_; hit < end; ++hit) {
      const int row = *hit, length = length_[row]++, last = length < kMost ? length : kMost - 1;
      list_columns_[int64_t(row) * kMost + last] = j;
      list_scores_[int64_t(row) * kMost + last] = sign_ * a[row];
    }
    return int(end - hits_);
  }

  const float* const from_;
  const int columns_;
  const int64_t column_stride_;
  const float sign_;
  int begin_ = 0, rows_ = 0;
  float* threshold_;
  int* length_;
  float* best_;  // (kSampleRank, kRows): of the sample, the largest first
  int* list_columns_;
  float* list_scores_;
  int* hits_;
};

}  // namespace lmcfast::LMCFAST_LEVEL
