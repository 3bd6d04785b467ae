// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/models/files/gguf_metadata.hpp>
#include <troika/models/files/mapped_file.hpp>
#include <troika/models/files/tensor_info.hpp>

namespace troika::models {

// One file in the format of ggml-org/ggml, version 2 or 3, little endian, mapped and checked: after open() every tensor
// lies inside of the file, and shape, type and range of each agree. Names and shapes are those of the file, the shape
// with the row last. Takes at most four times the size of the header, and 1 MiB. Const members may be called from any
// number of threads at once.
class GgufFile {
 public:
  // Error{bad_file} names file, key or tensor, byte and what is wrong; Error{unsupported} a version, byte order or
  // type.
  static GgufFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  int version() const { return version_; }
  const GgufMetadata& metadata() const { return metadata_; }
  std::span<const TensorInfo> tensors() const { return tensors_; }  // sorted by name
  const TensorInfo* find(std::string_view name) const;              // null when absent
  const TensorInfo& info(std::string_view name) const;              // Error{bad_file} when absent

  // The tensor as it is stored: rows of whole blocks, each without a gap after the one before.
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;

  // Rows [begin, end) of the first dimension, in the tensor's own type; `out` has exactly the size of the slice.
  void copy_rows(const TensorInfo& tensor, Range rows, std::span<std::byte> out) const;
  // Columns [begin, end) of a matrix; out is (rows, columns.size()). Both ends fall between blocks, or it is an
  // Error{invalid_argument} that says of how many columns a block is.
  void copy_columns(const TensorInfo& tensor, Range columns, std::span<std::byte> out) const;

  // The same as numbers: float, f16 or bf16 of any type that a weight may have.
  template <Element T>
  void read(const TensorInfo& tensor, std::span<T> out) const;
  template <Element T>
  void read_rows(const TensorInfo& tensor, Range rows, std::span<T> out) const;
  template <Element T>
  void read_columns(const TensorInfo& tensor, Range columns, std::span<T> out) const;

  const MappedFile& file() const { return file_; }
  // What the ranges of tensors count in.
  std::span<const std::byte> data() const { return file_.bytes().subspan(std::min(data_begin_, file_.size())); }

 private:
  MappedFile file_;
  int version_ = 0;
  std::size_t data_begin_ = 0;
  GgufMetadata metadata_;
  std::vector<TensorInfo> tensors_;
};

// All parts of a model in order: the file alone, or where it says that it is one of several (NAME-00001-of-00003.gguf),
// those beside it. `path` names any part; the metadata of a model are in the first. Error{bad_file} when parts do not
// belong together.
std::vector<GgufFile> open_gguf_parts(const std::filesystem::path& path);

// Whether a path names a GGUF file rather than the folder of a model: it is a file, or ends in ".gguf".
bool is_gguf_path(const std::filesystem::path& path);

}  // namespace troika::models
