// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troika::models {

enum class GgufType : std::uint8_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

constexpr std::string_view to_string(GgufType type) {
  constexpr std::string_view names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
  return names[static_cast<std::size_t>(type)];
}

// The keys and values of a GGUF file. They stay in the mapped file: this is a table of where they are, checked when it
// was made. Typed reads are Error{bad_file} naming file, key, byte and what would be valid. Refers to the file's
// mapping.
class GgufMetadata {
 public:
  struct Entry {
    std::string_view key;
    GgufType type;  // of the value, or of the elements of an array
    bool is_array;
    std::uint64_t count;    // elements of an array, else 1
    const std::byte* data;  // of the value; of an array's first element
  };

  bool contains(std::string_view key) const { return find(key) != nullptr; }
  std::size_t size() const { return entries_.size(); }
  Entry operator[](std::size_t i) const;  // sorted by key

  // Any integer type of the format, within [low, high].
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high) const;
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high, std::int64_t otherwise) const;
  // Floating types, and integers too.
  double number(std::string_view key, double low, double high) const;
  double number(std::string_view key, double low, double high, double otherwise) const;
  bool boolean(std::string_view key, bool otherwise) const;
  // A view into the file; any bytes.
  std::string_view string(std::string_view key) const;
  std::string_view string(std::string_view key, std::string_view otherwise) const;

  std::vector<std::string_view> strings(std::string_view key) const;
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t low, std::int64_t high) const;
  std::vector<float> floats(std::string_view key) const;  // arrays of f32, all finite

  // "FILE: the key 'KEY' at byte N WHY"
  [[noreturn]] void fail(std::string_view key, const std::string& why) const;
  const std::string& origin() const { return origin_; }

 private:
  friend class GgufHeader;
  struct Place {  // 32 bytes for an entry that takes at least 14 in the file
    const char* key;
    const std::byte* data;
    std::uint64_t count;
    std::uint16_t key_size;
    GgufType type;
    bool is_array;

    std::string_view name() const { return {key, key_size}; }
  };
  const Place* find(std::string_view key) const;
  const Place& get(std::string_view key) const;
  const Place& array(std::string_view key) const;
  const Place& single(std::string_view key) const;

  std::string origin_;
  const std::byte* file_ = nullptr;
  std::vector<Place> entries_;  // sorted by key
};

}  // namespace troika::models
