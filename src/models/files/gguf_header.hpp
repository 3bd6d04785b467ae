// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/models/files/gguf_metadata.hpp>
#include <troika/models/files/tensor_info.hpp>

namespace troika::models {

// Everything of a GGUF file that is before its data. Reads from a mapped file and keeps views into it; every count is
// checked against the bytes that are left before memory is taken for it.
class GgufHeader {
 public:
  // `file` is the whole file, `origin` its name in messages.
  GgufHeader(std::span<const std::byte> file, std::string origin);

  int version = 0;
  GgufMetadata metadata;
  std::vector<TensorInfo> tensors;  // sorted by name
  std::size_t data_begin = 0;       // of the file; the ranges of tensors count from here

 private:
  void read_start();
  void read_metadata();
  void read_value(GgufMetadata::Place& place, const std::string& key);
  void read_tensors();
  void read_tensor(TensorInfo& tensor);
  void place_data();

  [[noreturn]] void fail(std::size_t at, const std::string& what) const;
  void need(std::uint64_t count, std::uint64_t size, const std::string& what) const;
  std::uint64_t number(std::size_t size, const std::string& what);
  std::string_view string(const std::string& what);

  std::span<const std::byte> file_;
  std::string origin_;
  std::size_t at_ = 0;
  std::uint64_t tensor_count_ = 0, entry_count_ = 0, alignment_ = 32;
};

// Little endian.
std::uint64_t gguf_number(const std::byte* data, std::size_t size);
// Bytes of a value; 0 for strings and arrays.
std::size_t gguf_size_of(GgufType type);

}  // namespace troika::models
