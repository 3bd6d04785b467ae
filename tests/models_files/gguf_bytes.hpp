// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

// GGUF files byte by byte, right ones and wrong ones. Written after the description of the format, not with troika.
namespace troika::test {

template <class T>
std::string le(T value) {  // this machine is little endian, as the files are
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
inline std::string le_u32(std::uint32_t value) { return le(value); }
inline std::string le_u64(std::uint64_t value) { return le(value); }
inline std::string gguf_string(const std::string& text) { return le_u64(text.size()) + text; }

struct GgufBytes {
  // Metadata: key, type and value as they stand in the file.
  GgufBytes& raw(const std::string& key, std::uint32_t type, const std::string& value) {
    entries.push_back(gguf_string(key) + le_u32(type) + value);
    return *this;
  }
  GgufBytes& u32(const std::string& key, std::uint32_t value) { return raw(key, 4, le_u32(value)); }
  GgufBytes& f32(const std::string& key, float value) { return raw(key, 6, le(value)); }
  GgufBytes& boolean(const std::string& key, bool value) { return raw(key, 7, std::string(1, value ? '\1' : '\0')); }
  GgufBytes& string(const std::string& key, const std::string& value) { return raw(key, 8, gguf_string(value)); }
  GgufBytes& strings(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = le_u32(8) + le_u64(values.size());
    for (const auto& value : values) bytes += gguf_string(value);
    return raw(key, 9, bytes);
  }
  template <class T>
  GgufBytes& numbers(const std::string& key, std::uint32_t type, const std::vector<T>& values) {
    std::string bytes = le_u32(type) + le_u64(values.size());
    for (const auto value : values) bytes += le(value);
    return raw(key, 9, bytes);
  }

  // A tensor; the shape as in the file, with the length of a row first.
  GgufBytes& tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                    const std::string& data) {
    const std::uint64_t begin = body.size();
    body += data;
    body.resize((body.size() + alignment - 1) / alignment * alignment);
    return tensor_at(name, shape, type, begin);
  }
  GgufBytes& tensor_at(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                       std::uint64_t begin) {
    std::string bytes = gguf_string(name) + le_u32(static_cast<std::uint32_t>(shape.size()));
    for (const auto extent : shape) bytes += le_u64(extent);
    tensors.push_back(bytes + le_u32(type) + le_u64(begin));
    return *this;
  }

  std::string header() const {
    std::string bytes = magic + le_u32(version) + le_u64(tensors.size()) + le_u64(entries.size());
    for (const auto& entry : entries) bytes += entry;
    for (const auto& entry : tensors) bytes += entry;
    return bytes;
  }
  std::string file() const {
    std::string bytes = header();
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes + body;
  }

  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::size_t alignment = 32;
  std::vector<std::string> entries{}, tensors{};
  std::string body{};
};

}  // namespace troika::test
