// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <troika/serving/http_server.hpp>

namespace troika::serving {

// Who may ask. Web pages that a user has open can send requests to this machine: their Origin tells them apart, and the
// Host tells a name that was pointed at this machine behind the user's back (DNS rebinding).
struct AccessRules {
  std::string token{};                 // that "Authorization: Bearer ..." has to have; empty: none is asked for
  std::vector<std::string> open{};     // paths that need no token
  std::vector<std::string> hosts{};    // names besides localhost and IP addresses
  std::vector<std::string> origins{};  // besides pages of this machine, such as "https://chat.example.org"
};

// What to answer instead: 401 or 403. For HttpOptions::admit.
std::optional<HttpAnswer> refuse_access(const HttpRequest& request, const AccessRules& rules);

// 127.0.0.0/8, ::1 or localhost.
bool is_loopback(std::string_view address);

}  // namespace troika::serving
