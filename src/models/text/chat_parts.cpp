// SPDX-License-Identifier: Apache-2.0
#include "chat_parts.hpp"

#include "../json.hpp"

namespace troika::models {

std::string spaced(const nlohmann::ordered_json& json) {
  std::string text;
  const auto comma = [&] { text += text.size() > 1 ? ", " : ""; };
  if (json.is_object()) {
    text = "{";
    for (const auto& [key, value] : json.items())
      comma(), text += nlohmann::ordered_json(key).dump() + ": " + spaced(value);
    return text + "}";
  }
  if (json.is_array()) {
    text = "[";
    for (const auto& value : json) comma(), text += spaced(value);
    return text + "]";
  }
  return json.dump();
}

nlohmann::ordered_json parse_tool(std::string_view text) {
  (void)Fields(parse_json(text, "a tool"), "a tool");  // for its bounds: the order is kept by what knows none
  return nlohmann::ordered_json::parse(text);
}

}  // namespace troika::models
