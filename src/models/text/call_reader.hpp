// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include <troika/models/text/chat.hpp>

namespace troika::models {

inline constexpr std::string_view blanks = " \t\r\n";  // of JSON

struct ReadCalls {
  std::size_t size = std::string_view::npos;  // of the text that was read; npos: more has to come
  std::vector<ToolCall> calls{};              // none: it is no call
};

// Calls at the beginning of a text, with their mark.
ReadCalls read_calls(ToolStyle style, std::string_view text);

}  // namespace troika::models
