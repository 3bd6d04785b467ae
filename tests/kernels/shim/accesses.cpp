// SPDX-License-Identifier: Apache-2.0

// The tests of kernels are compiled with -fsanitize=thread and not linked with ThreadSanitizer: the compiler calls these
// wherever memory is read or written, and the shim looks for races by what orders threads of a GPU.

#include <cstddef>
#include <cstring>

#include "machine.hpp"

using troika::shim::touch;

#define TROIKA_ACCESSES(bytes)                                             \
  void __tsan_read##bytes(void* at) { touch(at, bytes, false); }           \
  void __tsan_write##bytes(void* at) { touch(at, bytes, true); }           \
  void __tsan_unaligned_read##bytes(void* at) { touch(at, bytes, false); } \
  void __tsan_unaligned_write##bytes(void* at) { touch(at, bytes, true); }

extern "C" {
TROIKA_ACCESSES(1)
TROIKA_ACCESSES(2)
TROIKA_ACCESSES(4)
TROIKA_ACCESSES(8)
TROIKA_ACCESSES(16)
void __tsan_read_range(void* at, std::size_t bytes) { touch(at, bytes, false); }
void __tsan_write_range(void* at, std::size_t bytes) { touch(at, bytes, true); }
// Of clang from version 15 on.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, false);
  touch(to, bytes, true);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  touch(from, bytes, false);
  touch(to, bytes, true);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  touch(to, bytes, true);
  return std::memset(to, value, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void*) {}
void __tsan_vptr_update(void*, void*) {}
}
