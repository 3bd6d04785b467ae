// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/models/files/mapped_file.hpp>
#include <troika/models/files/tensor_info.hpp>

// Parts of tensors that lie in mapped files, copied as they are stored or converted. Both file formats read through
// this.
namespace troika::models {

struct StoredTensor {
  const MappedFile& file;
  std::span<const std::byte> bytes;  // of the whole tensor
  const TensorInfo& info;
  // Other than 0: rows come in heads of so many, and the file has the halves of each head interleaved: row i of the
  // first half is row 2i of the head in the file, row i of the second half is row 2i + 1.
  std::int64_t head_rows = 0;
  // Other than 0: the file has the columns as rows, each so many elements after the one before; bytes begin with the
  // first element.
  std::int64_t transposed = 0;
};

// Types that are read though no weight has them. Empty for all other names.
std::optional<DType> integer_dtype(std::string_view name);
// Whether the tensor can be read at all, or the reason why not.
bool is_readable(const TensorInfo& tensor);
void check_readable(const std::filesystem::path& file, const TensorInfo& tensor);

// As copy_rows and the others of SafetensorsFile. Pages of the file are given back as they are read.
void copy_rows(const StoredTensor& tensor, Range rows, std::span<std::byte> out);
void copy_columns(const StoredTensor& tensor, Range columns, std::span<std::byte> out);
template <Element T>
void read_all(const StoredTensor& tensor, std::span<T> out);
template <Element T>
void read_rows(const StoredTensor& tensor, Range rows, std::span<T> out);
template <Element T>
void read_columns(const StoredTensor& tensor, Range columns, std::span<T> out);

// The types that a tensor can be read as: instance(T) for each.
#define TROIKA_READABLE_TYPES(instance) \
  instance(float) instance(f16) instance(bf16) instance(std::int32_t) instance(std::int8_t) instance(std::uint8_t)

}  // namespace troika::models
