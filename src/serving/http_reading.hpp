// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a Connection reads a request, and what it refuses before anybody is asked.

#include "http_connection.hpp"

namespace troika::serving {

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

}  // namespace troika::serving
