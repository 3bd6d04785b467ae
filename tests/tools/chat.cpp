// SPDX-License-Identifier: Apache-2.0
// What the Python oracle of chat templates talks to.
//
//   tool_chat FOLDER...
//
// Reads conversations from standard input, one a line: "0" or "1", whether the answer is to be begun, or "2" for one
// without thinking, then role and content of each message, the content as hex after a dot. "tool-of" and a tool,
// "call:NAME" and arguments of the last message, "id" and that of its last call, or of the call that it answers, and
// "thinking" and its thoughts may stand between them. Prints for each
// folder and conversation the rendered text as hex after a dot, or "refused" where it is an Error.

#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/models/text/chat.hpp>

namespace {

std::string from_hex(const std::string& hex) {
  std::string text;
  for (std::size_t i = 1; i + 1 < hex.size(); i += 2)
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return text;
}

std::string to_hex(const std::string& text) {
  std::string hex = ".";
  char digits[3];
  for (const char c : text) {
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    hex += digits;
  }
  return hex;
}

struct Conversation {
  troika::models::ChatOptions options;
  std::vector<troika::models::ChatMessage> messages;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    std::vector<Conversation> conversations;
    for (std::string line; std::getline(std::cin, line);) {
      std::istringstream in(line);
      Conversation conversation;
      int begin = 0;
      in >> begin;
      conversation.options.add_generation_prompt = begin > 0;
      conversation.options.think = begin < 2;
      for (std::string role, content; in >> role >> content;) {
        if (role == "tool-of")
          conversation.options.tools.push_back(from_hex(content));
        else if (role.starts_with("call:"))
          conversation.messages.back().tool_calls.push_back({role.substr(5), from_hex(content)});
        else if (role == "id" && conversation.messages.back().role == "tool")
          conversation.messages.back().tool_call_id = from_hex(content);
        else if (role == "id")
          conversation.messages.back().tool_calls.back().id = from_hex(content);
        else if (role == "thinking")
          conversation.messages.back().thinking = from_hex(content);
        else
          conversation.messages.push_back({role, from_hex(content)});
      }
      conversations.push_back(std::move(conversation));
    }
    for (int i = 1; i < argc; ++i) {
      const auto chat = troika::models::ChatTemplate::load(argv[i]);
      for (const auto& [options, messages] : conversations) {
        try {
          std::cout << to_hex(chat.render(messages, options)) << '\n';
        } catch (const troika::Error&) {
          std::cout << "refused\n";
        }
      }
    }
  } catch (const std::exception& error) {
    std::cerr << "tool_chat: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
