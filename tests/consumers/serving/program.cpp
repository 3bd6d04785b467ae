// SPDX-License-Identifier: Apache-2.0
// The server links without Boost's headers, and listens.
#include <cstdio>

#include <troika/serving/http_server.hpp>

int main() {
  troika::serving::HttpServer server({}, [](troika::serving::HttpRequest, auto reply) {
    reply->answer({200, {}, "hello"});
  });
  std::printf("listening on %s, port %d\n", server.address().c_str(), server.port());
  return server.port() == 0;
}
