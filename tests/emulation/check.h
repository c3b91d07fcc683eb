// Tests as a program: `program NAME` runs one, `program` all of them and `program --list` names them. Written so that
// what does not ask for the emulator itself also runs on a device.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../../csrc/cuda/device.h"

namespace test {

struct Case {
  const char* name;
  void (*run)();
  Case* next;
  Case(const char* name, void (*run)()) : name(name), run(run), next(first()) { first() = this; }
  static Case*& first() {
    static Case* cases = nullptr;
    return cases;
  }
};

inline int failures = 0;

inline void fail(const char* file, int line, const char* what, double got, double wanted) {
  ++failures;
  std::printf("%s:%d: %s: got %.17g, wanted %.17g\n", file, line, what, got, wanted);
}

// Memory that host and device see.
template <class T>
struct Array {
  T* data = nullptr;
  int size;
  explicit Array(int size, T value = T()) : size(size) {
    const cudaError_t error = cudaMallocManaged(&data, sizeof(T) * size_t(size));
    if (error != cudaSuccess) {
      std::printf("no memory for host and device: %s\n", cudaGetErrorString(error));
      std::exit(EXIT_FAILURE);
    }
    for (int i = 0; i < size; ++i) data[i] = value;
  }
  Array(const Array&) = delete;
  ~Array() { cudaFree(data); }
  T& operator[](int i) { return data[i]; }
};

// A small generator of its own: the same numbers everywhere.
struct Random {
  unsigned state = 1;
  unsigned operator()() { return (state = state * 1664525u + 1013904223u) >> 8; }
  float uniform() { return float((*this)()) * 0x1p-23f - 1.f; }
};

inline bool has_clusters() {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  return major >= 9;
}

template <class... Arguments>
bool runs(Arguments&&... arguments) {
  const cudaError_t launched = lmcfast::cuda::launch(arguments...), finished = cudaDeviceSynchronize();
  const cudaError_t error = launched != cudaSuccess ? launched : finished;
  if (error != cudaSuccess) std::printf("%s\n", cudaGetErrorString(error));
  return error == cudaSuccess;
}

}  // namespace test

#define TEST(name)                            \
  static void name();                         \
  static test::Case name##_case(#name, name); \
  static void name()
#define CHECK_EQUAL(got, wanted)                                                                 \
  do {                                                                                           \
    const auto got_ = (got);                                                                     \
    const auto wanted_ = (wanted);                                                               \
    if (!(got_ == wanted_)) test::fail(__FILE__, __LINE__, #got, double(got_), double(wanted_)); \
  } while (false)
#define CHECK(condition) CHECK_EQUAL(bool(condition), true)
