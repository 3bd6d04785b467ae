// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/models/files/mapped_file.hpp>
#include <troika/models/files/tensor_info.hpp>

namespace troika::models {

// A mapped file with tensors, whatever its format: what SafetensorsFile and GgufFile share. Their open() has checked
// that every tensor lies inside of the file, and that shape, type and range of each agree. Const members may be called
// from any number of threads at once.
class TensorFile {
 public:
  const std::filesystem::path& path() const { return file_.path(); }
  std::span<const TensorInfo> tensors() const { return tensors_; }  // sorted by name
  const TensorInfo* find(std::string_view name) const;              // null when absent
  const TensorInfo& info(std::string_view name) const;              // Error{bad_file} when absent

  // The tensor as it is stored, little endian: rows of whole blocks, each without a gap after the one before, perhaps
  // unaligned for their type: copy out of it, do not cast it.
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;

  // Rows [begin, end) of the first dimension in the tensor's own type, a contiguous slice; `out` has exactly the size
  // of the slice. Pages are given back as they are copied, so that resident memory grows by a few MiB only.
  void copy_rows(const TensorInfo& tensor, Range rows, std::span<std::byte> out) const;
  // Columns [begin, end) of a matrix; out is (rows, columns.size()). Both ends fall between blocks, or it is an
  // Error{invalid_argument} that says of how many columns a block is.
  void copy_columns(const TensorInfo& tensor, Range columns, std::span<std::byte> out) const;

  // The same as numbers: float, f16 or bf16 of any type that a weight may have; integers of their own type.
  template <Element T>
  void read(const TensorInfo& tensor, std::span<T> out) const;
  template <Element T>
  void read_rows(const TensorInfo& tensor, Range rows, std::span<T> out) const;
  template <Element T>
  void read_columns(const TensorInfo& tensor, Range columns, std::span<T> out) const;

  const MappedFile& file() const { return file_; }
  // What the ranges of tensors count in.
  std::span<const std::byte> data() const { return file_.bytes().subspan(std::min(data_begin_, file_.size())); }

 protected:
  TensorFile() = default;

  MappedFile file_;
  std::size_t data_begin_ = 0;
  std::vector<TensorInfo> tensors_;
};

}  // namespace troika::models
