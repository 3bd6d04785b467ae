// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troika::models {

// A function that a model wants to be called.
struct ToolCall {
  std::string name;
  std::string arguments;  // a JSON object, as text
  std::string id{};       // by which what the tool said names it; may be empty
  bool operator==(const ToolCall&) const = default;
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant" or "tool"
  std::string content;
  std::string thinking{};              // an assistant's, before its answer
  std::vector<ToolCall> tool_calls{};  // an assistant's
  std::string tool_call_id{};          // a tool's: of the call that it answers; empty: of the first without an answer
};

struct ChatOptions {
  std::vector<std::string> tools{};  // each a JSON object, as text
  bool think = true;                 // false: a model that can do without thinking is told to
  bool add_generation_prompt = true;
};

enum class ChatFamily : std::uint8_t { llama3, chatml, mistral, gemma, phi3 };

constexpr std::string_view to_string(ChatFamily family) {
  constexpr std::string_view names[] = {"llama3", "chatml", "mistral", "gemma", "phi3"};
  return names[static_cast<std::size_t>(family)];
}

// How a model writes calls of tools: as Hermes, Qwen2.5 and Qwen3 do; as Llama 3.1 to 3.3; as Mistral since its third
// tokenizer.
enum class ToolStyle : std::uint8_t { none, hermes, llama3, mistral };

// What stands before a call, in many vocabularies a special token. Llama 3 may leave it out.
constexpr std::string_view call_mark(ToolStyle style) {
  constexpr std::string_view marks[] = {"", "<tool_call>", "<|python_tag|>", "[TOOL_CALLS]"};
  return marks[static_cast<std::size_t>(style)];
}

// How a model wants a conversation written down. Models say it by a program, a Jinja template; troika does not run it,
// but recognises the families that it knows and the points in which their members differ, tools among them.
//
// Encode what is rendered without add_special: it has its own BOS. Content that spells a special token becomes that
// token.
class ChatTemplate {
 public:
  // Of a GGUF file, or a folder with chat_template.jinja or tokenizer_config.json. Error{bad_file} when there is none;
  // Error{unsupported} names the families that are known.
  static ChatTemplate load(const std::filesystem::path& path);
  // The text of a template, and how BOS and EOS are spelled.
  static ChatTemplate recognise(std::string_view text, std::string bos, std::string eos,
                                const std::string& origin = "the chat template");

  ChatFamily family() const { return family_; }
  // With the beginning of the answer, where the family has one. Error{invalid_argument} for roles or an order that the
  // family does not have.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const {
    return render(messages, {.add_generation_prompt = add_generation_prompt});
  }
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options) const;

  ToolStyle tool_style() const { return tools_; }
  bool takes_tools() const { return tools_ != ToolStyle::none; }
  bool thinks() const { return strip_thoughts_; }  // answers may begin with <think>...</think>

 private:
  std::string llama3(std::span<const ChatMessage> messages, const ChatOptions& options) const;
  std::string chatml(std::span<const ChatMessage> messages, const ChatOptions& options) const;
  std::string mistral(std::span<const ChatMessage> messages, const ChatOptions& options) const;
  std::string gemma(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  std::string phi3(std::span<const ChatMessage> messages, bool add_generation_prompt) const;
  // mistral and gemma: the system message, which is taken off, as it stands before the user's; empty when there is
  // none.
  std::string take_system(std::span<const ChatMessage>& messages) const;
  void recognise_phi3(std::string_view text, const std::string& origin);
  void recognise_mistral(std::string_view text, const std::string& origin);

  ChatFamily family_ = ChatFamily::chatml;
  std::string bos_, eos_;        // empty where the template does not write them
  std::string default_system_;   // chatml: where a conversation has none
  std::string system_prefix_;    // llama3: what is before the system message, which is then always there
  bool strip_thoughts_ = false;  // chatml: answers are kept without their <think>...</think>
  bool may_not_think_ = false;   // chatml: an answer without thoughts can be asked for
  ToolStyle tools_ = ToolStyle::none;
  std::string gap_;                            // mistral: behind the marks of tools
  std::string open_, close_, before_, after_;  // mistral: around the user's content, around an answer
  bool trim_ = false;                          // mistral: of answers
  enum class System : std::uint8_t {
    none,
    first,
    last
  } system_ = System::none;         // mistral and gemma: the user's message that it joins
  std::string line_end_;            // phi3: after roles and contents, "\n" or nothing
  bool question_opens_ = false;     // phi3: a question ends with the beginning of the answer
  bool skip_empty_system_ = false;  // phi3
  std::string end_;                 // phi3: of a conversation without the beginning of an answer
};

}  // namespace troika::models
