// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <troika/observe/log.hpp>

namespace troika::serving {

using HttpFields = std::vector<std::pair<std::string, std::string>>;  // name, value

struct HttpRequest {
  std::string method;    // "GET"
  std::string target;    // as it was sent: "/v1/models?x=y"
  HttpFields headers{};  // in their order
  std::string body{};
  std::string peer{};  // address of the client, without its port

  // The value of the first header of that name, in any case; empty where there is none.
  std::string_view header(std::string_view name) const;
  std::size_t count(std::string_view name) const;
};

struct HttpAnswer {
  int status = 200;
  HttpFields headers{};  // all but the length of the body, which the server knows
  std::string body{};
};

// Where the answer to one request goes: answer() at once, or begin(), write() any number of times, end(). Any thread,
// any time; what comes after the end, or when the client has left, does nothing. Dropping it before the end answers
// 500, or cuts the connection where an answer had begun, so that nobody takes half of one for the whole.
class HttpReply {
 public:
  virtual ~HttpReply() = default;

  virtual void answer(HttpAnswer answer) = 0;
  virtual void begin(int status, HttpFields headers) = 0;
  // Never waits: what the client does not read yet is kept, up to HttpOptions::unread_bytes; with more the client
  // counts as gone. False once it is.
  virtual bool write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Called once, on a thread of the server, when the client leaves before the end: at once where it has left already.
  virtual void on_gone(std::function<void()> call) = 0;
};

struct HttpOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;  // 0: any that is free
  int threads = 1;         // that move bytes

  std::size_t connections = 4096;  // more get 503
  std::size_t header_bytes = 16 << 10;
  std::size_t header_fields = 100;
  std::size_t body_bytes = 20 << 20;       // of one request
  std::size_t all_body_bytes = 256 << 20;  // of all requests that are being read or answered; more get 503
  std::size_t unread_bytes = 1 << 20;      // of one answer

  std::chrono::milliseconds header_time{10'000};  // from the first byte of a request
  std::chrono::milliseconds body_time{10'000};    // for each piece of a body, so that nobody sends one by the byte
  std::size_t body_piece = 64 << 10;
  std::chrono::milliseconds idle_time{75'000};   // between requests
  std::chrono::milliseconds write_time{30'000};  // for the client to take any of what was written

  // Looks at a request when its header is there and its body is not; what it returns is sent instead of reading on.
  std::function<std::optional<HttpAnswer>(const HttpRequest&)> admit{};
  Log log{};
};

class HttpService;

// An HTTP/1.1 server with connections that are kept alive. Limits and times that a client breaks are answered with 400,
// 408, 413, 417, 431 or 503, and the connection is closed.
class HttpServer {
 public:
  // Called on a thread that moves bytes: hand over and return. What it throws becomes a 500.
  using Handler = std::function<void(HttpRequest, std::shared_ptr<HttpReply>)>;

  // Listens from here on. Error{invalid_argument} for an address that is none or cannot be listened on.
  HttpServer(HttpOptions options, Handler handler);
  HttpServer(HttpServer&&) = delete;
  ~HttpServer();  // stop() without time

  const std::string& address() const;
  std::uint16_t port() const;
  std::size_t connections() const;  // open now

  // New requests get 503 from here on; those that run may end until `time` has passed, then their clients are cut off.
  // Returns when no connection is left. The first call counts.
  void stop(std::chrono::milliseconds time = std::chrono::milliseconds(0));

 private:
  std::shared_ptr<HttpService> service_;
};

}  // namespace troika::serving
