// Scratch memory that one thread keeps between calls, so that small problems never wait for the allocator.
//
// Stack discipline: a Workspace::Frame gives back everything that was taken since it was made. Blocks are aligned to 64
// bytes and not cleared. At most kKept bytes stay after the outermost frame ends.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lmcfast {

class Workspace {
 public:
  static Workspace& of_this_thread();

  class Frame {
   public:
    // Defined in workspace.cpp: nothing in this header may have an instance that levels could share.
    explicit Frame(Workspace& workspace);
    ~Frame();
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Workspace& workspace_;
    int chunk_;
    size_t used_;
  };

  void* take_bytes(size_t bytes);  // throws std::bad_alloc

  // Inlined by force: an instance of this template must not be shared between files compiled for different processors.
  template <class T>
  __attribute__((always_inline)) T* take(int64_t count) {
    return static_cast<T*>(take_bytes(size_t(count) * sizeof(T)));
  }

  ~Workspace();

 private:
  static constexpr int kMostChunks = 48;
  static constexpr size_t kFirst = size_t(1) << 18;  // every next chunk is twice as large
  static constexpr size_t kKept = size_t(1) << 26;

  void release(int chunk, size_t used);

  struct Chunk {
    char* memory = nullptr;
    size_t size = 0;
  };
  Chunk chunks_[kMostChunks];
  int count_ = 0;   // chunks that exist
  int chunk_ = -1;  // chunk in use
  size_t used_ = 0;
  int depth_ = 0;
};

}  // namespace lmcfast
