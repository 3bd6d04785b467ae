// SPDX-License-Identifier: Apache-2.0
// Mutations of GGUF files that keep them whole: keys, values and tensors come, go and change, and counts, lengths and
// offsets follow.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models_files/gguf_bytes.hpp"
#include "mutators.hpp"

namespace troika::fuzz {

struct GgufParts {
  struct Entry {
    std::string key;
    std::uint32_t type;
    std::string value;
  };
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> shape;
    std::uint32_t type;
    std::uint64_t begin;
  };
  std::uint32_t version = 3;
  std::vector<Entry> entries{};
  std::vector<Tensor> tensors{};
  std::string body{};
};

// Reads as far as the sizes that the file says; nothing where they lead out of it.
class GgufTaker {
 public:
  explicit GgufTaker(std::string_view file) : rest_(file) {}

  std::optional<GgufParts> operator()() {
    GgufParts parts;
    if (take(4) != "GGUF") return std::nullopt;
    parts.version = number<std::uint32_t>();
    const auto tensors = number<std::uint64_t>(), entries = number<std::uint64_t>();
    for (std::uint64_t i = 0; i < entries && good_; ++i) {
      GgufParts::Entry entry{string(), number<std::uint32_t>(), {}};
      const auto* const begin = rest_.data();
      value(entry.type);
      entry.value.assign(begin, rest_.data());
      parts.entries.push_back(std::move(entry));
    }
    for (std::uint64_t i = 0; i < tensors && good_; ++i) {
      GgufParts::Tensor tensor{string(), {}, 0, 0};
      const auto dims = number<std::uint32_t>();
      for (std::uint32_t d = 0; d < dims && good_; ++d) tensor.shape.push_back(number<std::uint64_t>());
      tensor.type = number<std::uint32_t>();
      tensor.begin = number<std::uint64_t>();
      parts.tensors.push_back(std::move(tensor));
    }
    if (!good_) return std::nullopt;
    parts.body = rest_;
    return parts;
  }

 private:
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size()) good_ = false;
    const auto taken = rest_.substr(0, good_ ? static_cast<std::size_t>(size) : 0);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  template <class T>
  T number() {
    T value = 0;
    const auto bytes = take(sizeof(T));
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  std::string string() { return std::string(take(number<std::uint64_t>())); }
  void value(std::uint32_t type) {
    constexpr std::uint64_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type >= std::size(sizes)) good_ = false;
    if (type == 8) string();
    if (type == 9) {
      const auto element = number<std::uint32_t>();
      const auto count = number<std::uint64_t>();
      if (element >= std::size(sizes) || element == 9) good_ = false;
      if (element != 8) take(good_ && count < (1u << 30) ? count * sizes[element] : ~0ull);
      for (std::uint64_t i = 0; element == 8 && i < count && good_; ++i) string();
    } else if (good_) {
      take(sizes[type]);
    }
  }

  std::string_view rest_;
  bool good_ = true;
};

inline std::uint64_t extreme_number(std::uint64_t was, Random& random) {
  constexpr std::uint64_t values[] = {0,   1,   2,    31,       32,         33,         64,         255,
                                      256, 257, 4096, 1u << 24, 1ull << 31, 1ull << 56, 1ull << 63, ~0ull};
  switch (random() % 4) {
    case 0: return was + 1;
    case 1: return was - 1;
    case 2: return was * 2;
    default: return values[below(random, std::size(values))];
  }
}

inline void mutate_entry(GgufParts& parts, const GgufParts& lender, Random& random) {
  auto& entries = parts.entries;
  if (entries.empty() || random() % 4 == 0) {
    if (lender.entries.empty()) return;
    const auto lent = lender.entries[below(random, lender.entries.size())];
    entries.insert(entries.begin() + static_cast<std::ptrdiff_t>(below(random, entries.size() + 1)), lent);
    return;
  }
  auto& entry = entries[below(random, entries.size())];
  switch (random() % 8) {
    case 0: entries.erase(entries.begin() + (&entry - entries.data())); return;
    case 1: entry.key = mutated_bytes(entry.key); return;
    case 2: std::swap(entry.value, entries[below(random, entries.size())].value); return;  // of another type
    case 3:
      entry.type = static_cast<std::uint32_t>(random() % 13);
      entry.value.resize(entry.type == 8 || entry.type == 9 ? entry.value.size()
                                                            : std::min<std::size_t>(entry.value.size(), 8));
      return;
    default: break;
  }
  if (entry.type == 8 && entry.value.size() >= 8) {
    entry.value = test::gguf_string(mutated_bytes(entry.value.substr(8)));
  } else if (entry.type == 9 && entry.value.size() >= 12) {
    std::uint32_t type = 0;
    std::memcpy(&type, entry.value.data(), 4);
    auto elements = entry.value.substr(12);
    std::uint64_t count = 0;
    std::memcpy(&count, entry.value.data() + 4, 8);
    if (type != 8) {
      constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 1, 1, 8, 8, 8};
      elements = mutated_bytes(elements);
      count = elements.size() / sizes[type % 13];
      elements.resize(static_cast<std::size_t>(count) * sizes[type % 13]);
    } else {
      // Strings of the same list trade places, or one changes.
      std::vector<std::string> strings;
      for (std::size_t at = 0; at + 8 <= elements.size();) {
        std::uint64_t size = 0;
        std::memcpy(&size, elements.data() + at, 8);
        strings.push_back(elements.substr(at + 8, static_cast<std::size_t>(size)));
        at += 8 + strings.back().size();
      }
      const auto one = below(random, strings.size() + 1);
      if (one == strings.size())
        strings.push_back(strings.empty() ? "a" : strings[below(random, one)] + "b");
      else if (random() % 3 == 0)
        strings.erase(strings.begin() + static_cast<std::ptrdiff_t>(one));
      else if (random() % 2 == 0)
        std::swap(strings[one], strings[below(random, strings.size())]);
      else
        strings[one] = mutated_bytes(strings[one]);
      elements.clear();
      for (const auto& text : strings) elements += test::gguf_string(text);
      count = strings.size();
    }
    entry.value = test::le_u32(type) + test::le_u64(count) + elements;
  } else {
    std::uint64_t number = 0;
    std::memcpy(&number, entry.value.data(), std::min<std::size_t>(8, entry.value.size()));
    number = extreme_number(number, random);
    std::memcpy(entry.value.data(), &number, std::min<std::size_t>(8, entry.value.size()));
  }
}

