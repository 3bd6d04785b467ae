// SPDX-License-Identifier: Apache-2.0
#include "call_reader.hpp"

#include <algorithm>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace troika::models {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::string_view hermes_end = "</tool_call>";

// Discarded where it is none, or one that no model writes for a call.
OrderedJson parse(std::string_view text) {
  constexpr std::size_t longest = std::size_t{1} << 20;
  constexpr int deepest = 64;
  bool deep = text.size() > longest;
  const auto note = [&](int depth, OrderedJson::parse_event_t, const OrderedJson&) {
    return !(deep = deep || depth > deepest);
  };
  auto json = deep ? OrderedJson(OrderedJson::value_t::discarded) : OrderedJson::parse(text, note, false);
  return deep ? OrderedJson(OrderedJson::value_t::discarded) : json;
}

// Hermes calls without arguments, too: they have their mark.
std::optional<ToolCall> call_of(ToolStyle style, const OrderedJson& json) {
  if (!json.is_object()) return std::nullopt;
  const auto name = json.find("name");
  if (name == json.end() || !name->is_string()) return std::nullopt;
  auto arguments = json.find(style == ToolStyle::llama3 && json.contains("parameters") ? "parameters" : "arguments");
  if (arguments == json.end() && style != ToolStyle::llama3) return ToolCall{*name, "{}"};
  if (arguments == json.end() || !arguments->is_object()) return std::nullopt;
  return ToolCall{*name, arguments->dump()};
}

// Up to the end of the object or array that the text begins with.
std::size_t json_size(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\')
      ++i;
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted && (c == '{' || c == '['))
      ++depth;
    else if (!quoted && (c == '}' || c == ']') && --depth == 0)
      return i + 1;
  }
  return std::string_view::npos;
}

}  // namespace

ReadCalls read_calls(ToolStyle style, std::string_view text) {
  const auto mark = call_mark(style);
  const std::size_t marked = text.starts_with(mark) ? mark.size() : 0;
  const auto begin = std::min(text.find_first_not_of(blanks, marked), text.size());
  std::size_t end = 0, behind = 0;
  if (style == ToolStyle::hermes) {
    end = text.find(hermes_end, begin);
    behind = hermes_end.size();
  } else {
    if (begin == text.size()) return {};
    if (text[begin] != (style == ToolStyle::mistral ? '[' : '{')) return {.size = marked};
    const auto size = json_size(text.substr(begin));
    end = size == std::string_view::npos ? size : begin + size;
  }
  if (end == std::string_view::npos) return {};
  ReadCalls read{.size = end + behind};
  const OrderedJson json = parse(text.substr(begin, end - begin));
  const auto add = [&](const OrderedJson& entry) {
    auto call = call_of(style, entry);
    if (call) read.calls.push_back(std::move(*call));
    return call.has_value();
  };
  const bool all = style == ToolStyle::mistral ? std::ranges::all_of(json, add) : add(json);
  if (!all) read.calls.clear();
  return read;
}

}  // namespace troika::models
