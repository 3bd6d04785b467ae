// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace troika {

// What an MLP does to each of its inner values. gelu is the exact one, gelu_tanh its approximation.
enum class Activation : std::uint8_t { silu, gelu, gelu_tanh };

constexpr std::string_view to_string(Activation activation) {
  constexpr std::string_view names[] = {"silu", "gelu", "gelu_tanh"};
  return names[static_cast<std::size_t>(activation)];
}

}  // namespace troika
