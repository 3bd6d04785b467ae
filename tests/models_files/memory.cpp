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
#include <troika/models/files/config.hpp>
#include <troika/models/files/gguf.hpp>
#include <troika/models/files/safetensors.hpp>

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

namespace {

// What is read takes at most four times the size of the file, and 1 MiB, also where it is refused.
template <class Read>
void check_memory(std::size_t bytes, Read&& read) {
  allocated = most = 0;
  counting = true;
  try {
    read();
  } catch (const troika::Error&) {
  }
  counting = false;
  INFO(bytes << " bytes of file, " << most << " of memory");
  CHECK(most <= static_cast<std::int64_t>(4 * bytes + (1 << 20)));
}

std::string repeated(const std::string& text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

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
    check_memory(bytes.size(), [&] { const auto file = troika::models::GgufFile::open(path); });
  }
}

TEST_CASE("Opening a safetensors file takes at most four times its size, and 1 MiB") {
  const TempFolder folder;
  std::string tensors, entries;
  for (std::size_t i = 0; i < 100'000; ++i) {
    const auto name = std::to_string(i);
    tensors +=
        ",\"" + name + R"(":{"dtype":"U8","shape":[],"data_offsets":[)" + name + "," + std::to_string(i + 1) + "]}";
    entries += ",\"" + name + "\":\"\"";
  }
  const auto header = [&](const std::string& json) { return le_u64(json.size()) + json; };
  for (const auto& bytes :
       {header("{" + tensors.substr(1) + "}") + std::string(100'000, 'x'),
        header("{\"__metadata__\":{" + entries.substr(1) + "}}"), header("{\"" + repeated("{", 1'000'000) + "\":0}")}) {
    const auto path = folder.write("m.safetensors", bytes);
    check_memory(bytes.size(), [&] { const auto file = troika::models::SafetensorsFile::open(path); });
  }
}

TEST_CASE("Reading a config.json takes at most four times its size, and 1 MiB") {
  for (const std::string part : {"0,", "[],", "{},", "\"\",", "\"sixteen letters!\",", "[[[[0]]]],", "1e3,"}) {
    for (const std::size_t times : {3'000, 20'000, 200'000}) {
      const auto list = repeated(part, times) + "0";
      for (const auto& json : {"{\"model_type\":\"llama\",\"eos_token_id\":[" + list + "]}", "[" + list + "]"})
        check_memory(json.size(), [&] { (void)troika::models::ModelConfig::parse(json); });
    }
  }
  std::string fields;
  for (int i = 0; i < 100'000; ++i) fields += ",\"" + std::to_string(i) + "\":0";
  check_memory(fields.size(), [&] { (void)troika::models::ModelConfig::parse("{" + fields.substr(1) + "}"); });
}

#endif
