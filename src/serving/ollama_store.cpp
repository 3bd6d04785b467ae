// SPDX-License-Identifier: Apache-2.0
#include "ollama_store.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <iterator>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include "models/json.hpp"
#include "read_file.hpp"

namespace troika::serving {
namespace {

namespace fs = std::filesystem;
using models::bad_file;
using models::Fields;
using models::Json;

constexpr std::size_t most_text = 1 << 20;  // bytes of a manifest, a template, a license
constexpr std::size_t most_layers = 64;

std::string read_small(const fs::path& path) {
  if (fs::file_size(path) > most_text)
    bad_file(path.string() + " has more than " + std::to_string(most_text) + " bytes");
  return read_file(path, most_text);
}

// In 64 hexadecimal digits.
std::string sha256(std::string_view text) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(text.data(), text.size(), hash, &size, EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
  std::string digits;
  for (unsigned i = 0; i < size; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(hash[i]));
    digits += two;
  }
  return digits;
}

// "NAME:TAG"; who else than Ollama made it comes before: "USER/NAME:TAG", "HOST/USER/NAME:TAG".
std::string name_of(const fs::path& store, const fs::path& manifest) {
  std::vector<std::string> parts;
  for (const auto& part : manifest.lexically_relative(store / "manifests")) parts.push_back(part.string());
  for (const auto& part : parts) {
    const auto good = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; };
    if (!std::ranges::all_of(part, good))
      bad_file(models::in_quotes(part) + " is no name of a model, a tag or who made it");
  }
  const auto name = parts[2] + ":" + parts[3];
  if (parts[0] != "registry.ollama.ai") return parts[0] + "/" + parts[1] + "/" + name;
  return parts[1] == "library" ? name : parts[1] + "/" + name;
}

// The file of a layer, which has the size that the manifest says.
fs::path blob_of(const fs::path& store, const Fields& layer) {
  const auto digest = layer.string("digest");
  constexpr std::string_view kind = "sha256:";
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (!digest.starts_with(kind) || digest.size() != kind.size() + 64 ||
      !std::all_of(digest.begin() + kind.size(), digest.end(), is_hex))
    layer.fail("digest", "is \"sha256:\" and 64 hexadecimal digits, not " + models::in_quotes(digest));
  auto path = store / "blobs" / ("sha256-" + digest.substr(kind.size()));
  std::error_code error;
  if (!fs::is_regular_file(path, error)) layer.fail("digest", "names a blob that is not there: " + path.string());
  const auto size = static_cast<std::uint64_t>(layer.integer("size", 0, std::int64_t{1} << 60));
  if (fs::file_size(path) != size) {
    layer.fail("size", "is " + std::to_string(size) + ", but " + path.string() + " has " +
                           std::to_string(fs::file_size(path)) + " bytes");
  }
  return path;
}

bool is_number(const Json& value) { return value.is_number(); }
bool is_list_of_strings(const Json& value) {
  return value.is_array() && std::ranges::all_of(value, [](const Json& one) { return one.is_string(); });
}

// Those parameters that requests may have, too.
std::string known_options(const Json& all, const fs::path& origin, const std::string& model, const Log& log) {
  constexpr std::string_view numbers[] = {
      "num_ctx",       "num_predict",      "temperature",      "top_k", "top_p", "min_p", "seed", "repeat_penalty",
      "repeat_last_n", "presence_penalty", "frequency_penalty"};
  if (!all.is_object()) bad_file(origin.string() + " must be a JSON object, not " + models::shown(all));
  Json known = Json::object();
  for (const auto& [key, value] : all.items()) {
    if (key == "stop" ? is_list_of_strings(value)
                      : std::ranges::find(numbers, key) != std::end(numbers) && is_number(value))
      known[key] = value;
    else
      log.write(LogLevel::info,
                model + ": the parameter " + models::in_quotes(key) + " of " + models::shown(value) + " is not heeded");
  }
  return known.empty() ? std::string() : known.dump();
}

}  // namespace

bool is_ollama_store(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder / "manifests", ignored) && fs::is_directory(folder / "blobs", ignored);
}

std::vector<fs::path> ollama_manifests(const fs::path& store) {
  std::vector<fs::path> found;
  std::error_code error;
  const auto options = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator entry(store / "manifests", options, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().filename().string().starts_with('.')) {
      entry.disable_recursion_pending();
    } else if (entry.depth() == 3) {
      entry.disable_recursion_pending();
      if (std::error_code ignored; entry->is_regular_file(ignored)) found.push_back(entry->path());
    }
  }
  return found;
}

StoredModel read_ollama_manifest(const fs::path& store, const fs::path& manifest, const Log& log) {
  const auto text = read_small(manifest);
  const auto origin = manifest.string();
  const Json json = models::parse_json(text, origin);
  const Fields fields(json, origin);
  StoredModel model{.name = name_of(store, manifest), .path = {}};
  model.digest = sha256(text);
  const Json& layers = fields.array("layers");
  if (layers.size() > most_layers)
    fields.fail("layers", "has " + std::to_string(layers.size()) + " of them; up to " + std::to_string(most_layers) +
                              " are read");
  for (const Json& entry : layers) {
    const Fields layer(entry, origin + ": a layer");
    const auto type = layer.string("mediaType");
    constexpr std::string_view ours = "application/vnd.ollama.image.";
    const auto kind = type.starts_with(ours) ? type.substr(ours.size()) : std::string();
    if (kind == "model") {
      if (!model.path.empty()) fields.fail("layers", "has several files of a model; troika reads one");
      model.path = blob_of(store, layer);
    } else if (kind == "template" || kind == "prompt") {
      model.template_text = read_small(blob_of(store, layer));
    } else if (kind == "system") {
      model.system = read_small(blob_of(store, layer));
    } else if (kind == "license") {
      if (!model.license.empty()) model.license += '\n';
      model.license += read_small(blob_of(store, layer));
    } else if (kind == "params") {
      const auto blob = blob_of(store, layer);
      model.options = known_options(models::parse_json(read_small(blob), blob.string()), blob, model.name, log);
    } else if (kind == "adapter") {
      fields.fail("layers", "has an adapter, which troika does not add to a model");
    } else {
      log.write(LogLevel::info, model.name + ": the layer " + models::in_quotes(type) + " is not heeded");
    }
  }
  if (model.path.empty()) fields.fail("layers", "has no file of a model (application/vnd.ollama.image.model)");
  return model;
}

}  // namespace troika::serving
