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
  __attribute__((always_inline)) double value() const { return sum_ + rest_; }

 private:
  double sum_ = 0, rest_ = 0;
};

}  // namespace lmcfast
