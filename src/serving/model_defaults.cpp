// SPDX-License-Identifier: Apache-2.0
#include "model_defaults.hpp"

#include <string_view>
#include <utility>

#include "text_request.hpp"

namespace troika::serving {
namespace {

// Options of Ollama's that /v1 has too, and their names there.
constexpr std::pair<std::string_view, std::string_view> openai_names[] = {{"stop", "stop"},
                                                                          {"top_k", "top_k"},
                                                                          {"min_p", "min_p"},
                                                                          {"seed", "seed"},
                                                                          {"num_predict", "max_tokens"},
                                                                          {"repeat_penalty", "repetition_penalty"},
                                                                          {"presence_penalty", "presence_penalty"},
                                                                          {"frequency_penalty", "frequency_penalty"}};

void add(Json& object, const std::string& key, const Json& value) {
  if (const auto found = object.find(key); found == object.end() || found->is_null()) object[key] = value;
}

void add_system(Json& request, const std::string& system) {
  if (const auto messages = request.find("messages"); messages != request.end()) {
    if (!messages->is_array() || messages->empty() || !(*messages)[0].is_object()) return;
    const auto role = (*messages)[0].value("role", Json());
    if (role != "system" && role != "developer")
      messages->insert(messages->begin(), Json{{"role", "system"}, {"content", system}});
  } else if (request.contains("prompt") && !(request.contains("raw") && request["raw"] == true)) {
    if (auto& own = request["system"]; own.is_null() || own == "") own = system;
  }
}

}  // namespace

std::string with_model_defaults(const ModelStore& store, const std::string& target, const std::string& body) {
  if (!store.is_ollama()) return body;
  try {
    Json request = parse_body(body);
    const auto model = store.find(model_name(Fields(request, "the request")));
    if (!model || (model->options.empty() && model->system.empty())) return body;
    const bool openai = target.starts_with("/v1/");
    if (!model->system.empty() && !target.starts_with("/v1/completions")) add_system(request, model->system);
    if (!model->options.empty()) {
      const Json options = Json::parse(model->options);
      if (!openai) {
        auto& own = request["options"];
        if (own.is_null()) own = Json::object();
        if (!own.is_object()) return body;
        for (const auto& [key, value] : options.items()) add(own, key, value);
      } else {
        for (const auto& [key, name] : openai_names) {
          const auto value = options.find(key);
          const bool no_limit = key == "num_predict" && value != options.end() && *value <= 0;
          const bool limited = key == "num_predict" && request.contains("max_completion_tokens");
          if (value != options.end() && !no_limit && !limited) add(request, std::string(name), *value);
        }
      }
    }
    return dump(request);
  } catch (const Error&) {
  } catch (const Refusal&) {
  }
  return body;
}

}  // namespace troika::serving
