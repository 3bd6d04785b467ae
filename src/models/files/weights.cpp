// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/weights.hpp>

#include <optional>
#include <utility>

#include <troika/models/files/config.hpp>

#include "../json.hpp"
#include "gguf_config.hpp"
#include "gguf_names.hpp"
#include "tensor_parts.hpp"
#include "tensor_slices.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_index_bytes = std::size_t{256} << 20;

// The index is as hostile as any file: it may name only files that lie directly in the folder.
void check_file_name(const std::string& name, const std::string& origin) {
  const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                     name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
  if (!plain)
    bad_file(origin + ": weight_map names the file " + in_quotes(name) +
             "; valid are names of files in the same folder");
}

}  // namespace

Weights Weights::open(const std::filesystem::path& path) {
  Weights weights;
  weights.path_ = path;
  if (is_gguf_path(path))
    weights.open_gguf();
  else
    weights.open_folder();
  return weights;
}

void Weights::add(TensorInfo info, Entry entry, const ModelConfig& config) {
  const auto origin = entry.file->path().string();
  const auto place_in_index = [&](TensorInfo tensor, Entry at) {
    renamed_.push_back(std::move(tensor));
    at.tensor = &renamed_.back();
    if (!index_.emplace(renamed_.back().name, at).second) {
      bad_file(origin + ": the tensor " + in_quotes(renamed_.back().name) + " is there twice");
    }
  };
  const auto parts = parts_of(info.name, info.shape, config, origin);
  if (parts.empty()) return place_in_index(std::move(info), entry);
  const auto rows = static_cast<std::uint64_t>(parts.back().begin + parts.back().shape[0]), bytes = info.size_bytes();
  if (info.type && info.shape.dims() == 1 && is_quantised(*info.type)) {
    bad_file(origin + ": tensor " + in_quotes(info.name) + " of type " + info.dtype_name +
             " has parts that cut its blocks");
  }
  for (const auto& part : parts) {
    const auto begin = bytes / rows * static_cast<std::uint64_t>(part.begin),
               size = bytes / rows * static_cast<std::uint64_t>(part.shape[0]);
    // The elements of a transposed part are apart from each other; its size is what they take.
    const auto skip = entry.transposed == 0 ? begin : begin / static_cast<std::uint64_t>(info.shape[1]);
    Entry at = entry;
    at.data += skip;
    place_in_index({part.name, info.dtype_name, info.type, part.shape, info.begin + skip, info.begin + skip + size},
                   at);
  }
}

void Weights::open_folder() {
  std::optional<ModelConfig> config;  // read where names ask for it: weights may be alone in a folder
  const auto add = [&](const SafetensorsFile& file, const TensorInfo& tensor) {
    // Checked by open(): the tensor lies inside of the file.
    Entry entry{&tensor, &file.file(), file.data().data() + tensor.begin};
    if (!config) {
      index_.emplace(tensor.name, entry);
      return;
    }
    auto known = folder_name(tensor.name, config->architecture);
    auto info = tensor;
    info.name = std::move(known.name);
    if (known.transposed && info.shape.dims() == 2 && info.shape.count() > 0) {
      entry.transposed = info.shape[1];
      info.shape = {info.shape[1], info.shape[0]};
    }
    this->add(std::move(info), entry, *config);
  };
  const auto read_config = [&](const std::string& name) {
    if (!config && is_folder_name(name) && is_there(path_ / "config.json")) config = ModelConfig::load(path_);
  };
  const auto single = path_ / "model.safetensors", index = path_ / "model.safetensors.index.json";
  if (is_there(single)) {
    safetensors_.push_back(SafetensorsFile::open(single));
    for (const auto& tensor : safetensors_[0].tensors()) read_config(tensor.name);
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
    read_config(tensor);
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
  for (const auto& file : gguf_) {
    for (const auto& tensor : file.tensors()) {
      auto known = hugging_face_name(tensor.name, config.architecture);
      auto info = tensor;
      info.name = std::move(known.name);
      if (known.is_matrix && info.shape.dims() == 1) info.shape = {1, info.shape[0]};
      Entry entry{nullptr, &file.file(), file.data().data() + tensor.begin};
      if (known.rows != HuggingFaceName::as_is) {
        const auto heads = known.rows == HuggingFaceName::query ? config.heads : config.kv_heads;
        const bool whole = info.shape[0] == heads * config.head_dim &&
                           (info.shape.dims() == 2 || !info.type || !is_quantised(*info.type));
        if (!whole) {
          bad_file(file.path().string() + ": tensor " + in_quotes(tensor.name) + " of type " + info.dtype_name +
                   " has shape " + info.shape.to_string() + "; its rows must be " + std::to_string(heads) +
                   " heads of " + std::to_string(config.head_dim));
        }
        entry.head_rows = config.head_dim;
      }
      add(std::move(info), entry, config);
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
  auto size = static_cast<std::size_t>(found.tensor->size_bytes());
  if (found.transposed != 0 && size > 0) {  // from the first element of the first column to the last of the last
    const auto& shape = found.tensor->shape;
    size = size / static_cast<std::size_t>(shape.count()) *
           static_cast<std::size_t>((shape[1] - 1) * found.transposed + shape[0]);
  }
  return {*found.file, {found.data, size}, *found.tensor, found.head_rows, found.transposed};
}

std::span<const std::byte> Weights::bytes(std::string_view name) const {
  const auto tensor = stored(name);
  check_readable(tensor.file.path(), tensor.info);
  if (tensor.head_rows != 0 || tensor.transposed != 0) {
    unsupported(tensor.file.path().string() + ": tensor " + in_quotes(name) +
                " has its elements in another order in the file; read them");
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
TROIKA_READABLE_TYPES(TROIKA_READ)
#undef TROIKA_READ

}  // namespace troika::models
