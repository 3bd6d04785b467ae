// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/http_server.hpp>

#include <algorithm>

#include <troika/core/error.hpp>

#include "http_answering.hpp"
#include "http_connection.hpp"
#include "http_reading.hpp"

namespace troika::serving {
namespace {

constexpr std::size_t refused_at_once = 256;  // connections beyond the limit that get their 503

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  const auto at = std::ranges::find_if(headers, [&](const auto& field) { return same_name(field.first, name); });
  return at == headers.end() ? std::string_view() : at->second;
}
std::size_t HttpRequest::count(std::string_view name) const {
  return static_cast<std::size_t>(
      std::ranges::count_if(headers, [&](const auto& field) { return same_name(field.first, name); }));
}

void HttpService::listen() {
  error_code error;
  const auto ip = asio::ip::make_address(options.address == "localhost" ? "127.0.0.1" : options.address, error);
  expects(!error,
          [&] { return "an address to listen on is an IP address or localhost, not \"" + options.address + "\""; });
  const tcp::endpoint endpoint(ip, options.port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  expects(!error, [&] {
    return "cannot listen on " + options.address + ", port " + std::to_string(options.port) + ": " + error.message();
  });
  address = ip.to_string();
  port = acceptor_.local_endpoint().port();
  accept();
  for (int i = 0; i < std::max(1, options.threads); ++i) threads_.emplace_back([this] { io_.run(); });
}

void HttpService::accept() {
  acceptor_.async_accept(asio::make_strand(io_), [self = shared_from_this()](error_code error, tcp::socket socket) {
    self->accepted(error, std::move(socket));
  });
}

void HttpService::accepted(error_code error, tcp::socket socket) {
  if (error == asio::error::operation_aborted || !acceptor_.is_open()) return;
  if (error) {  // too many open files, mostly: some will be closed
    again_.expires_after(Milliseconds(50));
    again_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (!cancelled) self->accept();
    });
    return;
  }
  auto connection = std::make_shared<Connection>(shared_from_this(), std::move(socket));
  std::size_t count;
  {
    std::lock_guard lock(mutex_);
    connections_.emplace(connection.get(), connection);
    count = connections_.size();
  }
  asio::post(connection->executor(), [this, connection, over = count > options.connections,
                                      far_over = count > options.connections + refused_at_once] {
    far_over || closed_ ? connection->drop() : over ? connection->start_refused() : connection->start();
  });
  accept();
}

void HttpService::left(const Connection* connection) {
  std::lock_guard lock(mutex_);
  connections_.erase(connection);
  changed_.notify_all();
}

std::size_t HttpService::connections() {
  std::lock_guard lock(mutex_);
  return connections_.size();
}

bool HttpService::reserve(std::size_t bytes) {
  std::size_t now = body_bytes_;
  do {
    if (bytes > options.all_body_bytes - std::min(now, options.all_body_bytes)) return false;
  } while (!body_bytes_.compare_exchange_weak(now, now + bytes));
  return true;
}

void HttpService::count_answering(int change) {
  std::lock_guard lock(mutex_);
  answering_ += change;
  changed_.notify_all();
}

std::vector<std::shared_ptr<Connection>> HttpService::all() {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Connection>> list;
  for (const auto& [key, weak] : connections_) {
    if (auto connection = weak.lock()) list.push_back(std::move(connection));
  }
  return list;
}

void HttpService::stop(Milliseconds time) {
  std::call_once(stopped_, [&] {
    draining_ = true;
    for (const auto& connection : all())
      asio::post(connection->executor(), [connection] { connection->close_if_idle(); });
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, time, [&] { return answering_ == 0; });
    }
    asio::post(io_, [self = shared_from_this()] {
      error_code ignored;
      self->acceptor_.close(ignored);
      self->again_.cancel();
    });
    // Answers that have ended are read to their end; whoever keeps a connection open is not waited for.
    const auto until = std::chrono::steady_clock::now() + (time.count() > 0 ? linger_time : Milliseconds(0));
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, until, [&] { return connections_.empty(); });
    }
    closed_ = true;
    for (const auto& connection : all()) asio::post(connection->executor(), [connection] { connection->drop(); });
    work_.reset();
    for (auto& thread : threads_) thread.join();
  });
}

HttpServer::HttpServer(HttpOptions options, Handler handler)
    : service_(std::make_shared<HttpService>(std::move(options), std::move(handler))) {
  service_->listen();
}
HttpServer::~HttpServer() { stop(); }
const std::string& HttpServer::address() const { return service_->address; }
std::uint16_t HttpServer::port() const { return service_->port; }
std::size_t HttpServer::connections() const { return service_->connections(); }
void HttpServer::stop(std::chrono::milliseconds time) { service_->stop(time); }

}  // namespace troika::serving
