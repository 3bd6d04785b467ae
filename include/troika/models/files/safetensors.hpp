// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/models/files/mapped_file.hpp>

namespace troika::models {

// What the header of a safetensors or GGUF file says of one tensor. `type` is empty where the elements are not those of a
// weight: integers, and types that troika does not know (F64, F8_E4M3, IQ2_XS, ...). Such a tensor is listed, and reading it
// as a weight is an Error{unsupported}.
struct TensorInfo {
  std::string name;
  std::string dtype_name;  // as the file spells it, e.g. "BF16"
  std::optional<WeightType> type;
  Shape shape;             // () is a scalar
  std::uint64_t begin = 0, end = 0;  // bytes, counted from the end of the header

  std::uint64_t size_bytes() const { return end - begin; }
};

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

 private:
  MappedFile file_;
  std::size_t data_begin_ = 0;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

// All weights of a Hugging Face folder: `model.safetensors`, or the files that `model.safetensors.index.json` names.
// Every rank may hold a reference to the same one and read its own part of each tensor.
class Weights {
 public:
  static Weights open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  std::vector<std::string> names() const;  // sorted
  bool contains(std::string_view name) const { return index_.find(name) != index_.end(); }
  const TensorInfo& info(std::string_view name) const;
  // Info, after checking that the tensor has this shape: Error{bad_file} names both shapes.
  const TensorInfo& expect(std::string_view name, const Shape& shape) const;
  std::uint64_t total_bytes() const;

  std::span<const std::byte> bytes(std::string_view name) const;
  void copy_rows(std::string_view name, Range rows, std::span<std::byte> out) const;
  void copy_columns(std::string_view name, Range columns, std::span<std::byte> out) const;
  template <Element T> void read(std::string_view name, std::span<T> out) const;
  template <Element T> void read_rows(std::string_view name, Range rows, std::span<T> out) const;
  template <Element T> void read_columns(std::string_view name, Range columns, std::span<T> out) const;

 private:
  struct Entry {
    std::size_t file = 0;
    const TensorInfo* tensor = nullptr;  // lives in files_[file], whose list never changes after open()
  };
  const Entry& entry(std::string_view name) const;

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Entry, std::less<>> index_;
};

}  // namespace troika::models
