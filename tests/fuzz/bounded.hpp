// SPDX-License-Identifier: Apache-2.0
// What every execution must keep, in every build: it takes from the heap at no time more than four times its input and
// 1 MiB, and it gives all of that back. The allocation that takes too much ends the program, so that its stack is seen.
// One source of a program includes this: without AddressSanitizer, which tells of allocations, it replaces malloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include <malloc.h>

#if __has_feature(address_sanitizer)
#include <sanitizer/allocator_interface.h>
#endif

namespace troika::fuzz {

struct Heap {
  std::int64_t live = 0, bound = 0;  // bytes since counting began
  bool counting = false;
};
inline constinit thread_local Heap heap;

inline void taken(std::size_t bytes) {
  if (!heap.counting || (heap.live += static_cast<std::int64_t>(bytes)) <= heap.bound) return;
  heap.counting = false;
  std::fprintf(stderr, "ERROR: %lld bytes of the heap are in use, and the bound for this input is %lld\n",
               static_cast<long long>(heap.live), static_cast<long long>(heap.bound));
  std::abort();
}
inline void given_back(std::size_t bytes) {
  if (heap.counting) heap.live -= static_cast<std::int64_t>(bytes);
}

// While there is one, what this thread allocates is the fuzzer's own and no concern of the library.
class Uncounted {
 public:
  Uncounted() : was_(std::exchange(heap.counting, false)) {}
  ~Uncounted() { heap.counting = was_; }
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;

 private:
  bool was_;
};

// What the library writes to: exactly so many elements, uncounted.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t size) : size_(size) {
    const Uncounted own;
    data_ = std::make_unique_for_overwrite<T[]>(size);
  }
  ~Buffer() {
    const Uncounted own;
    data_.reset();
  }
  T* data() { return data_.get(); }
  std::size_t size() const { return size_; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }

 private:
  std::unique_ptr<T[]> data_;
  std::size_t size_;
};

#if __has_feature(address_sanitizer)
inline const bool installed = [] {
  return __sanitizer_install_malloc_and_free_hooks([](const volatile void*, std::size_t size) { taken(size); },
                                                   [](const volatile void* p) {
                                                     if (heap.counting && p != nullptr)
                                                       given_back(__sanitizer_get_allocated_size(p));
                                                   }) != 0;
}();
#endif

// Runs one execution. What is left of it after the first time may be made once and kept; what it leaves each time is
// lost.
template <class Execution>
int bounded(std::size_t input, Execution&& execution) {
  for (int i = 0; i < 3; ++i) {
    heap = {.bound = static_cast<std::int64_t>(4 * input + (std::size_t{1} << 20)), .counting = true};
    execution();
    heap.counting = false;
    if (heap.live <= 0) return 0;
  }
  std::fprintf(stderr, "ERROR: an execution leaves %lld bytes on the heap\n", static_cast<long long>(heap.live));
  std::abort();
}

}  // namespace troika::fuzz

#if !__has_feature(address_sanitizer)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t size) {
  void* p = __libc_malloc(size);
  if (p != nullptr && troika::fuzz::heap.counting) troika::fuzz::taken(::malloc_usable_size(p));
  return p;
}
void* calloc(std::size_t count, std::size_t size) {
  void* p = __libc_calloc(count, size);
  if (p != nullptr && troika::fuzz::heap.counting) troika::fuzz::taken(::malloc_usable_size(p));
  return p;
}
void* realloc(void* old, std::size_t size) {
  const auto before = troika::fuzz::heap.counting ? ::malloc_usable_size(old) : 0;
  void* p = __libc_realloc(old, size);
  if (!troika::fuzz::heap.counting || (p == nullptr && size != 0)) return p;
  if (p == old) troika::fuzz::given_back(before);
  if (p != nullptr) troika::fuzz::taken(::malloc_usable_size(p));
  if (p != old) troika::fuzz::given_back(before);  // both were there while one was copied to the other
  return p;
}
void* memalign(std::size_t alignment, std::size_t size) {
  void* p = __libc_memalign(alignment, size);
  if (p != nullptr && troika::fuzz::heap.counting) troika::fuzz::taken(::malloc_usable_size(p));
  return p;
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
int posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  *out = memalign(alignment, size);
  return *out == nullptr ? 12 : 0;  // ENOMEM
}
void free(void* p) {
  if (p != nullptr && troika::fuzz::heap.counting) troika::fuzz::given_back(::malloc_usable_size(p));
  __libc_free(p);
}
}
#endif
