// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/model_store.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <fstream>

#include <troika/core/error.hpp>
#include <troika/device/host/checksum.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/gguf.hpp>
#include <troika/models/files/safetensors.hpp>

#include "ollama_store.hpp"

namespace troika::serving {
namespace {

namespace fs = std::filesystem;

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool is_folder_model(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) && fs::exists(path / "config.json", ignored);
}

// The files of a model: all parts of a GGUF file, or all that a folder has (not what is in folders below).
std::vector<fs::path> files_of(const fs::path& path) {
  std::vector<fs::path> files;
  if (!fs::is_directory(path)) {
    for (const auto& part : models::open_gguf_parts(path)) files.push_back(part.path());
    return files;
  }
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

// "name-00001-of-00003" without that ending; empty for the other parts.
std::optional<std::string> without_part(const std::string& stem) {
  constexpr std::size_t length = 15;  // -00001-of-00003
  if (stem.size() <= length) return stem;
  const auto ending = std::string_view(stem).substr(stem.size() - length);
  const auto digits = [](std::string_view text) {
    return std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
  };
  if (ending[0] != '-' || ending.substr(6, 4) != "-of-" || !digits(ending.substr(1, 5)) || !digits(ending.substr(10)))
    return stem;
  if (ending.substr(1, 5) != "00001") return std::nullopt;
  return stem.substr(0, stem.size() - length);
}

// Both ends of a file and places between, so that nobody waits for gigabytes.
void sample(const fs::path& path, std::vector<std::byte>& into) {
  constexpr std::uint64_t piece = 64 << 10, pieces = 16;
  const auto size = static_cast<std::uint64_t>(fs::file_size(path));
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(piece);
  for (std::uint64_t i = 0; i < pieces; ++i) {
    const auto at = size <= piece * pieces ? i * piece : (size - piece) / (pieces - 1) * i;
    if (at >= size) break;
    file.seekg(static_cast<std::streamoff>(at));
    file.read(buffer.data(), static_cast<std::streamsize>(std::min(piece, size - at)));
    const auto* begin = reinterpret_cast<const std::byte*>(buffer.data());
    into.insert(into.end(), begin, begin + file.gcount());
    file.clear();
  }
  for (int shift = 0; shift < 64; shift += 8) into.push_back(static_cast<std::byte>(size >> shift));
}

std::string digest_of(const std::vector<fs::path>& files) {
  std::vector<std::byte> bytes;
  for (const auto& file : files) sample(file, bytes);
  std::string digits;
  for (int i = 0; i < 4; ++i) {
    bytes.push_back(static_cast<std::byte>(i));
    char text[17];
    std::snprintf(text, sizeof text, "%016llx",
                  static_cast<unsigned long long>(checksum_bytes(bytes.data(), bytes.size())));
    digits += text;
  }
  return digits;
}

template <class Files>
void count_weights(const Files& files, StoredModel& model) {
  std::map<std::string, std::uint64_t> bytes;
  for (const auto& file : files) {
    for (const auto& tensor : file.tensors()) {
      model.parameters += static_cast<std::uint64_t>(tensor.shape.count());
      bytes[tensor.dtype_name] += tensor.size_bytes();
    }
  }
  if (bytes.empty()) return;
  model.quantization = std::ranges::max_element(bytes, {}, [](const auto& entry) { return entry.second; })->first;
}

// A folder for what is being made, which goes with all that is still in it.
struct Unfinished {
  explicit Unfinished(fs::path p) : path(std::move(p)) {
    fs::remove_all(path);
    fs::create_directory(path);
  }
  Unfinished(const Unfinished&) = delete;
  ~Unfinished() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  const fs::path path;
};

void check_file_name(const std::string& name) {
  const auto good = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == ':';
  };
  expects(!name.empty() && name.size() <= 200 && std::isalnum(static_cast<unsigned char>(name[0])) != 0 &&
              std::ranges::all_of(name, good) && std::ranges::count(name, ':') <= 1 && !name.ends_with(':'),
          "the name of a model is made of letters, digits, '-', '_' and '.', with a tag behind one ':' perhaps");
}

}  // namespace

std::string StoredModel::parameter_size() const {
  const auto count = static_cast<double>(parameters);
  char text[32];
  if (count >= 1e9)
    std::snprintf(text, sizeof text, "%.1fB", count / 1e9);
  else if (count >= 1e6)
    std::snprintf(text, sizeof text, "%.1fM", count / 1e6);
  else
    std::snprintf(text, sizeof text, "%.1fK", count / 1e3);
  return text;
}

std::string ModelStore::full_name(std::string_view name) {
  const auto slash = name.rfind('/');
  const auto last = slash == std::string_view::npos ? name : name.substr(slash + 1);
  return std::string(name) + (last.find(':') == std::string_view::npos ? ":latest" : "");
}

bool ModelStore::same_name(std::string_view a, std::string_view b) {
  return lower(full_name(a)) == lower(full_name(b));
}

ModelStore::ModelStore(fs::path path, Log log) : path_(std::move(path)), log_(std::move(log)) {
  if (path_.filename().empty()) path_ = path_.parent_path();  // "models/"
  std::error_code ignored;
  if (!fs::exists(path_, ignored)) throw Error(Fault::bad_file, "there is no folder of models at " + path_.string());
  single_ = !fs::is_directory(path_, ignored) || is_folder_model(path_);
  ollama_ = !single_ && is_ollama_store(path_);
}

