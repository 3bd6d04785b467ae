// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <troika/serving/http_server.hpp>

#include "socket_client.hpp"

using namespace troika::serving;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using troika::test::eventually;
using troika::test::SocketClient;

namespace {

std::string get(const std::string& target) { return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n"; }
std::string post(const std::string& body) {
  return "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

// /echo gives the body back, /hold keeps its reply for the test, /drop forgets it, /stream sends three pieces.
class Server {
 public:
  explicit Server(HttpOptions options = {})
      : server_(std::move(options), [this](HttpRequest request, std::shared_ptr<HttpReply> reply) {
          ++asked;
          if (request.target == "/throw") throw std::runtime_error("planted");
          if (request.target == "/drop") return;
          if (request.target == "/stream") {
            reply->begin(200, {{"Content-Type", "text/plain"}});
            for (const auto* piece : {"one ", "two ", "three"}) reply->write(piece);
            return reply->end();
          }
          if (request.target == "/hold") {
            reply->begin(200, {});
            reply->write("begun;");
            reply->on_gone([this] { ++gone; });
            std::lock_guard lock(mutex_);
            held_.push_back(std::move(reply));
            return;
          }
          reply->answer({200, {{"X-Peer", request.peer}}, request.method + " " + request.target + " " + request.body});
        }) {}
  ~Server() {
    server_.stop();
    held_.clear();
  }

  HttpServer& operator*() { return server_; }
  HttpServer* operator->() { return &server_; }
  SocketClient client(int receive_buffer = 0) { return SocketClient(server_.port(), receive_buffer); }
  std::vector<std::shared_ptr<HttpReply>> held() {
    std::lock_guard lock(mutex_);
    return std::move(held_);
  }
  bool holds(std::size_t count) {
    std::lock_guard lock(mutex_);
    return held_.size() == count;
  }

  std::atomic<int> asked{0}, gone{0};

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<HttpReply>> held_;
  HttpServer server_;
};

}  // namespace

TEST_CASE("a connection carries several requests, also those that are sent before the answer") {
  Server server;
  auto client = server.client();
  auto answer = client.ask(get("/a?b=c"));
  CHECK(answer.status == 200);
  CHECK(answer.body == "GET /a?b=c ");
  CHECK_THAT(answer.head, ContainsSubstring("X-Peer: 127.0.0.1"));
  CHECK(client.ask(post("text")).body == "POST /echo text");
  client.send(get("/1") + post("2") + get("/3"));
  CHECK(client.answer().body == "GET /1 ");
  CHECK(client.answer().body == "POST /echo 2");
  CHECK(client.answer().body == "GET /3 ");
  CHECK(
      client
          .ask("POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
          .body == "POST /chunks abcde");
  CHECK(client.ask("DELETE /api HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").body == "DELETE /api {}");
}

TEST_CASE("a request that comes while an answer is made waits for its turn") {
  Server server;
  auto client = server.client();
  client.send(get("/hold"));
  REQUIRE(eventually([&] { return server.holds(1); }));
  client.send(get("/next"));
  std::this_thread::sleep_for(20ms);
  CHECK(server.asked == 1);
  server.held()[0]->end();
  CHECK(client.answer().body == "begun;");
  CHECK(client.answer().body == "GET /next ");
}

TEST_CASE("pieces come in chunks, and to HTTP/1.0 until the connection closes") {
  Server server;
  CHECK(server.client().ask(get("/stream")).body == "one two three");
  auto old = server.client();
  old.send("GET /stream HTTP/1.0\r\nHost: x\r\n\r\n");
  const auto all = old.rest();
  CHECK_THAT(all, !ContainsSubstring("chunked"));
  CHECK(all.substr(all.find("\r\n\r\n") + 4) == "one two three");
  auto head = server.client();
  head.send("HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto answer = head.rest();
  CHECK_THAT(answer, ContainsSubstring("Content-Length: 8"));
  CHECK(answer.ends_with("\r\n\r\n"));
}

TEST_CASE("a reply that is dropped, or a handler that throws, is a 500") {
  Server server{HttpOptions{.log = troika::Log::silent()}};
  auto client = server.client();
  CHECK(client.ask(get("/drop")).status == 500);
  CHECK(client.ask(get("/throw")).status == 500);
  CHECK(client.ask(get("/alive")).status == 200);
}

TEST_CASE("an answer that is dropped in its middle ends without its last chunk") {
  Server server;
  auto client = server.client();
  client.send(get("/hold"));
  REQUIRE(eventually([&] { return server.holds(1); }));
  client.until("begun;");
  server.held().clear();
  CHECK_THAT(client.rest(), !ContainsSubstring("0\r\n\r\n"));
}

TEST_CASE("who writes learns at once that the client has left") {
  Server server;
  auto client = server.client();
  client.send(get("/hold"));
  client.until("begun;");
  CHECK(server.gone == 0);
  client.close();
  REQUIRE(eventually([&] { return server.gone == 1; }));
  const auto reply = server.held()[0];
  CHECK_FALSE(reply->write("more"));
  int called = 0;
  reply->on_gone([&] { ++called; });
  CHECK(called == 1);
}

TEST_CASE("a client that does not read is cut off once too much waits for it, and others are not slowed") {
  Server server{HttpOptions{.unread_bytes = 64 << 10}};
  auto slow = server.client(4096);
  slow.send(get("/hold"));
  REQUIRE(eventually([&] { return server.holds(1); }));
  const auto reply = server.held()[0];
  const std::string piece(1000, 'x');
  std::size_t taken = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (reply->write(piece)) {
    REQUIRE(++taken < 100000);
    if (taken % 100 == 0) std::this_thread::sleep_for(1ms);
  }
  CHECK(std::chrono::steady_clock::now() - begin < 20s);
  CHECK(eventually([&] { return server.gone == 1; }));
  CHECK(server.client().ask(get("/fast")).status == 200);
}

TEST_CASE("a client that reads nothing for too long is cut off") {
  Server server{HttpOptions{.unread_bytes = 64 << 20, .write_time = 100ms}};
  auto slow = server.client(4096);
  slow.send(get("/hold"));
  REQUIRE(eventually([&] { return server.holds(1); }));
  const auto reply = server.held()[0];
  CHECK(reply->write(std::string(20 << 20, 'x')));
  CHECK(eventually([&] { return server.gone == 1; }));
}

TEST_CASE("limits have their own answers") {
  HttpOptions options{
      .header_bytes = 2000, .header_fields = 10, .body_bytes = 1000, .header_time = 1s, .body_time = 1s};
  options.admit = [](const HttpRequest& request) -> std::optional<HttpAnswer> {
    if (request.header("x-KEY") == "wrong") return HttpAnswer{401, {}, "no"};
    return std::nullopt;
  };
  Server server{options};
  const auto status = [&](const std::string& request) { return server.client().ask(request).status; };
  CHECK(status("nonsense\r\n\r\n") == 400);
  CHECK(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") == 400);
  CHECK(status("GET / HTTP/1.1\r\nHost: a\r\nBig: " + std::string(3000, 'x') + "\r\n\r\n") == 431);
  std::string fields;
  for (int i = 0; i < 20; ++i) fields += "A" + std::to_string(i) + ": b\r\n";
  CHECK(status("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n") == 431);
  CHECK(status(post(std::string(1001, 'x'))) == 413);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + std::string(2000, 'x') +
               "\r\n0\r\n\r\n") == 413);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n") == 400);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n") ==
        400);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n") == 400);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n") == 400);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n") == 400);
  CHECK(status("GET / HTTP/1.1\r\nHost: a\r\nX-Key: wrong\r\n\r\n") == 401);
  CHECK(status("GET / HT") == 408);
  CHECK(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc") == 408);
  CHECK(server.asked == 0);
  CHECK(status(post(std::string(1000, 'x'))) == 200);
  auto patient = server.client();
  patient.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  CHECK(patient.until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  CHECK(patient.ask("abc").body == "POST /echo abc");
}

TEST_CASE("bodies share a limit as far as they have come") {
  Server server{HttpOptions{.body_bytes = 1000, .all_body_bytes = 1500}};
  const std::string head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
  auto announced = server.client();
  announced.send(head);
  CHECK(server.client().ask(post(std::string(1000, 'x'))).status == 200);
  SocketClient::Answer full;
  REQUIRE(eventually([&] {
    auto first = server.client();
    first.send(head + std::string(900, 'y'));
    std::this_thread::sleep_for(5ms);  // mostly enough to have been read
    full = server.client().ask(post(std::string(1000, 'x')));
    return full.status == 503 && first.ask(std::string(100, 'y')).status == 200;
  }));
  CHECK_THAT(full.head, ContainsSubstring("Retry-After"));
  CHECK(eventually([&] { return server.client().ask(post(std::string(1000, 'x'))).status == 200; }));
}

TEST_CASE("connections have a limit") {
  Server server{HttpOptions{.connections = 1}};
  auto first = server.client();
  CHECK(first.ask(get("/")).status == 200);
  CHECK(server.client().ask(get("/")).status == 503);
  first.close();
  CHECK(eventually([&] { return server.client().ask(get("/")).status == 200; }));
}

TEST_CASE("a body may take long, but not for each of its pieces") {
  Server server{HttpOptions{.body_time = 6s, .body_piece = 1000}};
  auto steady = server.client(), trickling = server.client();
  const std::string head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n";
  steady.send(head), trickling.send(head);
  bool cut = false;
  for (int i = 0; i < 200; ++i) {  // 10 s
    if (i == 80 || i == 160) steady.send(std::string(1000, 'x'));
    cut = cut || !trickling.send("y");
    std::this_thread::sleep_for(50ms);
  }
  CHECK(cut);
  steady.send(std::string(1000, 'x'));
  CHECK(steady.answer().body == "POST /echo " + std::string(3000, 'x'));
  CHECK(server.asked == 1);
}

TEST_CASE("many connections at once are all answered, beside slow ones") {
  Server server;
  std::vector<SocketClient> slow, clients;
  for (int i = 0; i < 300; ++i) slow.push_back(server.client()), slow.back().send("GET / HT");
  for (int i = 0; i < 300; ++i) clients.push_back(server.client()), clients.back().send(get("/" + std::to_string(i)));
  int right = 0;
  for (int i = 0; i < 300; ++i)
    right += clients[static_cast<std::size_t>(i)].answer().body == "GET /" + std::to_string(i) + " ";
  CHECK(right == 300);
  slow.clear(), clients.clear();
  CHECK(eventually([&] { return server->connections() == 0; }));
}

TEST_CASE("a server that stops finishes what runs and refuses what is new") {
  Server server;
  auto running = server.client(), idle = server.client();
  CHECK(idle.ask(get("/")).status == 200);
  running.send(get("/hold"));
  REQUIRE(eventually([&] { return server.holds(1); }));
  auto stopped = std::async(std::launch::async, [&] { server->stop(10s); });
  CHECK(idle.rest().empty());  // closed
  auto late = server.client();
  const auto refused = late.ask(get("/"));
  CHECK(refused.status == 503);
  CHECK_THAT(refused.head, ContainsSubstring("Retry-After"));
  CHECK(stopped.wait_for(0s) != std::future_status::ready);
  const auto replies = server.held();
  replies[0]->write("last");
  replies[0]->end();
  CHECK(running.answer().body == "begun;last");
  running.close();
  CHECK(stopped.wait_for(10s) == std::future_status::ready);
  CHECK_THROWS(server.client());
}

TEST_CASE("a server that stops without time cuts off what runs") {
  Server server;
  auto running = server.client();
  running.send(get("/hold"));
  running.until("begun;");
  server->stop(10ms);
  CHECK(server.gone == 1);
  CHECK_THAT(running.rest(), !ContainsSubstring("0\r\n\r\n"));
}

TEST_CASE("an address that cannot be listened on is one clear error") {
  const auto with = [](const std::string& address, std::uint16_t port) {
    HttpServer server({.address = address, .port = port}, [](HttpRequest, auto) {});
  };
  Server server;
  CHECK_THROWS_WITH(with("nowhere", 0), ContainsSubstring("\"nowhere\""));
  CHECK_THROWS_WITH(with("127.0.0.1", server->port()), ContainsSubstring("in use"));
}
