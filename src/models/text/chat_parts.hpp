// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the families of chat templates share.

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <troika/models/text/chat.hpp>

namespace troika::models {

// The last of what templates of Llama 3.1 to 3.3 say before their tools.
inline constexpr std::string_view llama3_tools_end = "Do not use variables.\n\n";

std::string trimmed(const std::string& text);

// `at`: of the messages after the system's. Error{invalid_argument} where it is not the one's turn who speaks.
void check_alternation(const ChatMessage& message, std::size_t at);

// As Python writes JSON, with a space behind commas and colons: templates do, and models have learned it so.
std::string spaced(const nlohmann::ordered_json& json);

// One of ChatOptions::tools. Error{bad_file} for one that is no JSON object.
nlohmann::ordered_json parse_tool(std::string_view text);

}  // namespace troika::models
