// SPDX-License-Identifier: Apache-2.0
//
// Llama 3, with the tools of Llama 3.1 to 3.3.
#include <troika/core/error.hpp>
#include <troika/models/text/chat.hpp>

#include "chat_parts.hpp"

namespace troika::models {

std::string ChatTemplate::llama3(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  std::string text = bos_;
  const auto header = [](const std::string& role) { return "<|start_header_id|>" + role + "<|end_header_id|>\n\n"; };
  const auto add = [&](const std::string& role, const std::string& content) {
    text += header(role) + content + "<|eot_id|>";
  };
  if (!system_prefix_.empty()) {
    const bool given = messages[0].role == "system";
    add("system", (options.tools.empty() ? "" : "Environment: ipython\n") + system_prefix_ +
                      (given ? trimmed(messages[0].content) : ""));
    if (given) messages = messages.subspan(1);
  }
  std::string tools;  // before the first question
  if (!options.tools.empty()) {
    expects(!messages.empty() && messages[0].role == "user",
            "this model's template has its tools in the first question, so a conversation begins with one");
    tools =
        "Given the following functions, please respond with a JSON for a function call with its proper arguments that "
        "best answers the given prompt.\n\nRespond in the format {\"name\": function name, \"parameters\": dictionary "
        "of argument name and its value}.";
    tools += llama3_tools_end;
    for (const auto& tool : options.tools) tools += parse_tool(tool).dump(4) + "\n\n";
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    // The template takes one call a message, and drops what was said beside it.
    for (const auto& call : message.tool_calls)
      add("assistant", "{\"name\": \"" + call.name + "\", \"parameters\": " + call.arguments + "}");
    if (!message.tool_calls.empty()) continue;
    if (message.role == "tool")
      add("ipython", nlohmann::json(message.content).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    else
      add(message.role, (i == 0 ? tools : "") + trimmed(message.content));
  }
  return options.add_generation_prompt ? text + header("assistant") : text;
}

}  // namespace troika::models
