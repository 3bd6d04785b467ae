// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a Connection hands a request on, and sends what comes back.

#include "http_connection.hpp"

namespace troika::serving {

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

}  // namespace troika::serving
