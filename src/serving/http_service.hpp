// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the connections of an HttpServer share. Included by http_server.cpp alone, which is the only file that compiles
// Boost.

#include <utility>  // Boost 1.74 forgets it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/string.hpp>

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <troika/serving/http_server.hpp>

namespace troika::serving {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Milliseconds = std::chrono::milliseconds;

class Connection;

// For what a client still sends when its connection is closed: it reads the answer first.
inline constexpr Milliseconds linger_time{2000};

inline bool same_name(std::string_view a, std::string_view b) {
  return boost::beast::iequals({a.data(), a.size()}, {b.data(), b.size()});
}

class HttpService : public std::enable_shared_from_this<HttpService> {
 public:
  HttpService(HttpOptions o, HttpServer::Handler h) : options(std::move(o)), handler(std::move(h)) {}

  void listen();
  void stop(Milliseconds time);
  void left(const Connection* connection);
  bool reserve(std::size_t bytes);  // of all_body_bytes
  void release(std::size_t bytes) { body_bytes_ -= bytes; }
  void count_answering(int change);
  bool draining() const { return draining_; }
  std::size_t connections();

  const HttpOptions options;
  const HttpServer::Handler handler;
  std::string address{};
  std::uint16_t port = 0;

 private:
  void accept();
  void accepted(error_code error, tcp::socket socket);
  std::vector<std::shared_ptr<Connection>> all();

  asio::io_context io_{};
  // Until stop() has posted its last: what is posted when the threads have gone would stay, with the connection it
  // keeps.
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  tcp::acceptor acceptor_{io_};
  asio::steady_timer again_{io_};  // accepting, after an error
  std::vector<std::thread> threads_{};
  std::atomic<bool> draining_{false}, closed_{false};
  std::atomic<std::size_t> body_bytes_{0};
  std::once_flag stopped_{};
  std::mutex mutex_{};
  std::condition_variable changed_{};
  std::map<const Connection*, std::weak_ptr<Connection>> connections_{};
  int answering_ = 0;
};

}  // namespace troika::serving
