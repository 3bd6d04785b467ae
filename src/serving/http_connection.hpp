// SPDX-License-Identifier: Apache-2.0
#pragma once

// One connection of an HttpServer. Included by http_server.cpp alone: Beast takes the compiler half a minute.

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

// Reading

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

// A read is always under way, also while an answer is made: that is how a client that leaves is noticed.
inline void Connection::watch() {
  if (watching_ || state_ == State::closed) return;
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(4096), [self = shared_from_this()](error_code error, std::size_t bytes) {
    self->watched(error, bytes);
  });
}

inline void Connection::watched(error_code error, std::size_t bytes) {
  watching_ = false;
  if (state_ == State::closed) return;
  if (!error) buffer_.commit(bytes);
  const bool cancelled = error == asio::error::operation_aborted;  // by finish(), as the next request is there already
  if (error && !cancelled) return drop();
  if (state_ == State::lingering) {
    buffer_.consume(buffer_.size());
    return watch();
  }
  if (state_ == State::answering) {
    if (buffer_.size() < service_->options.header_bytes) watch();
    return;
  }
  buffer_.size() > 0 ? read_request() : watch();
}

inline void Connection::read_request() {
  state_ = State::reading;
  arm(service_->options.header_time);
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(service_->options.header_bytes));
  parser_->body_limit(service_->options.body_bytes);
  http::async_read_header(socket_, buffer_, *parser_,
                          [self = shared_from_this()](error_code error, std::size_t) { self->have_header(error); });
}

inline void Connection::have_header(error_code error) {
  if (state_ != State::reading) return;
  if (error) return read_failed(error);
  const auto& message = parser_->get();
  request_ = {std::string(message.method_string()), std::string(message.target()), {}, {}, {}};
  for (const auto& field : message)
    request_.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  error_code ignored;
  request_.peer = socket_.remote_endpoint(ignored).address().to_string();
  if (auto answer = refusal()) return refuse(std::move(*answer));

  if (parser_->is_done()) return dispatch();
  arm(service_->options.body_time);
  parser_->eager(true);
  if (!same_name(request_.header("Expect"), "100-continue")) return read_body();
  static constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  asio::async_write(socket_, asio::buffer(go_on), [self = shared_from_this()](error_code failed, std::size_t) {
    if (self->state_ != State::reading) return;
    failed ? self->drop() : self->read_body();
  });
}

// Only what has come counts as reserved, so that nobody keeps others out by announcing much and sending little.
inline void Connection::read_body() {
  http::async_read_some(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
    if (self->state_ == State::reading) self->have_body(error);
  });
}

inline void Connection::have_body(error_code error) {
  if (error) return read_failed(error);
  const auto before = reserved_, now = parser_->get().body().size();
  if (!service_->reserve(now - before))
    return refuse(plain_answer(503, "too much is being sent at once; try again later"));
  reserved_ = now;
  if (parser_->is_done()) {
    request_.body = std::move(parser_->get().body());
    return dispatch();
  }
  if (now / service_->options.body_piece > before / service_->options.body_piece) arm(service_->options.body_time);
  read_body();
}

inline void Connection::read_failed(error_code error) {
  if (error == http::error::header_limit) return refuse(plain_answer(431, "the header is larger than accepted"));
  if (error == http::error::body_limit) return refuse(plain_answer(413, "the body is larger than accepted"));
  const bool malformed = error.category() == http::make_error_code(http::error::bad_method).category() &&
                         error != http::error::end_of_stream && error != http::error::partial_message;
  malformed ? refuse(plain_answer(400, "not an HTTP/1.1 request")) : drop();
}

// What is wrong with a request whose body was not read yet.
inline std::optional<HttpAnswer> Connection::refusal() {
  if (service_->draining()) return plain_answer(503, "the server is stopping");
  if (request_.headers.size() > service_->options.header_fields) return plain_answer(431, "too many header fields");
  if (request_.count("Host") > 1) return plain_answer(400, "more than one Host");
  if (request_.count("Transfer-Encoding") > 0 && !parser_->chunked())
    return plain_answer(400, "unknown Transfer-Encoding");
  if (request_.count("Expect") > 0 && !same_name(request_.header("Expect"), "100-continue"))
    return plain_answer(417, "unknown Expect");
  return service_->options.admit ? service_->options.admit(request_) : std::nullopt;
}

// Answering

inline void Connection::dispatch() {
  exchange_ = std::make_shared<Exchange>();
  exchange_->version = parser_->get().version();
  exchange_->keep_alive = parser_->keep_alive() && !service_->draining();
  exchange_->chunked = exchange_->version >= 11;
  exchange_->head_only = request_.method == "HEAD";
  if (!exchange_->chunked) exchange_->keep_alive = false;
  parser_.reset();
  state_ = State::answering;
  service_->count_answering(1);
  disarm();
  watch();
  auto reply = std::make_shared<Reply>(shared_from_this(), exchange_);
  try {
    service_->handler(std::move(request_), std::move(reply));
  } catch (const std::exception& error) {
    service_->options.log.write(LogLevel::error, std::string("a request failed: ") + error.what());
  }
}

