// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace troika::models {

// How templates of the ChatML family that take tools announce them; what follows in them is the same for all.
inline constexpr std::string_view hermes_tools =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>";

}  // namespace troika::models
