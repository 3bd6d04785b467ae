// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/tensor_file.hpp>

#include "../json.hpp"
#include "tensor_slices.hpp"

namespace troika::models {

const TensorInfo* TensorFile::find(std::string_view name) const {
  const auto at =
      std::ranges::lower_bound(tensors_, name, {}, [](const TensorInfo& t) { return std::string_view(t.name); });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

const TensorInfo& TensorFile::info(std::string_view name) const {
  const auto* tensor = find(name);
  if (tensor == nullptr) bad_file(path().string() + " has no tensor " + in_quotes(name));
  return *tensor;
}

std::span<const std::byte> TensorFile::bytes(const TensorInfo& tensor) const {
  check_readable(path(), tensor);
  return file_.bytes().subspan(data_begin_ + static_cast<std::size_t>(tensor.begin),
                               static_cast<std::size_t>(tensor.size_bytes()));
}

void TensorFile::copy_rows(const TensorInfo& tensor, Range rows, std::span<std::byte> out) const {
  models::copy_rows({file_, bytes(tensor), tensor}, rows, out);
}
void TensorFile::copy_columns(const TensorInfo& tensor, Range columns, std::span<std::byte> out) const {
  models::copy_columns({file_, bytes(tensor), tensor}, columns, out);
}
template <Element T>
void TensorFile::read(const TensorInfo& tensor, std::span<T> out) const {
  read_all({file_, bytes(tensor), tensor}, out);
}
template <Element T>
void TensorFile::read_rows(const TensorInfo& tensor, Range rows, std::span<T> out) const {
  models::read_rows({file_, bytes(tensor), tensor}, rows, out);
}
template <Element T>
void TensorFile::read_columns(const TensorInfo& tensor, Range columns, std::span<T> out) const {
  models::read_columns({file_, bytes(tensor), tensor}, columns, out);
}

#define TROIKA_READ(T)                                                                  \
  template void TensorFile::read<T>(const TensorInfo&, std::span<T>) const;             \
  template void TensorFile::read_rows<T>(const TensorInfo&, Range, std::span<T>) const; \
  template void TensorFile::read_columns<T>(const TensorInfo&, Range, std::span<T>) const;
TROIKA_READABLE_TYPES(TROIKA_READ)
#undef TROIKA_READ

}  // namespace troika::models
