// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

#include <models_files/gguf_bytes.hpp>
#include <support/catch.hpp>
#include <support/sanitizers.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>
#include <troika/models/files/gguf.hpp>

#include <malloc.h>

#if !TROIKA_SANITIZED

using namespace troika::test;

// Bytes that are allocated now, and the most that were, since the test set them to 0.
namespace {

std::atomic<std::int64_t> allocated{0}, most{0};
std::atomic<bool> counting{false};

void* counted(std::size_t size) {
  void* pointer = std::malloc(size == 0 ? 1 : size);
  if (pointer == nullptr) throw std::bad_alloc();
  if (counting) {
    const auto now = allocated += static_cast<std::int64_t>(::malloc_usable_size(pointer));
    if (now > most) most = now;
  }
  return pointer;
}
void uncounted(void* pointer) {
  if (counting && pointer != nullptr) allocated -= static_cast<std::int64_t>(::malloc_usable_size(pointer));
  std::free(pointer);
}
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size); }
[[gnu::noinline]] void* operator new[](std::size_t size) { return counted(size); }
[[gnu::noinline]] void operator delete(void* pointer) noexcept { uncounted(pointer); }
[[gnu::noinline]] void operator delete[](void* pointer) noexcept { uncounted(pointer); }
[[gnu::noinline]] void operator delete(void* pointer, std::size_t) noexcept { uncounted(pointer); }
[[gnu::noinline]] void operator delete[](void* pointer, std::size_t) noexcept { uncounted(pointer); }

TEST_CASE("Opening a GGUF file takes at most four times its size, and 1 MiB") {
  const TempFolder folder;
  std::string small_entries, small_tensors, strings;
  constexpr std::uint64_t count = 200'000;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string name{static_cast<char>('a' + i % 26), static_cast<char>('a' + i / 26 % 26),
                           static_cast<char>('a' + i / 676 % 26), static_cast<char>('a' + i / 17576)};
    small_entries += gguf_string(name) + le_u32(0) + "x";
    small_tensors += gguf_string(name + "0123456789012") + le_u32(1) + le_u64(1) + le_u32(24) + le_u64(8 * i);
    strings += le_u64(0);
  }
  const std::string start = "GGUF" + le_u32(3), align = gguf_string("general.alignment") + le_u32(4) + le_u32(8);
  const auto header = start + le_u64(count) + le_u64(1) + align + small_tensors;
  for (const auto& bytes : {start + le_u64(0) + le_u64(count) + small_entries,  // many keys
                            header + std::string(8 * count + 8, 'x'),           // many tensors
                            start + le_u64(0) + le_u64(1) + gguf_string("k") + le_u32(9) + le_u32(8) + le_u64(count) +
                                strings,  // many strings
                            start + le_u64(~0ull) + le_u64(0) + std::string(4096, 'x'),
                            start + le_u64(0) + le_u64(~0ull) + std::string(4096, 'x')}) {
    const auto path = folder.write("m.gguf", bytes);
    allocated = most = 0;
    counting = true;
    try {
      const auto file = troika::models::GgufFile::open(path);
    } catch (const troika::Error&) {
    }
    counting = false;
    INFO(bytes.size() << " bytes of file, " << most << " of memory");
    CHECK(most <= static_cast<std::int64_t>(4 * bytes.size() + (1 << 20)));
  }
}

#endif
