// SPDX-License-Identifier: Apache-2.0
#pragma once

// One connection of an HttpServer: what it is, how it begins and ends. http_reading.hpp and http_answering.hpp have the
// rest. Included by http_server.cpp alone: Beast takes the compiler half a minute.

#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>

#include "http_service.hpp"

namespace troika::serving {

namespace http = boost::beast::http;

inline HttpAnswer plain_answer(int status, const std::string& text) {
  HttpAnswer answer{status, {{"Content-Type", "application/json"}}, "{\"error\":\"" + text + "\"}"};
  if (status == 503) answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

// The answer to one request on its way from whoever writes it to the connection.
struct Exchange {
  bool keep_alive = true, chunked = true, head_only = false;
  unsigned version = 11;

  std::mutex mutex{};  // of what follows
  bool begun = false, ended = false, gone = false, flushing = false;
  std::string pending{};   // bytes to send
  std::size_t unread = 0;  // pending, and those that are being sent
  std::function<void()> on_gone{};
};

// All members run on the strand of the socket, but for those of the exchange, which lock.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<HttpService> service, tcp::socket socket);
  ~Connection();

  void start();
  void start_refused();  // too many are open: 503
  void close_if_idle();
  void drop();  // now: whoever writes an answer learns that the client is gone

  // Any thread
  const tcp::socket::executor_type& executor() { return executor_; }
  void answer(const std::shared_ptr<Exchange>& exchange, HttpAnswer answer);
  void begin(const std::shared_ptr<Exchange>& exchange, int status, const HttpFields& headers);
  bool write(const std::shared_ptr<Exchange>& exchange, std::string_view piece);
  void end(const std::shared_ptr<Exchange>& exchange);
  void abandoned(const std::shared_ptr<Exchange>& exchange);

 private:
  enum class State { idle, reading, answering, lingering, closed };

  void watch();
  void watched(error_code error, std::size_t bytes);
  void read_request();
  void have_header(error_code error);
  void read_body();
  void have_body(error_code error);
  void read_failed(error_code error);
  std::optional<HttpAnswer> refusal();
  void dispatch();
  void refuse(HttpAnswer answer);
  void flush(const std::shared_ptr<Exchange>& exchange);
  void send();
  void finish();
  void linger();
  void arm(Milliseconds time);
  void disarm() { ++timer_serial_, timer_.cancel(); }
  void timed_out();
  void leave(State next);
  void queue(const std::shared_ptr<Exchange>& exchange, std::string_view bytes);  // with its mutex held
  std::string head(const Exchange& exchange, int status, const HttpFields& headers,
                   std::optional<std::size_t> length) const;

  std::shared_ptr<HttpService> service_;  // first: it owns what the socket needs to the end
  tcp::socket socket_;
  tcp::socket::executor_type executor_;
  asio::steady_timer timer_;
  std::uint64_t timer_serial_ = 0;
  State state_ = State::idle;
  bool watching_ = false, sending_now_ = false;
  boost::beast::flat_buffer buffer_{};
  std::optional<http::request_parser<http::string_body>> parser_{};
  HttpRequest request_{};
  std::size_t reserved_ = 0;  // of HttpOptions::all_body_bytes
  std::shared_ptr<Exchange> exchange_{};
  std::string sending_{};
  std::size_t sent_ = 0;
};

class Reply final : public HttpReply {
 public:
  Reply(std::shared_ptr<Connection> connection, std::shared_ptr<Exchange> exchange)
      : connection_(std::move(connection)), exchange_(std::move(exchange)) {}
  ~Reply() override { connection_->abandoned(exchange_); }

  void answer(HttpAnswer answer) override { connection_->answer(exchange_, std::move(answer)); }
  void begin(int status, HttpFields headers) override { connection_->begin(exchange_, status, headers); }
  bool write(std::string_view piece) override { return connection_->write(exchange_, piece); }
  void end() override { connection_->end(exchange_); }
  void on_gone(std::function<void()> call) override {
    {
      std::lock_guard lock(exchange_->mutex);
      if (!exchange_->gone) {
        if (!exchange_->ended) exchange_->on_gone = std::move(call);
        return;
      }
    }
    call();
  }

 private:
  std::shared_ptr<Connection> connection_;
  std::shared_ptr<Exchange> exchange_;
};

inline Connection::Connection(std::shared_ptr<HttpService> service, tcp::socket socket)
    : service_(std::move(service)), socket_(std::move(socket)), executor_(socket_.get_executor()), timer_(executor_) {}

inline Connection::~Connection() {
  service_->release(reserved_);
  service_->left(this);
}

inline void Connection::start() {
  error_code ignored;
  socket_.set_option(tcp::no_delay(true), ignored);
  arm(service_->options.header_time);
  watch();
}

inline void Connection::start_refused() { refuse(plain_answer(503, "too many connections")); }

// Closing

inline void Connection::linger() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  buffer_.consume(buffer_.size());
  arm(linger_time);
  watch();
}

inline void Connection::drop() {
  if (state_ == State::closed) return;
  std::function<void()> on_gone;
  if (exchange_) {
    std::lock_guard lock(exchange_->mutex);
    exchange_->gone = true;
    std::swap(on_gone, exchange_->on_gone);
    if (exchange_->ended) on_gone = {};
  }
  leave(State::closed);
  disarm();
  error_code ignored;
  socket_.close(ignored);
  if (on_gone) on_gone();
}

inline void Connection::close_if_idle() {
  if (state_ == State::idle) drop();
}

inline void Connection::arm(Milliseconds time) {
  timer_.expires_after(time);
  timer_.async_wait([self = shared_from_this(), serial = ++timer_serial_](error_code error) {
    if (!error && serial == self->timer_serial_) self->timed_out();
  });
}

inline void Connection::timed_out() {
  if (state_ != State::reading) return drop();
  // A read is still under way, and the parser in its hands, so this is the last that is done here.
  static const std::string late = head(Exchange{.keep_alive = false}, 408, {}, 0);
  error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.write_some(asio::buffer(late), ignored);
  drop();
}

}  // namespace troika::serving
