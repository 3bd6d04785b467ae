// SPDX-License-Identifier: Apache-2.0
#include "models_api.hpp"

#include <algorithm>
#include <limits>

#include <troika/core/error.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/gguf.hpp>
#include <troika/models/text/chat.hpp>

#include "read_file.hpp"

namespace troika::serving {
namespace {

Json details_of(const StoredModel& model) {
  return {{"parent_model", ""},
          {"format", model.format},
          {"family", model.family},
          {"families", {model.family}},
          {"parameter_size", model.parameter_size()},
          {"quantization_level", model.quantization}};
}

Json value_of(const models::GgufMetadata& metadata, const models::GgufMetadata::Entry& entry, bool verbose) {
  using models::GgufType;
  constexpr auto low = std::numeric_limits<std::int64_t>::min(), high = std::numeric_limits<std::int64_t>::max();
  try {
    if (entry.is_array) {
      if (entry.count > 5 && !verbose) return nullptr;
      switch (entry.type) {
        case GgufType::string: return metadata.strings(entry.key);
        case GgufType::f32: return metadata.floats(entry.key);
        default: return metadata.integers(entry.key, low, high);
      }
    }
    switch (entry.type) {
      case GgufType::string: return std::string(metadata.string(entry.key));
      case GgufType::boolean: return metadata.boolean(entry.key, false);
      case GgufType::f32:
      case GgufType::f64: return metadata.number(entry.key, -1e300, 1e300);
      default: return metadata.integer(entry.key, low, high);
    }
  } catch (const Error&) {  // a value of a kind that nothing here reads
    return nullptr;
  }
}

// Of config.json, under the names that GGUF files have.
Json info_of_folder(const StoredModel& model) {
  const auto config = models::ModelConfig::load(model.path);
  const auto& family = model.family;
  return {{"general.architecture", family},
          {"general.parameter_count", model.parameters},
          {family + ".context_length", config.max_position_embeddings},
          {family + ".embedding_length", config.hidden_size},
          {family + ".block_count", config.layers},
          {family + ".feed_forward_length", config.intermediate_size},
          {family + ".attention.head_count", config.heads},
          {family + ".attention.head_count_kv", config.kv_heads},
          {family + ".vocab_size", config.vocab_size}};
}

std::string template_of_folder(const std::filesystem::path& folder) {
  if (auto text = read_file(folder / "chat_template.jinja", 1 << 20); !text.empty()) return text;
  const auto text = read_file(folder / "tokenizer_config.json", 64 << 20);
  if (text.empty()) return {};
  const Json json = models::parse_json(text, "tokenizer_config.json");
  const auto at = json.find("chat_template");
  return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
}

Json capabilities_of(const StoredModel& model, const std::string& chat_template) {
  if (!model.is_decoder) return Json::array({"embedding"});
  Json capabilities = Json::array({"completion"});
  try {
    const auto chat = models::ChatTemplate::recognise(chat_template, "", "");
    if (chat.takes_tools()) capabilities.push_back("tools");
    if (chat.thinks()) capabilities.push_back("thinking");
  } catch (const Error&) {  // no template, or none that is known
  }
  return capabilities;
}

// As Ollama shows them: a line each.
std::string parameter_lines(const StoredModel& model) {
  if (model.options.empty()) return {};
  std::string text;
  const Json all = Json::parse(model.options);
  const auto line = [&](std::string key, const Json& value) {
    key.resize(std::max<std::size_t>(key.size() + 1, 31), ' ');
    text += (text.empty() ? "" : "\n") + key + value.dump();
  };
  for (const auto& [key, value] : all.items()) {
    if (!value.is_array())
      line(key, value);
    else
      for (const Json& one : value) line(key, one);
  }
  return text;
}

Json openai_entry(const StoredModel& model) {
  return {{"id", model.name},
          {"object", "model"},
          {"created", std::chrono::system_clock::to_time_t(model.modified)},
          {"owned_by", "library"}};
}

}  // namespace

StoredModel find_model(const ModelStore& store, const std::string& name) {
  auto model = store.find(name);
  if (!model) throw Refusal(404, "model '" + name + "' not found");
  return *model;
}

void check_writes(const StoredModel& model, const std::string& wanted) {
  if (model.is_decoder) return;
  throw Refusal(400,
                "\"" + model.name + "\" does not support " + wanted + ": it embeds texts (/api/embed, /v1/embeddings)");
}

void check_embeds(const ModelStore& store, const StoredModel& model) {
  if (!model.is_decoder) return;
  std::string others;
  for (const auto& other : store.list()) {
    if (!other.is_decoder) others += (others.empty() ? "; models here that do: " : ", ") + other.name;
  }
  throw Refusal(400, "\"" + model.name + "\" does not support embeddings: it writes texts" +
                         (others.empty() ? "; no model here embeds" : others));
}

Json list_models(const ModelStore& store) {
  Json list = Json::array();
  for (const auto& model : store.list()) {
    list.push_back({{"name", model.name},
                    {"model", model.name},
                    {"modified_at", rfc3339(model.modified)},
                    {"size", model.bytes},
                    {"digest", model.digest},
                    {"details", details_of(model)}});
  }
  return {{"models", std::move(list)}};
}

Json show_model(const ModelStore& store, const std::string& body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  const auto model = find_model(store, model_name(fields));
  const bool verbose = fields.boolean("verbose", false);
  Json info = Json::object();
  std::string text, license;
  if (model.format == "gguf") {
    const auto file = models::GgufFile::open(model.path);
    const auto& metadata = file.metadata();
    for (std::size_t i = 0; i < metadata.size(); ++i)
      info[std::string(metadata[i].key)] = value_of(metadata, metadata[i], verbose);
    info["general.parameter_count"] = model.parameters;
    text = metadata.string("tokenizer.chat_template", "");
    license = metadata.string("general.license", "");
  } else {
    info = info_of_folder(model);
    text = template_of_folder(model.path);
    for (const char* name : {"LICENSE", "LICENSE.txt", "LICENSE.md"})
      if (license.empty()) license = read_file(model.path / name, 1 << 20);
  }
  auto capabilities = capabilities_of(model, text);
  if (!model.template_text.empty()) text = model.template_text;
  if (!model.license.empty()) license = model.license;
  return {{"modelfile", "# Served by troika\nFROM " + model.path.string() + "\n"},
          {"parameters", parameter_lines(model)},
          {"template", text},
          {"system", model.system},
          {"license", license},
          {"details", details_of(model)},
          {"model_info", std::move(info)},
          {"capabilities", std::move(capabilities)},
          {"modified_at", rfc3339(model.modified)}};
}

Json loaded_models(const ModelHost& host) {
  Json list = Json::array();
  for (const auto& model : host.loaded()) {
    Json groups = Json::array();
    for (const auto& group : model.place.groups) {
      groups.push_back({{"group", group.name},
                        {"devices", group.devices},
                        {"ready", group.ready},
                        {"requests", group.queued},
                        {"tokens_per_second", group.speed}});
    }
    list.push_back({{"name", model.stored.name},
                    {"model", model.stored.name},
                    {"size", model.load.memory_bytes},
                    {"size_vram", model.load.gpu_bytes},
                    {"digest", model.stored.digest},
                    {"details", details_of(model.stored)},
                    {"expires_at", rfc3339(model.expires)},
                    {"context_length", model.context},
                    {"devices", model.load.devices},
                    {"groups", std::move(groups)},
                    {"allocation", model.place.allocation},
                    {"reason", model.place.reason},
                    {"running", model.load.running},
                    {"waiting", model.load.waiting}});
  }
  return {{"models", std::move(list)}};
}

void copy_model(const ModelStore& store, const std::string& body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  const auto source = fields.string("source"), destination = fields.string("destination");
  find_model(store, source);
  store.copy(source, destination);
}

void delete_model(const ModelStore& store, ModelHost& host, const std::string& body) {
  const Json json = parse_body(body);
  const auto name = model_name(Fields(json, "the request"));
  find_model(store, name);
  store.remove(name);
  host.unload(name);
}

Json openai_model(const ModelStore& store, const std::string& id) { return openai_entry(find_model(store, id)); }

Json openai_models(const ModelStore& store) {
  Json list = Json::array();
  for (const auto& model : store.list()) list.push_back(openai_entry(model));
  return {{"object", "list"}, {"data", std::move(list)}};
}

}  // namespace troika::serving
