// Where a scan finds a row. A long row does not stay in a cache from one pass to the next: so it is read from global
// memory once, and held in shared memory where it fits.
#pragma once

#include "state.h"

namespace lmcfast::cuda {

// A warp or a block that scans a row. Blocks bring kScanScratch words of shared memory.
constexpr int kScanScratch = kClasses + 3;  // class maxima, magnitude, length, complement of the lowest key
template <bool Block>
struct Team {
  unsigned rank, size;
  unsigned* scratch;
  __device__ void sync() const {
    if (Block) __syncthreads();
    else __syncwarp();
  }
};
__device__ inline Team<false> warp_team() { return {lane_id(), 32, nullptr}; }

// Columns first, first + step, ... below end, each by visit(column, score); kAhead loads are in flight for each thread.
template <int kAhead, class T, class Visit>
__device__ inline void visit_columns(const State<T>& s, int row, int first, int step, int end, Visit visit) {
  int j = first;
  for (; j + step * (kAhead - 1) < end; j += step * kAhead) {
    Exact<T> score[kAhead];
    LMCFAST_UNROLL
    for (int k = 0; k < kAhead; k++) score[k] = s.at(row, j + step * k);
    LMCFAST_UNROLL
    for (int k = 0; k < kAhead; k++) visit(j + step * k, score[k]);
  }
  for (; j < end; j += step) visit(j, s.at(row, j));
}

// Read from global memory each time. Both kinds of rows have
//   first_look(team, visit): visit(column, score) of every column, each by one thread of the team;
//   again(column): the score, after the first look and a barrier of the team.
template <class T>
struct RowInPlace {
  const State<T>& s;
  int row;

  template <bool Block, class Visit>
  __device__ void first_look(const Team<Block>& team, Visit visit) const {
    visit_columns<4>(s, row, int(team.rank), int(team.size), s.columns, visit);
  }
  __device__ Exact<T> again(int j) const { return s.at(row, j); }
};

// What one load of 16 bytes brings.
template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / int(sizeof(T));
  T number[kCount];
};

// Bytes of shared memory that hold a row, wherever it begins: 0 to 15 in front, so that packs there are aligned, too.
template <class T>
constexpr size_t held_bytes(int64_t columns) {
  return size_t(columns) * sizeof(T) + 16;
}

// Read from global memory once; the first look leaves it in shared memory.
template <class T>
struct RowHeld {
  const State<T>& s;
  int row;
  T* held;  // aligned as the row is

  __device__ RowHeld(const State<T>& state, int i, unsigned char* shared)
      : s(state), row(i), held(reinterpret_cast<T*>(shared + reinterpret_cast<uintptr_t>(begin(state, i)) % 16)) {}

  __device__ static const T* begin(const State<T>& s, int i) { return s.scores + i * s.row_stride; }

  template <bool Block, class Visit>
  __device__ void first_look(const Team<Block>& team, Visit visit) const {
    const auto keep = [&](int j, T stored) {
      held[j] = stored;
      visit(j, s.value(stored));
    };
    const int rank = int(team.rank), size = int(team.size);
    if (s.column_stride != 1) {
      for (int j = rank; j < s.columns; j += size) keep(j, read_input(s.stored(row, j)));
      return;
    }
    constexpr int kCount = Pack<T>::kCount;
    const T* const from = begin(s, row);
    const int before = int(-reinterpret_cast<uintptr_t>(from) % 16 / sizeof(T)), head = min(before, s.columns);
    const int packs = (s.columns - head) / kCount, packed = packs * kCount;
    for (int k = rank; k < s.columns - packed; k += size) {
      const int j = k < head ? k : k + packed;
      keep(j, read_input(&from[j]));
    }
    visit_packs(from + head, held + head, rank, size, packs,
                [&](int k, T stored) { visit(head + k, s.value(stored)); });
  }
  __device__ Exact<T> again(int j) const { return s.value(held[j]); }

 private:
  template <class Visit>
  __device__ static void visit_packs(const T* from, T* to, int rank, int size, int packs, Visit visit) {
    constexpr int kAhead = 2, kCount = Pack<T>::kCount;
    const Pack<T>* const source = reinterpret_cast<const Pack<T>*>(from);
    Pack<T>* const target = reinterpret_cast<Pack<T>*>(to);
    for (int p = rank; p < packs; p += size * kAhead) {
      Pack<T> pack[kAhead];
      LMCFAST_UNROLL
      for (int k = 0; k < kAhead; k++)
        if (p + size * k < packs) pack[k] = read_input(&source[p + size * k]);
      LMCFAST_UNROLL
      for (int k = 0; k < kAhead; k++) {
        if (p + size * k >= packs) break;
        target[p + size * k] = pack[k];
        LMCFAST_UNROLL
        for (int e = 0; e < kCount; e++) visit((p + size * k) * kCount + e, pack[k].number[e]);
      }
    }
  }
};

}  // namespace lmcfast::cuda
