// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/chat.hpp>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>

#include <troika/models/files/gguf.hpp>

#include "../json.hpp"
#include "chat_parts.hpp"
#include "hermes.hpp"
#include "unicode.hpp"

namespace troika::models {
namespace {

constexpr std::size_t max_template_bytes = std::size_t{1} << 20;

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

[[noreturn]] void unknown(const std::string& origin) {
  unsupported(origin +
              " is not one that troika knows; known are those of the families llama3, chatml, mistral, gemma, phi3");
}

// Templates quote strings in either way.
std::string single_quoted(std::string_view text) {
  std::string out(text);
  std::ranges::replace(out, '"', '\'');
  return out;
}

// The one of these that the text has; none when it has several or none.
template <std::size_t N>
std::optional<std::string> only(std::string_view text, const std::array<std::string_view, N>& candidates) {
  std::optional<std::string> found;
  for (const auto candidate : candidates) {
    if (!has(text, "'" + std::string(candidate) + "'")) continue;
    if (found) return std::nullopt;
    found = candidate;
  }
  return found;
}

// A line end in a string of a template may be spelled \n.
std::string with_line_ends(std::string text) {
  for (auto at = text.find("\\n"); at != std::string::npos; at = text.find("\\n", at + 1)) text.replace(at, 2, "\n");
  return text;
}

// What a template writes between "<|im_start|>system\n" and "<|im_end|>" within one string: the system message of a
// conversation without one. Line ends may be spelled \n in it.
std::string default_system_of(std::string_view text) {
  constexpr std::string_view begin = "<|im_start|>system";
  for (auto at = text.find(begin); at != std::string_view::npos; at = text.find(begin, at + 1)) {
    auto rest = text.substr(at + begin.size());
    if (!rest.starts_with("\\n") && !rest.starts_with('\n')) continue;
    rest.remove_prefix(rest[0] == '\n' ? 1 : 2);
    const auto end = rest.find("<|im_end|>"), quote = rest.find_first_of("'\"");
    if (end == 0 || end == std::string_view::npos || quote < end) continue;
    return with_line_ends(std::string(rest.substr(0, end)));
  }
  return {};
}

void check(const ChatMessage& message, std::size_t at, bool tools) {
  const bool known = message.role == "user" || message.role == "assistant" || (message.role == "system" && at == 0) ||
                     (message.role == "tool" && tools);
  expects(known, [&] {
    return "message " + std::to_string(at) + " has the role " + in_quotes(message.role) +
           "; valid are user and assistant" + (tools ? ", tool" : "") + ", and system for the first";
  });
  expects(tools || message.tool_calls.empty(), "this model's template has no place for calls of tools");
}

std::string token_of(const Fields& config, const char* key) {
  const Json* token = config.find(key);
  if (token == nullptr) return {};
  return token->is_object() ? config.object(key).string("content") : config.string(key);
}

std::string read_text(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  if (file.size() > max_template_bytes)
    bad_file(path.string() + " has more than " + std::to_string(max_template_bytes) + " bytes");
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

std::string gguf_token(const GgufMetadata& metadata, const char* key) {
  const auto tokens = metadata.strings("tokenizer.ggml.tokens");
  const auto id = metadata.contains(key) ? metadata.integer(key, 0, std::ssize(tokens) - 1) : -1;
  return id < 0 ? std::string() : std::string(tokens[static_cast<std::size_t>(id)]);
}

}  // namespace

std::string trimmed(const std::string& text) { return std::string(unicode::strip(text, true, true)); }

void check_alternation(const ChatMessage& message, std::size_t at) {
  expects(message.role == (at % 2 == 0 ? "user" : "assistant"), [&] {
    return "message " + std::to_string(at) + " after the system's is the " + message.role +
           "'s; this family alternates user and assistant";
  });
}

ChatTemplate ChatTemplate::load(const std::filesystem::path& path) {
  if (is_gguf_path(path)) {
    const auto parts = open_gguf_parts(path);
    const auto& metadata = parts[0].metadata();
    constexpr const char* key = "tokenizer.chat_template";
    const auto text = metadata.string(key);
    return recognise(text, gguf_token(metadata, "tokenizer.ggml.bos_token_id"),
                     gguf_token(metadata, "tokenizer.ggml.eos_token_id"),
                     metadata.origin() + ": the key " + in_quotes(key));
  }
  const auto file = path / "chat_template.jinja", list = path / "tokenizer_config.json";
  if (!is_there(list))
    bad_file(path.string() + " has no tokenizer_config.json, which has the chat template and its tokens");
  const Json document = read_json(list, std::size_t{16} << 20);
  const Fields config(document, list.string());
  const bool apart = is_there(file);
  const auto text = apart ? read_text(file) : config.string("chat_template");
  return recognise(text, token_of(config, "bos_token"), token_of(config, "eos_token"),
                   apart ? file.string() : list.string() + ": chat_template");
}

ChatTemplate ChatTemplate::recognise(std::string_view text, std::string bos, std::string eos,
                                     const std::string& origin) {
  ChatTemplate chat;
  chat.bos_ = has(text, "bos_token") ? std::move(bos) : std::string();
  chat.eos_ = std::move(eos);
  if (has(text, "<|start_header_id|>") && has(text, "<|end_header_id|>") && has(text, "<|eot_id|>")) {
    chat.family_ = ChatFamily::llama3;
    if (has(text, "Cutting Knowledge Date")) {
      // The date is the one that these templates have where nobody gives them another.
      if (!has(text, "26 Jul 2024") || !has(text, "December 2023")) unknown(origin);
      chat.system_prefix_ = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
      if (has(text, "Environment: ipython") && has(with_line_ends(std::string(text)), llama3_tools_end))
        chat.tools_ = ToolStyle::llama3;
    }
  } else if (has(text, "<|im_start|>") && has(text, "<|im_end|>") && !has(text, "<|im_sep|>")) {
    chat.family_ = ChatFamily::chatml;
    chat.default_system_ = default_system_of(text);
    chat.strip_thoughts_ = has(text, "</think>");
    chat.may_not_think_ = has(text, "enable_thinking");
    if (has(with_line_ends(std::string(text)), hermes_tools) && has(text, "<tool_response>"))
      chat.tools_ = ToolStyle::hermes;
  } else if (has(text, "[INST]") && !has(text, "<<SYS>>") && !has(text, "[SYSTEM_PROMPT]")) {
    chat.family_ = ChatFamily::mistral;
    chat.recognise_mistral(text, origin);
  } else if (has(text, "<start_of_turn>") && has(text, "<end_of_turn>") &&
             (has(text, "| trim") || has(text, "|trim"))) {
    chat.family_ = ChatFamily::gemma;
    if (has(text, "first_user_prefix")) chat.system_ = System::first;
  } else if (has(text, "<|end|>") && has(text, "<|assistant|>") && !has(text, "<|channel|>")) {
    chat.family_ = ChatFamily::phi3;
    chat.recognise_phi3(text, origin);
  } else {
    unknown(origin);
  }
  return chat;
}

void ChatTemplate::recognise_phi3(std::string_view text, const std::string& origin) {
  const auto quoted = with_line_ends(single_quoted(text));
  question_opens_ = has(quoted, "'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'");
  const bool with_lines = question_opens_ || has(quoted, "'<|user|>\n' + message['content'] + '<|end|>\n'");
  if (!with_lines && !has(quoted, "'<|' + message['role'] + '|>' + message['content'] + '<|end|>'")) unknown(origin);
  line_end_ = with_lines ? "\n" : "";
  skip_empty_system_ = has(quoted, "'system' and message['content'] %}");
  if (has(quoted, "{% else %}{{ eos_token }}")) end_ = eos_;
}

void ChatTemplate::recognise_mistral(std::string_view text, const std::string& origin) {
  const auto quoted = single_quoted(text);
  const auto open = only(quoted, std::array<std::string_view, 4>{"[INST] ", "[INST]", " [INST] ", " [INST]"});
  const auto close = only(quoted, std::array<std::string_view, 2>{" [/INST]", "[/INST]"});
  if (!open || !close) unknown(origin);
  open_ = *open;
  close_ = *close;

  struct Answer {
    std::string_view text, before, after;
    bool trim;
  };
  constexpr Answer answers[] = {{"' ' + message['content'] + eos_token", " ", "", false},
                                {"' ' + message['content']|trim + eos_token", " ", "", true},
                                {"message['content'] + eos_token + ' '", "", " ", false},
                                {"message['content']|trim + eos_token", "", "", true},
                                {"message['content'] + eos_token", "", "", false}};
  const auto* answer = std::ranges::find_if(answers, [&](const Answer& a) { return has(quoted, a.text); });
  if (answer == std::end(answers)) unknown(origin);
  before_ = answer->before;
  after_ = answer->after;
  trim_ = answer->trim;
  if (has(quoted, "loop.last and system_message"))
    system_ = System::last;
  else if (has(quoted, "loop.first and system_message"))
    system_ = System::first;

  for (const std::string gap : {" ", ""}) {
    const bool known = std::ranges::all_of(
        std::array{"'[AVAILABLE_TOOLS]" + gap + "['", "'[TOOL_CALLS]" + gap + "['",
                   "'[TOOL_RESULTS]" + gap + "{'content': '", "'" + open_ + "' + message['content'] + '" + close_ + "'",
                   std::string("== user_messages[-1]"), std::string("if key != 'return'"), std::string("out[:-1]")},
        [&](const std::string& part) { return has(quoted, part); });
    if (!known) continue;
    tools_ = ToolStyle::mistral;
    gap_ = gap;
  }
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  expects(!messages.empty(), "a conversation has at least one message");
  expects(takes_tools() || options.tools.empty(), "this model's template has no place for tools");
  for (std::size_t i = 0; i < messages.size(); ++i) check(messages[i], i, takes_tools());
  const bool add_generation_prompt = options.add_generation_prompt;
  switch (family_) {
    case ChatFamily::llama3: return llama3(messages, options);
    case ChatFamily::mistral: return mistral(messages, options);
    case ChatFamily::gemma: return gemma(messages, add_generation_prompt);
    case ChatFamily::phi3: return phi3(messages, add_generation_prompt);
    case ChatFamily::chatml: break;
  }
  return chatml(messages, options);
}

std::string ChatTemplate::take_system(std::span<const ChatMessage>& messages) const {
  if (messages[0].role != "system") return {};
  expects(system_ != System::none, "this model's template has no place for a system message");
  auto system = messages[0].content + "\n\n";
  messages = messages.subspan(1);
  return system;
}

std::string ChatTemplate::gemma(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  const auto system = take_system(messages);
  std::string text = bos_;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    check_alternation(messages[i], i);
    text += "<start_of_turn>" + std::string(i % 2 == 0 ? "user" : "model") + "\n" + (i == 0 ? system : "") +
            trimmed(messages[i].content) + "<end_of_turn>\n";
  }
  return add_generation_prompt ? text + "<start_of_turn>model\n" : text;
}

std::string ChatTemplate::phi3(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  std::string text = bos_;
  const auto header = [&](const std::string& role) { return "<|" + role + "|>" + line_end_; };
  for (const auto& message : messages) {
    expects(!question_opens_ || message.role != "system", "this model's template has no place for a system message");
    if (skip_empty_system_ && message.role == "system" && message.content.empty()) continue;
    const bool opened = question_opens_ && message.role == "assistant";
    text += (opened ? "" : header(message.role)) + message.content + "<|end|>" + line_end_;
    if (question_opens_ && message.role == "user") text += header("assistant");
  }
  if (question_opens_) return text;
  return text + (add_generation_prompt ? header("assistant") : end_);
}

}  // namespace troika::models