inline void mutate_tensor(GgufParts& parts, const GgufParts& lender, Random& random) {
  auto& tensors = parts.tensors;
  if (tensors.empty() || random() % 4 == 0) {
    if (lender.tensors.empty()) return;
    tensors.insert(tensors.begin() + static_cast<std::ptrdiff_t>(below(random, tensors.size() + 1)),
                   lender.tensors[below(random, lender.tensors.size())]);
    return;
  }
  auto& tensor = tensors[below(random, tensors.size())];
  switch (random() % 6) {
    case 0: tensors.erase(tensors.begin() + (&tensor - tensors.data())); return;
    case 1: tensor.name = mutated_bytes(tensor.name); return;
    case 2: tensor.type = static_cast<std::uint32_t>(random() % 43); return;
    case 3: tensor.begin = extreme_number(tensor.begin, random); return;
    case 4:
      if (random() % 2 == 0 && !tensor.shape.empty())
        tensor.shape.pop_back();
      else
        tensor.shape.push_back(1);
      return;
    default:
      if (tensor.shape.empty()) return;
      auto& extent = tensor.shape[below(random, tensor.shape.size())];
      extent = random() % 2 == 0 ? extreme_number(extent, random) : 1 + random() % 64;
  }
}

// Offsets as the shapes and types ask for, each tensor behind the one before, and a body of that size.
inline void lay_out(GgufParts& parts) {
  constexpr std::pair<std::uint64_t, std::uint64_t> blocks[] = {
      {1, 4},    {1, 2},    {32, 18},  {32, 20},   {0, 0},     {0, 0},     {32, 22},   {32, 24},
      {32, 34},  {32, 40},  {256, 84}, {256, 110}, {256, 144}, {256, 176}, {256, 210}, {256, 292},
      {256, 66}, {256, 74}, {256, 98}, {256, 50},  {32, 18},   {256, 110}, {256, 82},  {256, 136},
      {1, 1},    {1, 2},    {1, 4},    {1, 8},     {1, 8},     {256, 56},  {1, 2}};
  std::uint64_t alignment = 32, at = 0;
  for (const auto& entry : parts.entries) {
    if (entry.key == "general.alignment" && entry.value.size() == 4) std::memcpy(&alignment, entry.value.data(), 4);
  }
  if (alignment < 8 || alignment > 1024) alignment = 32;
  for (auto& tensor : parts.tensors) {
    const auto [block, bytes] = tensor.type == 39                 ? std::pair<std::uint64_t, std::uint64_t>{32, 17}
                                : tensor.type < std::size(blocks) ? blocks[tensor.type]
                                                                  : blocks[4];
    std::uint64_t count = 1;
    for (const auto extent : tensor.shape) count *= extent;
    if (block == 0 || count > 1 << 16) continue;
    tensor.begin = at;
    at = (at + count / block * bytes + alignment - 1) / alignment * alignment;
  }
  test::GgufBytes bytes{.version = parts.version, .alignment = static_cast<std::size_t>(alignment)};
  for (const auto& entry : parts.entries) bytes.raw(entry.key, entry.type, entry.value);
  for (const auto& tensor : parts.tensors) bytes.tensor_at(tensor.name, tensor.shape, tensor.type, tensor.begin);
  const auto header = bytes.header().size();
  const auto gap = (header + alignment - 1) / alignment * alignment - header;
  parts.body.resize(static_cast<std::size_t>(gap + at), 'x');
}

// None where `file` is not one whose sizes can be followed.
inline std::size_t mutated_input(std::string_view file, std::string_view lender, std::uint8_t* out,
                                 std::size_t max_size, Random& random) {
  auto parts = GgufTaker(file)();
  const auto other = GgufTaker(lender)();
  if (!parts || !other) return 0;
  if (random() % 3 == 0)
    mutate_tensor(*parts, *other, random);
  else
    mutate_entry(*parts, *other, random);
  if (random() % 4 != 0) lay_out(*parts);
  test::GgufBytes bytes{.version = parts->version};
  for (const auto& entry : parts->entries) bytes.raw(entry.key, entry.type, entry.value);
  for (const auto& tensor : parts->tensors) bytes.tensor_at(tensor.name, tensor.shape, tensor.type, tensor.begin);
  const auto result = bytes.header() + parts->body;
  if (result.size() > max_size) return 0;
  std::memcpy(out, result.data(), result.size());
  return result.size();
}

}  // namespace troika::fuzz
