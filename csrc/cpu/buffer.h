// A growing array for files of a vector level (state.h says why they use no standard container).
#pragma once

#include <cstdlib>
#include <new>

#include "vector.h"

namespace lmcfast::LMCFAST_LEVEL {

template <class E>  // trivially copyable
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  E& operator[](int k) { return data_[k]; }
  E* begin() { return data_; }
  E* end() { return data_ + size_; }
  void clear() { size_ = 0; }
  void pop() { --size_; }
  void push(E e) {
    if (size_ == capacity_) grow();
    data_[size_++] = e;
  }

 private:
  void grow() {
    const int capacity = capacity_ ? 2 * capacity_ : 256;
    void* const moved = std::realloc(static_cast<void*>(data_), size_t(capacity) * sizeof(E));
    if (!moved) throw std::bad_alloc();
    data_ = static_cast<E*>(moved);
    capacity_ = capacity;
  }

  E* data_ = nullptr;
  int size_ = 0, capacity_ = 0;
};

}  // namespace lmcfast::LMCFAST_LEVEL
