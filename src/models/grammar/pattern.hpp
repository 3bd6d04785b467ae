// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "json_rules.hpp"

namespace troika::models {

// A JSON string that matches a regular expression, as a rule. What is read alike everywhere is taken: characters,
// classes, groups, | ? * + {m,n}, ^ in front and $ at the end; classes stand for printable ASCII, "." and classes with
// ^ for what is not ASCII as well. `where` names the place in the Error{unsupported} for all else.
State pattern_rule(AutomatonBuilder& builder, JsonRules& rules, std::string_view pattern, const std::string& where);

}  // namespace troika::models
