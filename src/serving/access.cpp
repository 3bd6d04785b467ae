// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/access.hpp>

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>

namespace troika::serving {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// "name:port" or "[address]:port" without its port; empty where that is not what it is.
std::string host_of(std::string_view authority) {
  std::string_view host = authority, port;
  if (host.starts_with('[')) {
    const auto end = host.find(']');
    if (end == std::string_view::npos) return {};
    port = host.substr(end + 1), host = host.substr(1, end - 1);
  } else if (const auto colon = host.find(':'); colon != std::string_view::npos) {
    port = host.substr(colon), host = host.substr(0, colon);
  }
  const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
  if (!port.empty() && (port[0] != ':' || port.size() > 6 || !std::ranges::all_of(port.substr(1), is_digit))) return {};
  return lower(host);
}

bool is_address(const std::string& host) {
  unsigned char bytes[16];
  return ::inet_pton(AF_INET, host.c_str(), bytes) == 1 || ::inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

bool is_localhost(const std::string& host) { return host == "localhost" || host.ends_with(".localhost"); }

bool good_origin(const std::string& origin, const HttpRequest& request, const AccessRules& rules) {
  if (std::ranges::find(rules.origins, origin) != rules.origins.end()) return true;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!origin.starts_with(scheme)) continue;
    const auto authority = std::string_view(origin).substr(scheme.size());
    const auto host = host_of(authority);
    return is_localhost(host) || is_loopback(host) ||
           (!host.empty() && lower(authority) == lower(request.header("Host")));
  }
  // Programs that show pages of their own
  for (const std::string_view scheme : {"app://", "tauri://", "vscode-webview://", "vscode-file://"}) {
    if (origin.starts_with(scheme)) return true;
  }
  return false;
}

// Takes as long for a wrong token as for one that is nearly right.
bool same_secret(std::string_view given, std::string_view wanted) {
  unsigned char differs = given.size() != wanted.size();
  for (std::size_t i = 0; i < given.size(); ++i) {
    differs |= static_cast<unsigned char>(given[i] ^ wanted[wanted.empty() ? 0 : i % wanted.size()]);
  }
  return differs == 0;
}

HttpAnswer refusal(int status, const std::string& text) {
  return {status, {{"Content-Type", "application/json"}}, "{\"error\":\"" + text + "\"}"};
}

}  // namespace

bool is_loopback(std::string_view address) {
  const std::string text(address);
  in_addr v4{};
  if (::inet_pton(AF_INET, text.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  return text == "localhost" || text == "::1";
}

std::optional<HttpAnswer> refuse_access(const HttpRequest& request, const AccessRules& rules) {
  const auto host = host_of(request.header("Host"));
  if (host.empty() ||
      !(is_localhost(host) || is_address(host) || std::ranges::find(rules.hosts, host) != rules.hosts.end())) {
    return refusal(403, "this server does not go by the name in the Host header");
  }
  if (request.count("Origin") > 0 && !good_origin(lower(request.header("Origin")), request, rules)) {
    return refusal(403, "pages of this origin may not ask");
  }
  if (rules.token.empty() || request.method == "OPTIONS") return std::nullopt;  // browsers ask beforehand without it
  const auto path = std::string_view(request.target).substr(0, request.target.find('?'));
  if (std::ranges::find(rules.open, path) != rules.open.end()) return std::nullopt;
  constexpr std::string_view scheme = "bearer ";
  const auto given = request.header("Authorization");
  if (lower(given.substr(0, scheme.size())) == scheme && same_secret(given.substr(scheme.size()), rules.token))
    return std::nullopt;
  auto answer = refusal(401, "a bearer token is needed");
  answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  return answer;
}

}  // namespace troika::serving
