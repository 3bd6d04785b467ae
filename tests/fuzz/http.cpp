// SPDX-License-Identifier: Apache-2.0
// Any bytes on a connection: the server stays up, and all that it says are whole answers with a status that is
// documented.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <troika/serving/access.hpp>
#include <troika/serving/http_server.hpp>

#include "serving/socket_client.hpp"

namespace {

using namespace troika::serving;

constexpr std::array documented{"100", "200", "400", "401", "403", "408", "413", "417", "431", "503"};

HttpServer& server() {
  static HttpServer one({.header_bytes = 1000,
                         .header_fields = 10,
                         .body_bytes = 1000,
                         .header_time = std::chrono::milliseconds(20),
                         .body_time = std::chrono::milliseconds(20),
                         .idle_time = std::chrono::milliseconds(20),
                         .admit = [](const HttpRequest& request) { return refuse_access(request, {.token = "key"}); },
                         .log = troika::Log::silent()},
                        [](HttpRequest request, std::shared_ptr<HttpReply> reply) {
                          if (request.target.size() % 2 == 0) return reply->answer({200, {}, request.body});
                          reply->begin(200, {});
                          reply->write(request.body);
                          reply->write("more");
                          reply->end();
                        });
  return one;
}

[[noreturn]] void wrong(const std::string& said) {
  std::fprintf(stderr, "no whole answer: %s\n", said.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  troika::test::SocketClient client(server().port());
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  client.send(input);
  client.send("\r\n\r\n");  // so that a header ends, mostly, and nobody waits for it
  if (input.find("HEAD") != std::string_view::npos) return client.rest(), 0;  // has lengths without bodies
  // Whoever is cut off in the middle of sending may lose the answer, so there may be none; half of one there may not
  // be.
  while (true) {
    const auto answer = client.answer();
    if (answer.head.empty()) break;
    if (!answer.head.starts_with("HTTP/1.") || !answer.head.ends_with("\r\n\r\n")) wrong(answer.head);
    if (std::ranges::find(documented, answer.head.substr(9, 3)) == documented.end()) wrong(answer.head);
    const bool has_end = answer.status == 100 || answer.head.find("Content-Length: ") != std::string::npos ||
                         answer.head.find("chunked") != std::string::npos;
    if (!has_end) return client.rest(), 0;  // to HTTP/1.0, up to the end of the connection
  }
  return 0;
}
