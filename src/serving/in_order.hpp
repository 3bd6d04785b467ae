// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "text_request.hpp"

namespace troika::serving {

using Ordered = nlohmann::ordered_json;

// A member of the request with its own members in the order in which they were written, which a Json forgets, and which
// schemas and prompts keep. The others are not read again. Refusal for objects of more than 1000 members.
Ordered in_order(const Fields& fields, std::string_view body, const char* member);
// The same for a text that is JSON as a whole. Error{bad_file} for one that is not.
Ordered in_order(std::string_view text, const std::string& where);

}  // namespace troika::serving
