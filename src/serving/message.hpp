// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <troika/core/error.hpp>

namespace troika::serving {

// What an error says, without the kind of fault behind it: in an answer the status tells that.
inline std::string message_of(const Error& error) {
  std::string text = error.what();
  const std::string kind = " [" + std::string(to_string(error.fault())) + "]";
  if (text.ends_with(kind)) text.resize(text.size() - kind.size());
  return text;
}

}  // namespace troika::serving
