// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/models/files/mapped_file.hpp>
#include <troika/models/files/tensor_info.hpp>

namespace troika::models {

// One file in the format of huggingface/safetensors, mapped and checked: after open() every tensor lies inside of the
// file, and shape, type and range of each agree. Const members may be called from any number of threads at once.
class SafetensorsFile {
 public:
  // Error{bad_file} names file, tensor and what is wrong; Error{unsupported} a type or shape that troika does not know.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  std::span<const TensorInfo> tensors() const { return tensors_; }  // sorted by name
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const TensorInfo* find(std::string_view name) const;    // null when absent
  const TensorInfo& info(std::string_view name) const;    // Error{bad_file} when absent

  // The tensor in the file, little endian and perhaps unaligned for its type: copy out of it, do not cast it.
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;

  // Rows [begin, end) of the first dimension; a contiguous slice. `out` has exactly the size of the slice. Pages are given
  // back as they are copied, so that resident memory grows by a few MiB only.
  void copy_rows(const TensorInfo& tensor, Range rows, std::span<std::byte> out) const;
  // Columns [begin, end) of the second dimension of a matrix; out is (rows, columns.size()).
  void copy_columns(const TensorInfo& tensor, Range columns, std::span<std::byte> out) const;

  // The same, converted to T where the file has another type. f32, f16 and bf16 convert into each other.
  template <Element T> void read(const TensorInfo& tensor, std::span<T> out) const;
  template <Element T> void read_rows(const TensorInfo& tensor, Range rows, std::span<T> out) const;
  template <Element T> void read_columns(const TensorInfo& tensor, Range columns, std::span<T> out) const;

  const MappedFile& file() const { return file_; }
  // What the ranges of tensors count in.
  std::span<const std::byte> data() const { return file_.bytes().subspan(std::min(data_begin_, file_.size())); }

 private:
  MappedFile file_;
  std::size_t data_begin_ = 0;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace troika::models
