// Sums whose error does not grow with the number of terms (Neumaier's variant of Kahan's; Z. angew. Math. Mech. 54,
// 1974).
#pragma once

namespace lmcfast {

class ExactSum {
 public:
  __attribute__((always_inline)) void add(double x) {
    const double t = sum_ + x;
    rest_ += (sum_ < 0 ? -sum_ : sum_) >= (x < 0 ? -x : x) ? (sum_ - t) + x : (x - t) + sum_;
    sum_ = t;
  }
  // Sums of parts may run side by side: each waits for its own last addition alone.
  __attribute__((always_inline)) void add(const ExactSum& other) {
    add(other.sum_);
    rest_ += other.rest_;
  }
  __attribute__((always_inline)) ExactSum operator-() const {
    ExactSum negative;
    negative.sum_ = -sum_;
    negative.rest_ = -rest_;
    return negative;
  }
  __attribute__((always_inline)) double value() const { return sum_ + rest_; }

 private:
  double sum_ = 0, rest_ = 0;
};

}  // namespace lmcfast
