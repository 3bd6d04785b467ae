// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/weights.hpp>

#include <utility>

#include "../json.hpp"
#include "gguf_config.hpp"
#include "gguf_names.hpp"
#include "tensor_slices.hpp"

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

Weights Weights::open(const std::filesystem::path& path) {
  Weights weights;
  weights.path_ = path;
  if (is_gguf_path(path)) weights.open_gguf();
  else weights.open_folder();
  return weights;
}

void Weights::open_folder() {
  const auto add = [&](const SafetensorsFile& file, const TensorInfo& tensor) {
    // Checked by open(): the tensor lies inside of the file.
    index_.emplace(tensor.name, Entry{&tensor, &file.file(), file.data().data() + tensor.begin});
  };
  const auto single = path_ / "model.safetensors", index = path_ / "model.safetensors.index.json";
  if (is_there(single)) {
    safetensors_.push_back(SafetensorsFile::open(single));
    for (const auto& tensor : safetensors_[0].tensors()) add(safetensors_[0], tensor);
    return;
  }
  if (!is_there(index)) {
    bad_file(path_.string() + " holds no weights: neither model.safetensors nor model.safetensors.index.json is there");
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
    number = safetensors_.size();
    safetensors_.push_back(SafetensorsFile::open(path_ / name));
  }
  for (const auto& [tensor, file] : document["weight_map"].items()) {
    const auto& opened = safetensors_[numbers.at(file.get_ref<const std::string&>())];
    add(opened, opened.info(tensor));
  }
}

void Weights::open_gguf() {
  gguf_ = open_gguf_parts(path_);
  const auto config = gguf_config(gguf_);
  std::size_t count = 0;
  for (const auto& file : gguf_) count += file.tensors().size();
  renamed_.reserve(count);
  for (const auto& file : gguf_) {
    for (const auto& tensor : file.tensors()) {
      auto known = hugging_face_name(tensor.name, config.architecture);
      renamed_.push_back(tensor);
      auto& info = renamed_.back();
      info.name = std::move(known.name);
      if (known.is_matrix && info.shape.dims() == 1) info.shape = {1, info.shape[0]};
      Entry entry{&info, &file.file(), file.data().data() + tensor.begin};
      if (known.rows != HuggingFaceName::as_is) {
        const auto heads = known.rows == HuggingFaceName::query ? config.heads : config.kv_heads;
        const bool whole = info.shape[0] == heads * config.head_dim && (info.shape.dims() == 2 || !info.type || !is_quantised(*info.type));
        if (!whole) {
          bad_file(file.path().string() + ": tensor " + in_quotes(tensor.name) + " of type " + info.dtype_name + " has shape " +
                   info.shape.to_string() + "; its rows must be " + std::to_string(heads) + " heads of " + std::to_string(config.head_dim));
        }
        entry.head_rows = config.head_dim;
      }
      if (!index_.emplace(info.name, entry).second) {
        bad_file(file.path().string() + ": the tensor " + in_quotes(tensor.name) + " is in another part too");
      }
    }
  }
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : index_) names.push_back(name);
  return names;
}

const Weights::Entry& Weights::entry(std::string_view name) const {
  const auto at = index_.find(name);
  if (at == index_.end()) bad_file(path_.string() + " has no tensor " + in_quotes(name));
  return at->second;
}

const TensorInfo& Weights::info(std::string_view name) const { return *entry(name).tensor; }

const TensorInfo& Weights::expect(std::string_view name, const Shape& shape) const {
  const auto& tensor = info(name);
  if (tensor.shape != shape) {
    bad_file(entry(name).file->path().string() + ": tensor " + in_quotes(name) + " has shape " +
             tensor.shape.to_string() + "; the configuration of the model asks for " + shape.to_string());
  }
  return tensor;
}

std::uint64_t Weights::total_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [name, entry] : index_) total += entry.tensor->size_bytes();
  return total;
}

StoredTensor Weights::stored(std::string_view name) const {
  const auto& found = entry(name);
  return {*found.file, {found.data, static_cast<std::size_t>(found.tensor->size_bytes())}, *found.tensor, found.head_rows};
}

std::span<const std::byte> Weights::bytes(std::string_view name) const {
  const auto tensor = stored(name);
  check_readable(tensor.file.path(), tensor.info);
  if (tensor.head_rows != 0) {
    unsupported(tensor.file.path().string() + ": tensor " + in_quotes(name) + " has its rows in another order in the file; read them");
  }
  return tensor.bytes;
}
void Weights::copy_rows(std::string_view name, Range rows, std::span<std::byte> out) const {
  models::copy_rows(stored(name), rows, out);
}
void Weights::copy_columns(std::string_view name, Range columns, std::span<std::byte> out) const {
  models::copy_columns(stored(name), columns, out);
}
template <Element T>
void Weights::read(std::string_view name, std::span<T> out) const {
  read_all(stored(name), out);
}
template <Element T>
void Weights::read_rows(std::string_view name, Range rows, std::span<T> out) const {
  models::read_rows(stored(name), rows, out);
}
template <Element T>
void Weights::read_columns(std::string_view name, Range columns, std::span<T> out) const {
  models::read_columns(stored(name), columns, out);
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
