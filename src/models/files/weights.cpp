// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/safetensors.hpp>

#include "../json.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_index_bytes = std::size_t{256} << 20;

// The index is as hostile as any file: it may name only files that lie directly in the folder.
void check_file_name(const std::string& name, const std::string& origin) {
  const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                     name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
  if (!plain) bad_file(origin + ": weight_map names the file " + in_quotes(name) + "; valid are names of files in the same folder");
}

}  // namespace

Weights Weights::open(const std::filesystem::path& folder) {
  Weights weights;
  weights.folder_ = folder;
  const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (is_there(single)) {
    weights.files_.push_back(SafetensorsFile::open(single));
    for (const auto& tensor : weights.files_[0].tensors()) weights.index_.emplace(tensor.name, Entry{0, &tensor});
    return weights;
  }
  if (!is_there(index)) {
    bad_file(folder.string() + " holds no weights: neither model.safetensors nor model.safetensors.index.json is there");
  }

  const Json document = read_json(index, max_index_bytes);
  const Fields map = Fields(document, index.string()).object("weight_map");
  std::map<std::string, std::size_t> numbers;
  for (const auto& [tensor, file] : document["weight_map"].items()) {
    if (!file.is_string()) map.fail(in_quotes(tensor).c_str(), "must be a file name, not " + shown(file));
    numbers.try_emplace(file.get<std::string>(), 0);
  }
  for (auto& [name, number] : numbers) {
    check_file_name(name, index.string());
    number = weights.files_.size();
    weights.files_.push_back(SafetensorsFile::open(folder / name));
  }
  for (const auto& [tensor, file] : document["weight_map"].items()) {
    const auto number = numbers.at(file.get_ref<const std::string&>());
    weights.index_.emplace(tensor, Entry{number, &weights.files_[number].info(tensor)});
  }
  return weights;
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : index_) names.push_back(name);
  return names;
}

const Weights::Entry& Weights::entry(std::string_view name) const {
  const auto at = index_.find(name);
  if (at == index_.end()) bad_file(folder_.string() + " has no tensor " + in_quotes(name));
  return at->second;
}

const TensorInfo& Weights::info(std::string_view name) const { return *entry(name).tensor; }

const TensorInfo& Weights::expect(std::string_view name, const Shape& shape) const {
  const auto& tensor = info(name);
  if (tensor.shape != shape) {
    bad_file(files_[entry(name).file].path().string() + ": tensor " + in_quotes(name) + " has shape " +
             tensor.shape.to_string() + "; the configuration of the model asks for " + shape.to_string());
  }
  return tensor;
}

std::uint64_t Weights::total_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [name, entry] : index_) total += entry.tensor->size_bytes();
  return total;
}

std::span<const std::byte> Weights::bytes(std::string_view name) const {
  const auto& [file, tensor] = entry(name);
  return files_[file].bytes(*tensor);
}
void Weights::copy_rows(std::string_view name, Range rows, std::span<std::byte> out) const {
  const auto& [file, tensor] = entry(name);
  files_[file].copy_rows(*tensor, rows, out);
}
void Weights::copy_columns(std::string_view name, Range columns, std::span<std::byte> out) const {
  const auto& [file, tensor] = entry(name);
  files_[file].copy_columns(*tensor, columns, out);
}
template <Element T>
void Weights::read(std::string_view name, std::span<T> out) const {
  const auto& [file, tensor] = entry(name);
  files_[file].read(*tensor, out);
}
template <Element T>
void Weights::read_rows(std::string_view name, Range rows, std::span<T> out) const {
  const auto& [file, tensor] = entry(name);
  files_[file].read_rows(*tensor, rows, out);
}
template <Element T>
void Weights::read_columns(std::string_view name, Range columns, std::span<T> out) const {
  const auto& [file, tensor] = entry(name);
  files_[file].read_columns(*tensor, columns, out);
}

#define TROIKA_READ(T)                                                              \
  template void Weights::read<T>(std::string_view, std::span<T>) const;             \
  template void Weights::read_rows<T>(std::string_view, Range, std::span<T>) const; \
  template void Weights::read_columns<T>(std::string_view, Range, std::span<T>) const;
TROIKA_READ(float)
TROIKA_READ(f16)
TROIKA_READ(bf16)
TROIKA_READ(std::int32_t)
TROIKA_READ(std::int8_t)
TROIKA_READ(std::uint8_t)
#undef TROIKA_READ

}  // namespace troika::models
