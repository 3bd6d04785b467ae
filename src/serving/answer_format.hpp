// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a request says about the form of its answer: JSON, or JSON of a schema.

#include <optional>
#include <string_view>

#include <troika/models/grammar/grammar.hpp>

#include "text_request.hpp"

namespace troika::serving {

// "format" of Ollama: "json" or a schema.
std::optional<models::Grammar> read_format(const Fields& fields, std::string_view body);
// "response_format" of OpenAI: {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": ...}}.
std::optional<models::Grammar> read_response_format(const Fields& fields, std::string_view body);

}  // namespace troika::serving
