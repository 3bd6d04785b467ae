// SPDX-License-Identifier: Apache-2.0
#pragma once

// What requests say about tools, in the forms of Ollama and OpenAI.

#include <string>
#include <string_view>
#include <vector>

#include "text_request.hpp"

namespace troika::serving {

// "tools", each as the text that goes into the prompt; none where "tool_choice" is "none".
std::vector<std::string> read_tools(const Fields& fields, std::string_view body);
// The "tool_calls" and "tool_call_id" of "messages", into the messages that were made of them.
void read_calls(const Fields& fields, std::string_view body, std::vector<models::ChatMessage>& messages);

}  // namespace troika::serving
