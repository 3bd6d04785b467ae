// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/shape.hpp>
#include <troika/core/weight_type.hpp>

namespace troika::models {

// Writes one GGUF file, version 3. First all keys and all tensors are named, then the data of the tensors follow in
// that order, in pieces of any size. The file appears under its name when it is whole: until finish() it is a temporary
// beside it, which the destructor removes. Error{bad_file} names the file and the system's reason.
class GgufWriter {
 public:
  // `replace`: a file of that name may be there.
  GgufWriter(std::filesystem::path path, bool replace);
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;
  ~GgufWriter();

  void string(std::string_view key, std::string_view value);
  void u32(std::string_view key, std::int64_t value);
  void f32(std::string_view key, double value);
  void boolean(std::string_view key, bool value);
  void strings(std::string_view key, std::span<const std::string> values);
  void i32s(std::string_view key, std::span<const std::int32_t> values);
  void f32s(std::string_view key, std::span<const float> values);
  // The shape with the row last.
  void tensor(std::string_view name, const Shape& shape, WeightType type);

  void write(std::span<const std::byte> data);
  std::uint64_t finish();  // bytes of the file

 private:
  void key(std::string_view key, std::uint32_t type);
  void begin_data();
  void put(std::span<const std::byte> bytes);
  void flush();
  [[noreturn]] void fail(const std::string& what) const;
  void check_free() const;

  std::filesystem::path path_;
  std::string temporary_;
  bool replace_;
  int file_ = -1;
  std::uint64_t written_ = 0;
  std::string keys_, tensors_, buffer_;
  std::uint64_t key_count_ = 0, data_size_ = 0;
  std::vector<std::uint64_t> sizes_;  // of the tensors
  std::size_t current_ = 0;           // the tensor whose data come next
  std::uint64_t in_current_ = 0;
  bool begun_ = false;
};

}  // namespace troika::models