// Answers without asking the handler, and closes.
inline void Connection::refuse(HttpAnswer text) {
  exchange_ = std::make_shared<Exchange>();
  exchange_->keep_alive = false;
  exchange_->head_only = request_.method == "HEAD";
  parser_.reset();
  state_ = State::answering;
  service_->count_answering(1);
  disarm();
  answer(exchange_, std::move(text));
}

inline std::string Connection::head(const Exchange& exchange, int status, const HttpFields& headers,
                                    std::optional<std::size_t> length) const {
  http::response<http::empty_body> message(static_cast<http::status>(status), exchange.version);
  for (const auto& [name, value] : headers) message.insert(name, value);
  message.keep_alive(exchange.keep_alive && !service_->draining());
  if (length && status != 204) message.content_length(*length);
  if (!length && exchange.chunked) message.chunked(true);
  std::ostringstream text;
  text << message.base();
  return text.str();
}

inline void Connection::queue(const std::shared_ptr<Exchange>& exchange, std::string_view bytes) {
  exchange->pending += bytes;
  exchange->unread += bytes.size();
  if (exchange->flushing) return;
  exchange->flushing = true;
  asio::post(executor_, [self = shared_from_this(), exchange] { self->flush(exchange); });
}

inline void Connection::answer(const std::shared_ptr<Exchange>& exchange, HttpAnswer answer) {
  std::lock_guard lock(exchange->mutex);
  if (exchange->begun || exchange->ended || exchange->gone) return;
  exchange->begun = exchange->ended = true;
  std::string bytes = head(*exchange, answer.status, answer.headers, answer.body.size());
  if (!exchange->head_only && answer.status != 204) bytes += answer.body;
  queue(exchange, bytes);
}

inline void Connection::begin(const std::shared_ptr<Exchange>& exchange, int status, const HttpFields& headers) {
  std::lock_guard lock(exchange->mutex);
  if (exchange->begun || exchange->ended || exchange->gone) return;
  exchange->begun = true;
  queue(exchange, head(*exchange, status, headers, std::nullopt));
}

inline bool Connection::write(const std::shared_ptr<Exchange>& exchange, std::string_view piece) {
  std::lock_guard lock(exchange->mutex);
  if (exchange->gone) return false;
  if (!exchange->begun || exchange->ended || piece.empty() || exchange->head_only) return true;
  if (exchange->unread + piece.size() > service_->options.unread_bytes) {
    asio::post(executor_, [self = shared_from_this(), exchange] {
      if (self->exchange_ == exchange) self->drop();
    });
    return false;
  }
  if (exchange->chunked)
    queue(exchange, boost::beast::buffers_to_string(http::make_chunk(asio::buffer(piece))));
  else
    queue(exchange, piece);
  return true;
}

inline void Connection::end(const std::shared_ptr<Exchange>& exchange) {
  std::lock_guard lock(exchange->mutex);
  if (exchange->ended || exchange->gone) return;
  exchange->begun = exchange->ended = true;
  queue(exchange,
        exchange->chunked && !exchange->head_only ? boost::beast::buffers_to_string(http::make_chunk_last()) : "");
}

inline void Connection::abandoned(const std::shared_ptr<Exchange>& exchange) {
  bool begun;
  {
    std::lock_guard lock(exchange->mutex);
    if (exchange->ended || exchange->gone) return;
    begun = exchange->begun;
    if (begun)
      asio::post(executor_, [self = shared_from_this(), exchange] {
        if (self->exchange_ == exchange) self->drop();
      });
  }
  if (!begun) answer(exchange, plain_answer(500, "the request failed"));
}

inline void Connection::flush(const std::shared_ptr<Exchange>& exchange) {
  if (exchange != exchange_ || sending_now_) return;
  {
    std::lock_guard lock(exchange->mutex);
    exchange->unread -= sending_.size();
    sending_.clear();
    std::swap(sending_, exchange->pending);
    if (sending_.empty()) exchange->flushing = false;
    if (sending_.empty() && !exchange->ended) return disarm();
  }
  if (sending_.empty()) return finish();
  sent_ = 0;
  send();
}

inline void Connection::send() {
  sending_now_ = true;
  arm(service_->options.write_time);
  socket_.async_write_some(asio::buffer(sending_.data() + sent_, sending_.size() - sent_),
                           [self = shared_from_this()](error_code error, std::size_t bytes) {
                             self->sending_now_ = false;
                             if (self->state_ != State::answering) return;
                             if (error) return self->drop();
                             self->sent_ += bytes;
                             self->sent_ < self->sending_.size() ? self->send() : self->flush(self->exchange_);
                           });
}

inline void Connection::finish() {
  const bool keep_alive = exchange_->keep_alive && !service_->draining();
  leave(keep_alive ? State::idle : State::lingering);
  if (!keep_alive) return linger();
  arm(service_->options.idle_time);
  error_code ignored;
  if (buffer_.size() == 0)
    watch();
  else if (watching_)
    socket_.cancel(ignored);
  else
    read_request();
}

// Ends the exchange, on either way.
inline void Connection::leave(State next) {
  state_ = next;
  service_->release(std::exchange(reserved_, 0));
  if (!exchange_) return;
  exchange_.reset();
  service_->count_answering(-1);
}

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
