// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "automaton.hpp"
#include "json_rules.hpp"

namespace troika::models {

// The numbers, or whole numbers, that the keywords minimum, maximum, exclusiveMinimum, exclusiveMaximum and multipleOf
// of a schema leave; all where it has none. Error{unsupported} names the keyword, after `where`.
State number_range(AutomatonBuilder& builder, JsonRules& rules, const nlohmann::ordered_json& schema, bool whole,
                   const std::string& where);

}  // namespace troika::models
