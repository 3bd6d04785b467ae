// SPDX-License-Identifier: Apache-2.0
//
// Mistral, with the tools that it has since its third tokenizer.
#include <troika/core/error.hpp>
#include <troika/models/text/chat.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include "chat_parts.hpp"

namespace troika::models {
namespace {

// Calls have ids of 9 letters and digits here, by which results name them. A call whose id is another, or that has
// none, gets its number in the conversation.
class CallIds {
 public:
  std::string of_call(const ToolCall& call) {
    constexpr std::size_t length = 9;
    const auto number = std::to_string(++calls_);
    const bool fits = call.id.size() == length && std::ranges::all_of(call.id, [](char c) {
                        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                      });
    auto id = fits ? call.id : std::string(length - std::min(number.size(), length), '0') + number;
    open_.emplace_back(call.id, id);
    return id;
  }
  std::string of_result(const ChatMessage& message) {
    expects(!open_.empty(), "there is an answer of a tool more than calls before it");
    auto at = std::ranges::find(open_, message.tool_call_id, &std::pair<std::string, std::string>::first);
    if (at == open_.end()) at = open_.begin();
    auto id = std::move(at->second);
    open_.erase(at);
    return id;
  }

 private:
  std::size_t calls_ = 0;
  std::vector<std::pair<std::string, std::string>>
      open_;  // without a result: as the client calls it, and as it is here
};

// The template puts strings in quotes as they are.
std::string described(const std::vector<std::string>& tools) {
  std::string text;
  for (const auto& tool : tools) {
    text += text.empty() ? "" : ", ";
    text += "{\"type\": \"function\", \"function\": {";
    bool first = true;
    const auto json = parse_tool(tool);
    const auto function = json.find("function");
    expects(function != json.end() && function->is_object(), "a tool has a member 'function', an object");
    for (const auto& [key, value] : function->items()) {
      if (key == "return") continue;
      if (!std::exchange(first, false)) text += ", ";
      text += "\"" + key + "\": " + (value.is_string() ? "\"" + value.get<std::string>() + "\"" : spaced(value));
    }
    text += "}}";
  }
  return text;
}

}  // namespace

std::string ChatTemplate::mistral(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  const auto system = take_system(messages);
  std::string text = bos_, tools, question;  // the last one, before which the tools stand
  if (!options.tools.empty())
    tools = "[AVAILABLE_TOOLS]" + gap_ + "[" + described(options.tools) + "][/AVAILABLE_TOOLS]";
  for (const auto& message : messages)
    if (message.role == "user") question = message.content;
  CallIds ids;
  std::size_t turns = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    const auto& content = message.content;
    if (message.role == "tool") {
      text += "[TOOL_RESULTS]" + gap_ + "{\"content\": " + content + ", \"call_id\": \"" + ids.of_result(message) +
              "\"}[/TOOL_RESULTS]";
    } else if (!message.tool_calls.empty()) {
      text += "[TOOL_CALLS]" + gap_;
      for (const auto& call : message.tool_calls) {
        text += std::string(&call == message.tool_calls.data() ? "[" : ", ") + "{\"name\": \"" + call.name +
                "\", \"arguments\": " + call.arguments + ", \"id\": \"" + ids.of_call(call) + "\"}";
      }
      text += "]" + eos_;
    } else if (check_alternation(message, turns++); message.role == "user") {
      const bool here = system_ == System::last ? i + 1 == messages.size() : i == 0;
      text += (content == question ? tools : "") + open_ + (here ? system : "") + content + close_;
    } else {
      text += before_ + (trim_ ? trimmed(content) : content) + eos_ + after_;
    }
  }
  return text;
}

}  // namespace troika::models
