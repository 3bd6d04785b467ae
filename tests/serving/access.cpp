// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <string>

#include <troika/serving/access.hpp>

using namespace troika::serving;

namespace {

int status(const HttpFields& headers, const AccessRules& rules = {}) {
  const auto refused = refuse_access({"GET", "/", headers}, rules);
  return refused ? refused->status : 200;
}

}  // namespace

TEST_CASE("names that are not this machine's are refused: they may have been pointed at it") {
  for (const auto* host :
       {"localhost", "LOCALHOST:11434", "127.0.0.1:11434", "[::1]:11434", "192.168.1.7", "app.localhost"})
    CHECK(status({{"Host", host}}) == 200);
  for (const auto* host : {"", "evil.example", "evil.example:11434", "localhost.evil.example", "127.0.0.1.evil.example",
                           "[::1", "localhost:x", "localhost:1:2", "user@localhost"}) {
    CAPTURE(host);
    CHECK(status({{"Host", host}}) == 403);
  }
  CHECK(status({}) == 403);
  CHECK(status({{"Host", "my.box:80"}}, {.hosts = {"my.box"}}) == 200);
}

TEST_CASE("web pages of other places may not ask") {
  const auto from = [](const std::string& origin, const AccessRules& rules = {}) {
    return status({{"Host", "localhost:11434"}, {"Origin", origin}}, rules);
  };
  for (const auto* origin : {"http://localhost:3000", "https://127.0.0.1", "http://[::1]:80", "app://obsidian.md"})
    CHECK(from(origin) == 200);
  for (const auto* origin : {"http://evil.example", "null", "", "http://localhost.evil.example",
                             "http://127.0.0.1.evil.example", "file://x", "http://192.168.1.9"}) {
    CAPTURE(origin);
    CHECK(from(origin) == 403);
  }
  CHECK(from("https://chat.example", {.origins = {"https://chat.example"}}) == 200);
  CHECK(status({{"Host", "192.168.1.7:11434"}, {"Origin", "http://192.168.1.7:11434"}}) == 200);  // its own pages
}

TEST_CASE("where a token is asked for, nothing else will do") {
  const AccessRules rules{.token = "secret"};
  const auto with = [&](const std::string& authorization) {
    return status({{"Host", "localhost"}, {"Authorization", authorization}}, rules);
  };
  CHECK(with("Bearer secret") == 200);
  CHECK(with("bearer secret") == 200);
  for (const auto* wrong : {"", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Bearer Secret",
                            "Basic secret", "Bearer secretsecret"}) {
    CAPTURE(wrong);
    CHECK(with(wrong) == 401);
  }
  CHECK(status({{"Host", "localhost"}}, rules) == 401);
}

TEST_CASE("open pages need no token, and nothing else is open because of them; other hosts and origins stay out") {
  const AccessRules rules{.token = "secret", .open = {"/healthz", "/dashboard"}};
  const auto get = [&](const std::string& target, troika::serving::HttpFields more = {}) {
    more.emplace_back("Host", more.empty() ? "localhost" : "evil.example");
    const auto refused = troika::serving::refuse_access({.method = "GET", .target = target, .headers = more}, rules);
    return refused ? refused->status : 200;
  };
  for (const auto* open : {"/healthz", "/dashboard", "/dashboard?x=/y"}) CHECK(get(open) == 200);
  for (const auto* closed : {"/", "/dashboard/", "/dashboard/state", "/healthz/../api/tags", "/api/tags?/healthz",
                             "//healthz", "/healthz%2f", "/healthz#/api", "/metrics"}) {
    CAPTURE(closed);
    CHECK(get(closed) == 401);
  }
  CHECK(get("/healthz", {{"Accept", "*/*"}}) == 403);
}

TEST_CASE("only addresses of this machine alone are loopback") {
  for (const auto* address : {"127.0.0.1", "127.1.2.3", "::1", "localhost"}) CHECK(is_loopback(address));
  for (const auto* address : {"0.0.0.0", "::", "192.168.1.7", "128.0.0.1", ""}) CHECK_FALSE(is_loopback(address));
}