std::optional<StoredModel> ModelStore::read(const fs::path& path) const {
  const bool folder = fs::is_directory(path);
  const auto stem =
      folder ? fs::absolute(path).lexically_normal().filename().string() : path.filename().stem().string();
  const auto name = folder ? stem : without_part(stem);
  if (!name) return std::nullopt;  // a further part
  const auto written = fs::last_write_time(folder ? path / "config.json" : path);
  const auto time = ollama_ ? std::max(written, fs::last_write_time(path_ / "blobs")) : written;  // parts come and go
  const auto size = folder ? 0 : fs::file_size(path);
  if (const auto at = known_.find(path); at != known_.end() && at->second.time == time && at->second.bytes == size)
    return at->second.model;

  Known known{time, size, std::nullopt};
  try {
    auto model =
        ollama_ ? read_ollama_manifest(path_, path, log_) : StoredModel{.name = full_name(*name), .path = path};
    const auto config = models::ModelConfig::load(model.path);
    const auto files = files_of(model.path);
    if (folder) {
      std::vector<models::SafetensorsFile> weights;
      for (const auto& file : files)
        if (file.extension() == ".safetensors") weights.push_back(models::SafetensorsFile::open(file));
      if (weights.empty()) throw Error(Fault::bad_file, path.string() + " has no safetensors files");
      count_weights(weights, model);
    } else {
      count_weights(models::open_gguf_parts(model.path), model);
    }
    for (const auto& file : files) model.bytes += fs::file_size(file);
    const auto age = fs::file_time_type::clock::now() - written;
    model.modified =
        std::chrono::system_clock::now() - std::chrono::duration_cast<std::chrono::system_clock::duration>(age);
    if (!ollama_) model.digest = digest_of(files);
    model.format = folder ? "safetensors" : "gguf";
    model.family = to_string(config.architecture);
    model.context = config.max_position_embeddings;
    model.is_decoder = config.is_decoder();
    known.model = std::move(model);
  } catch (const std::exception& error) {
    log_.write(LogLevel::warning, path.string() + " is left out: " + error.what());
  }
  return (known_[path] = std::move(known)).model;
}

std::vector<StoredModel> ModelStore::list() const {
  std::lock_guard lock(mutex_);
  std::vector<StoredModel> found;
  const auto take = [&](const fs::path& path) {
    try {
      if (auto model = read(path)) found.push_back(std::move(*model));
    } catch (const fs::filesystem_error&) {  // gone while we looked
    }
  };
  std::error_code error;
  if (single_) {
    if (fs::exists(path_, error)) take(path_);
  } else if (ollama_) {
    for (const auto& manifest : ollama_manifests(path_)) take(manifest);
  } else {
    for (fs::directory_iterator entry(path_, error), end; !error && entry != end; entry.increment(error)) {
      if (entry->path().filename().string().starts_with('.')) continue;
      if (lower(entry->path().extension().string()) == ".gguf" || is_folder_model(entry->path())) take(entry->path());
    }
  }
  std::ranges::sort(found, [](const auto& a, const auto& b) {
    return a.modified != b.modified ? a.modified > b.modified : a.name < b.name;
  });
  return found;
}

std::optional<StoredModel> ModelStore::find(std::string_view name) const {
  for (auto& model : list()) {
    if (same_name(model.name, name)) return std::move(model);
  }
  return std::nullopt;
}

void ModelStore::check_writable(const char* what) const {
  expects(!single_, [&] { return "a server of a single model cannot " + std::string(what) + " it"; });
  expects(!ollama_,
          [&] { return "a store of Ollama's is only read; " + std::string(what) + " its models with Ollama itself"; });
}

void ModelStore::copy(std::string_view source, std::string_view destination) const {
  const auto from = find(source);
  expects(from.has_value(), "model '" + std::string(source) + "' not found");
  check_writable("copy");
  std::string name(destination);
  if (lower(name).ends_with(":latest")) name.resize(name.size() - 7);
  check_file_name(name);
  if (same_name(source, name)) return;
  const bool folder = from->format == "safetensors";
  const auto ending = folder ? 0 : without_part(from->path.filename().stem().string())->size();
  // All of it is made before anything gives way to it, so that a full disk loses nothing and leaves no half of a model.
  const Unfinished made(path_ / ("." + name + ".unfinished"));
  for (const auto& file : files_of(from->path)) {
    const auto to = made.path / (folder ? file.filename().string() : name + file.filename().string().substr(ending));
    std::error_code no_links;
    fs::create_hard_link(fs::canonical(file), to, no_links);
    if (no_links) fs::copy_file(file, to);
  }
  if (find(name)) remove(name);
  if (folder) return fs::rename(made.path, path_ / name);
  for (const auto& file : fs::directory_iterator(made.path)) fs::rename(file, path_ / file.path().filename());
}

void ModelStore::remove(std::string_view name) const {
  const auto model = find(name);
  expects(model.has_value(), "model '" + std::string(name) + "' not found");
  check_writable("delete");
  if (model->format == "safetensors" && !fs::is_symlink(model->path)) {
    fs::remove_all(model->path);
    return;
  }
  if (fs::is_symlink(model->path)) {
    fs::remove(model->path);
    return;
  }
  for (const auto& part : files_of(model->path)) fs::remove(part);
}

}  // namespace troika::serving
