// SPDX-License-Identifier: Apache-2.0
#include "tools.hpp"

#include <algorithm>

#include "in_order.hpp"
#include "models/text/chat_parts.hpp"

namespace troika::serving {
std::vector<std::string> read_tools(const Fields& fields, std::string_view body) {
  bool wanted = true;
  if (const Json* choice = fields.find("tool_choice")) {
    wanted = *choice != "none";
    if (wanted && *choice != "auto")
      throw Refusal(400, "tool_choice may be \"auto\" or \"none\", not " + models::shown(*choice));
  }
  if (!fields.has("tools") || fields.array("tools").empty() || !wanted) return {};
  for (const Json& tool : fields.array("tools")) {
    const Fields entry(tool, "a tool");
    if (entry.string("type", "function") != "function") entry.fail("type", "must be \"function\"");
    if (entry.object("function").string("name").empty()) entry.fail("function", "must have a name");
  }
  std::vector<std::string> tools;
  for (const auto& tool : in_order(fields, body, "tools")) tools.push_back(models::spaced(tool));
  return tools;
}

void read_calls(const Fields& fields, std::string_view body, std::vector<models::ChatMessage>& messages) {
  const auto& list = fields.array("messages");
  for (std::size_t i = 0; i < messages.size(); ++i)
    messages[i].tool_call_id = Fields(list[i], "a message").string("tool_call_id", "");
  const auto calls = [](const Json& message) {
    return message.contains("tool_calls") && !message["tool_calls"].empty();
  };
  if (std::ranges::none_of(list, calls)) return;
  const Ordered ordered = in_order(fields, body, "messages");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!calls(list[i])) continue;
    const Fields message(list[i], "a message");
    const auto& entries = message.array("tool_calls");
    for (std::size_t call = 0; call < entries.size(); ++call) {
      const Fields entry(entries[call], "a call of a tool");
      const Fields function = entry.object("function");
      const auto name = function.string("name");
      Ordered arguments = Ordered::object();
      if (const Json* given = function.find("arguments")) {
        arguments = ordered[i]["tool_calls"][call]["function"]["arguments"];
        if (given->is_string())  // OpenAI's are JSON within a string
          arguments = in_order(given->get_ref<const std::string&>(), "the arguments of a call");
        if (!arguments.is_object()) function.fail("arguments", "must be an object");
      }
      messages[i].tool_calls.push_back({name, models::spaced(arguments), entry.string("id", "")});
    }
  }
}

}  // namespace troika::serving
