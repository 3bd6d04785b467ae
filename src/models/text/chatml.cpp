// SPDX-License-Identifier: Apache-2.0
//
// ChatML, with the tools of Hermes, Qwen2.5 and Qwen3, and the thoughts of Qwen3 and others.
#include <troika/core/error.hpp>
#include <troika/models/text/chat.hpp>

#include <tuple>
#include <utility>

#include "hermes.hpp"

namespace troika::models {
namespace {

constexpr std::string_view think_begin = "<think>", think_end = "</think>";

std::string_view without_lines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

// An answer without its thoughts, and the thoughts: they may be a part of what a client took for the content.
std::pair<std::string_view, std::string_view> apart(const ChatMessage& message) {
  const std::string_view content = message.content;
  const auto end = content.rfind(think_end);
  if (!message.thinking.empty() || end == std::string_view::npos) return {content, message.thinking};
  auto thinking = content.substr(0, content.find(think_end));
  if (const auto begin = thinking.rfind(think_begin); begin != std::string_view::npos)
    thinking.remove_prefix(begin + think_begin.size());
  return {without_lines(content.substr(end + think_end.size()), true, false), without_lines(thinking, true, true)};
}

void add_calls(std::string& text, const ChatMessage& message, bool first) {
  for (const auto& call : message.tool_calls) {
    if (!first) text += "\n";
    text += "<tool_call>\n{\"name\": \"" + call.name + "\", \"arguments\": " + call.arguments + "}\n</tool_call>";
    first = false;
  }
}

}  // namespace

std::string ChatTemplate::chatml(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  // Thoughts belong to the answer that they led to: those after the last question would be kept.
  expects(!strip_thoughts_ || messages.back().role != "assistant",
          "this model's template keeps thoughts apart from answers, so a conversation cannot end with an answer");
  std::string text = bos_;
  const bool has_system = messages[0].role == "system";
  std::string system = has_system ? messages[0].content : default_system_;
  if (!options.tools.empty()) {
    if (has_system || !system.empty()) system += "\n\n";
    system += hermes_tools;
    for (const auto& tool : options.tools) system += "\n" + tool;
    system +=
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
        "<args-json-object>}\n</tool_call>";
  }
  if (has_system || !system.empty()) text += "<|im_start|>system\n" + system + "<|im_end|>\n";
  if (has_system) messages = messages.subspan(1);

  std::size_t last_question = 0;
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (messages[i].role == "user") last_question = i;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    if (message.role == "tool") {  // those in a row are one message
      if (i == 0 || messages[i - 1].role != "tool") text += "<|im_start|>user";
      text += "\n<tool_response>\n" + message.content + "\n</tool_response>";
      if (i + 1 == messages.size() || messages[i + 1].role != "tool") text += "<|im_end|>\n";
      continue;
    }
    text += "<|im_start|>" + message.role + "\n";
    std::string_view content = message.content;
    if (message.role == "assistant" && strip_thoughts_) {
      std::string_view thinking;
      std::tie(content, thinking) = apart(message);
      if (i > last_question && !thinking.empty()) {
        text += "<think>\n" + std::string(without_lines(thinking, true, true)) + "\n</think>\n\n";
        content = without_lines(content, true, false);
      }
    }
    text += content;
    add_calls(text, message, content.empty());
    text += "<|im_end|>\n";
  }
  if (!options.add_generation_prompt) return text;
  text += "<|im_start|>assistant\n";
  if (!options.think && may_not_think_) text += "<think>\n\n</think>\n\n";
  return text;
}

}  // namespace troika::models
