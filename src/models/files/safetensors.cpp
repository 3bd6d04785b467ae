// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/safetensors.hpp>

#include <algorithm>
#include <utility>

#include "../json.hpp"
#include "safetensors_header.hpp"
#include "tensor_slices.hpp"

namespace troika::models {
namespace {

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the limit of the reference implementation

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile opened;
  opened.file_ = MappedFile::open(path);
  const auto bytes = opened.file_.bytes();
  const std::string origin = path.string();
  if (bytes.size() < 8) {
    bad_file(origin + " has " + std::to_string(bytes.size()) + " bytes; a safetensors file begins with 8 bytes of header length");
  }
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 0; i < 8; ++i) header_bytes |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  if (header_bytes == 0) bad_file(origin + ": the header length is 0");
  if (header_bytes > max_header_bytes) {
    bad_file(origin + ": the header length is " + std::to_string(header_bytes) + "; at most " +
             std::to_string(max_header_bytes) + " bytes are valid");
  }
  if (header_bytes > bytes.size() - 8) {
    bad_file(origin + ": the header length is " + std::to_string(header_bytes) + ", but only " +
             std::to_string(bytes.size() - 8) + " bytes follow; the file is truncated or lies");
  }
  opened.data_begin_ = 8 + static_cast<std::size_t>(header_bytes);
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(header_bytes));
  auto header = parse_safetensors_header(json, bytes.size() - opened.data_begin_, origin);
  opened.tensors_ = std::move(header.tensors);
  opened.metadata_ = std::move(header.metadata);
  return opened;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(tensors_, name, {}, [](const TensorInfo& t) { return std::string_view(t.name); });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const TensorInfo& SafetensorsFile::info(std::string_view name) const {
  const auto* tensor = find(name);
  if (tensor == nullptr) bad_file(path().string() + " has no tensor " + in_quotes(name));
  return *tensor;
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  check_readable(path(), tensor);
  return file_.bytes().subspan(data_begin_ + static_cast<std::size_t>(tensor.begin),
                               static_cast<std::size_t>(tensor.size_bytes()));
}

void SafetensorsFile::copy_rows(const TensorInfo& tensor, Range rows, std::span<std::byte> out) const {
  models::copy_rows({file_, bytes(tensor), tensor}, rows, out);
}
void SafetensorsFile::copy_columns(const TensorInfo& tensor, Range columns, std::span<std::byte> out) const {
  models::copy_columns({file_, bytes(tensor), tensor}, columns, out);
}
template <Element T>
void SafetensorsFile::read(const TensorInfo& tensor, std::span<T> out) const {
  read_all({file_, bytes(tensor), tensor}, out);
}
template <Element T>
void SafetensorsFile::read_rows(const TensorInfo& tensor, Range rows, std::span<T> out) const {
  models::read_rows({file_, bytes(tensor), tensor}, rows, out);
}
template <Element T>
void SafetensorsFile::read_columns(const TensorInfo& tensor, Range columns, std::span<T> out) const {
  models::read_columns({file_, bytes(tensor), tensor}, columns, out);
}

#define TROIKA_READ(T)                                                                            \
  template void SafetensorsFile::read<T>(const TensorInfo&, std::span<T>) const;                  \
  template void SafetensorsFile::read_rows<T>(const TensorInfo&, Range, std::span<T>) const;      \
  template void SafetensorsFile::read_columns<T>(const TensorInfo&, Range, std::span<T>) const;
TROIKA_READ(float)
TROIKA_READ(f16)
TROIKA_READ(bf16)
TROIKA_READ(std::int32_t)
TROIKA_READ(std::int8_t)
TROIKA_READ(std::uint8_t)
#undef TROIKA_READ

}  // namespace troika::models
