// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace troika::test {

// A plain socket to a server on this machine: what goes over it is what the test wrote. Waits 10 s for bytes at most.
class SocketClient {
 public:
  explicit SocketClient(std::uint16_t port, int receive_buffer = 0) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (socket_ < 0) throw std::runtime_error("no socket");
    if (receive_buffer > 0) ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    const timeval patience{10, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
      close();
      throw std::runtime_error("cannot connect");
    }
  }
  SocketClient(SocketClient&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)), held_(std::move(other.held_)) {}
  SocketClient& operator=(SocketClient&&) = delete;
  ~SocketClient() { close(); }

  void close() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }

  // False when the server does not take it any more.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  // Up to and with `end`; less when the server closes before.
  std::string until(std::string_view end) {
    while (held_.find(end) == std::string::npos && more()) {
    }
    const auto at = held_.find(end);
    return take(at == std::string::npos ? held_.size() : at + end.size());
  }
  std::string bytes(std::size_t count) {
    while (held_.size() < count && more()) {
    }
    return take(std::min(count, held_.size()));
  }
  std::string rest() {
    while (more()) {
    }
    return take(held_.size());
  }

  struct Answer {
    int status = 0;
    std::string head, body;
  };
  // An answer with a length or in chunks.
  Answer answer() {
    Answer answer;
    answer.head = until("\r\n\r\n");
    if (answer.head.size() < 12) return answer;
    answer.status = std::stoi(answer.head.substr(9, 3));
    if (answer.head.find("chunked") != std::string::npos) {
      while (true) {
        const auto size = std::stoul("0" + until("\r\n"), nullptr, 16);
        const auto chunk = bytes(size + 2);
        if (size == 0 || chunk.size() < size + 2) return answer;
        answer.body += chunk.substr(0, size);
      }
    }
    if (const auto at = answer.head.find("Content-Length: "); at != std::string::npos)
      answer.body = bytes(std::stoul(answer.head.substr(at + 16)));
    return answer;
  }
  Answer ask(std::string_view request) {
    send(request);
    return answer();
  }

 private:
  bool more() {
    char buffer[16384];
    const auto got = ::recv(socket_, buffer, sizeof buffer, 0);
    if (got > 0) held_.append(buffer, static_cast<std::size_t>(got));
    return got > 0;
  }
  std::string take(std::size_t count) {
    std::string taken = held_.substr(0, count);
    held_.erase(0, count);
    return taken;
  }

  int socket_;
  std::string held_;
};

// Whether it becomes true within a minute.
inline bool eventually(const std::function<bool()>& condition) {
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
       std::chrono::steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return condition();
}

}  // namespace troika::test
