#include "workspace.h"

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace lmcfast {

namespace {
constexpr size_t kAlignment = 64;
size_t rounded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The address sanitizer knows whole chunks only; so it is told which of their bytes are taken, and blocks keep apart.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kApart = kAlignment;
void close(char* begin, size_t bytes) { ASAN_POISON_MEMORY_REGION(begin, bytes); }
void open(char* begin, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(begin, bytes); }
#else
constexpr size_t kApart = 0;
void close(char*, size_t) {}
void open(char*, size_t) {}
#endif
}  // namespace

Workspace& Workspace::of_this_thread() {
  static thread_local Workspace workspace;
  return workspace;
}

Workspace::Frame::Frame(Workspace& workspace)
    : workspace_(workspace), chunk_(workspace.chunk_), used_(workspace.used_) {
  ++workspace.depth_;
}

Workspace::Frame::~Frame() { workspace_.release(chunk_, used_); }

void* Workspace::take_bytes(size_t bytes) {
  const size_t asked = bytes;
  bytes = rounded(bytes ? bytes : 1) + kApart;
  while (chunk_ < 0 || used_ + bytes > chunks_[chunk_].size) {
    if (chunk_ + 1 < count_ && chunks_[chunk_ + 1].size < bytes) {  // too small for this one: replace it
      std::free(chunks_[chunk_ + 1].memory);
      chunks_[chunk_ + 1] = chunks_[--count_];
      continue;
    }
    if (chunk_ + 1 == count_) {
      if (count_ == kMostChunks) throw std::bad_alloc();
      size_t size = count_ ? 2 * chunks_[count_ - 1].size : kFirst;
      if (size > kKept / 4) size = kFirst;  // large requests get a chunk of just their own size
      if (size < bytes) size = bytes;
      char* memory = static_cast<char*>(std::aligned_alloc(kAlignment, rounded(size)));
      if (!memory) throw std::bad_alloc();
      chunks_[count_++] = {memory, rounded(size)};
      close(memory, rounded(size));
    }
    ++chunk_;
    used_ = 0;
  }
  char* const p = chunks_[chunk_].memory + used_;
  used_ += bytes;
  open(p, asked);
  return p;
}

void Workspace::release(int chunk, size_t used) {
  for (int k = chunk < 0 ? 0 : chunk; k <= chunk_; ++k) {
    const size_t kept = k == chunk ? used : 0;
    close(chunks_[k].memory + kept, chunks_[k].size - kept);
  }
  chunk_ = chunk;
  used_ = used;
  if (--depth_ > 0) return;
  size_t total = 0;
  for (int k = 0; k < count_; ++k) total += chunks_[k].size;
  while (count_ > 0 && total > kKept) {
    --count_;
    total -= chunks_[count_].size;
    std::free(chunks_[count_].memory);
    chunks_[count_] = {};
  }
  if (chunk_ >= count_) chunk_ = -1, used_ = 0;
}

Workspace::~Workspace() {
  for (int k = 0; k < count_; ++k) std::free(chunks_[k].memory);
}

}  // namespace lmcfast
