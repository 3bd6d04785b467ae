// SPDX-License-Identifier: Apache-2.0
#include "http_engine.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <nlohmann/json.hpp>

#include <chrono>
#include <limits>
#include <thread>
#include <utility>

#include <troika/core/error.hpp>

namespace stress {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace serving = troika::serving;
using asio::ip::tcp;
using boost::system::error_code;
using Json = nlohmann::json;

constexpr std::chrono::minutes patience{10};  // without a byte

// One request under way, on the client's thread.
class Exchange final : public serving::Generation, public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(asio::io_context& io, const tcp::resolver::results_type& server, http::request<http::string_body> request,
           serving::GenerationEvents events)
      : io_(io), server_(server), stream_(io), request_(std::move(request)), events_(std::move(events)) {
    parser_.body_limit(std::numeric_limits<std::uint64_t>::max());  // none at all refuses all in Boost 1.74
  }

  void cancel() noexcept override {
    asio::post(io_, [self = shared_from_this()] { self->finish(serving::Finish::cancelled, {}); });
  }

  void begin() {
    stream_.expires_after(patience);
    stream_.async_connect(server_, [self = shared_from_this()](error_code error, const tcp::endpoint&) {
      if (error) return self->fail("cannot connect: " + error.message());
      error_code ignored;
      self->stream_.socket().set_option(tcp::no_delay(true), ignored);
      http::async_write(self->stream_, self->request_, [self](error_code failed, std::size_t) {
        // A server may answer and close before it has read everything.
        (void)failed;
        self->read();
      });
    });
  }

 private:
  void read() {
    if (ended_) return;
    stream_.expires_after(patience);
    http::async_read_some(stream_, buffer_, parser_,
                          [self = shared_from_this()](error_code error, std::size_t) { self->have_read(error); });
  }

  void have_read(error_code error) {
    if (ended_) return;
    if (error && error != http::error::end_of_stream) return fail("cut off: " + error.message());
    if (parser_.is_header_done() && parser_.get().result_int() != 200) {
      // Nothing of an answer but its status counts, and whether it says when to come again.
      const auto status = parser_.get().result_int();
      const bool again = parser_.get().count(http::field::retry_after) > 0;
      return fail(std::to_string(status) + ((status == 429 || status == 503) && !again ? " without Retry-After" : ""));
    }
    text_ += std::exchange(parser_.get().body(), {});
    try {
      for (auto end = text_.find('\n'); end != std::string::npos && !ended_; end = text_.find('\n')) {
        have_line(text_.substr(0, end));
        text_.erase(0, end + 1);
      }
    } catch (const Json::exception& wrong) {
      return fail(std::string("no JSON in a stream: ") + wrong.what());
    }
    if (ended_) return;
    if (error || parser_.is_done()) return fail("cut off: the answer ended without [DONE]");
    read();
  }

  // Of server-sent events
  void have_line(std::string line) {
    if (line.ends_with('\r')) line.pop_back();
    constexpr std::string_view data = "data: ";
    if (!line.starts_with(data)) return;
    line.erase(0, data.size());
    if (line == "[DONE]") return finish(finish_, {});
    const Json json = Json::parse(line);
    if (json.contains("error")) return fail("given up in its middle: " + json["error"].dump());
    for (const auto& choice : json.value("choices", Json::array())) {
      if (choice.contains("finish_reason") && choice["finish_reason"].is_string())
        finish_ = choice["finish_reason"] == "length" ? serving::Finish::length : serving::Finish::stop;
      if (!choice.value("text", "").empty()) events_.on_token(0);
    }
    if (json.contains("usage") && json["usage"].is_object()) {
      end_.tokens = json["usage"].value("completion_tokens", std::int64_t{0});
      end_.prompt_tokens = json["usage"].value("prompt_tokens", std::int64_t{0});
    }
    if (json.contains("devices")) end_.devices = json.value("devices", "");
  }

  void fail(std::string error) { finish(serving::Finish::failed, std::move(error)); }
  void finish(serving::Finish finish, std::string error) {
    if (std::exchange(ended_, true)) return;
    error_code ignored;
    stream_.socket().close(ignored);
    end_.finish = finish;
    end_.error = std::move(error);
    events_.on_end(end_);
  }

  asio::io_context& io_;
  const tcp::resolver::results_type& server_;
  boost::beast::tcp_stream stream_;
  const http::request<http::string_body> request_;
  const serving::GenerationEvents events_;
  boost::beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  std::string text_;  // of which no whole line was read
  serving::Finish finish_ = serving::Finish::stop;
  serving::GenerationEnd end_;
  bool ended_ = false;
};

}  // namespace

class HttpEngine::Client {
 public:
  Client(const std::string& url, std::string model) : model_(std::move(model)) {
    constexpr std::string_view scheme = "http://";
    auto place = url.starts_with(scheme) ? url.substr(scheme.size()) : std::string();
    while (place.ends_with('/')) place.pop_back();
    const auto colon = place.rfind(':');
    troika::expects(colon != std::string::npos && colon > 0, [&] {
      return "a server is http://host:port, such as http://127.0.0.1:11434, not \"" + url + "\"";
    });
    host_ = place;
    auto name = place.substr(0, colon);
    if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
    error_code error;
    server_ = tcp::resolver(io_).resolve(name, place.substr(colon + 1), error);
    troika::expects(!error, [&] { return "nobody knows where " + url + " is: " + error.message(); });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Client() {
    io_.stop();
    thread_.join();
  }

  std::shared_ptr<serving::Generation> start(const serving::GenerationRequest& wanted,
                                             serving::GenerationEvents events) {
    http::request<http::string_body> request(http::verb::post, "/v1/completions", 11);
    request.set(http::field::host, host_);
    request.set(http::field::content_type, "application/json");
    request.keep_alive(false);
    // So many tokens, whatever is drawn: ignore_eos is not OpenAI's, but what servers for benchmarks call it.
    request.body() = Json{{"model", model_},
                          {"prompt", wanted.prompt},
                          {"max_tokens", wanted.max_tokens},
                          {"temperature", wanted.sampling.temperature},
                          {"ignore_eos", true},
                          {"stream", true},
                          {"stream_options", {{"include_usage", true}}}}
                         .dump();
    request.prepare_payload();
    auto exchange = std::make_shared<Exchange>(io_, server_, std::move(request), std::move(events));
    asio::post(io_, [exchange] { exchange->begin(); });
    return exchange;
  }

 private:
  const std::string model_;
  std::string host_;
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  tcp::resolver::results_type server_;
  std::thread thread_;
};

HttpEngine::HttpEngine(const std::string& url, std::string model)
    : client_(std::make_unique<Client>(url, std::move(model))) {}
HttpEngine::~HttpEngine() = default;
std::shared_ptr<serving::Generation> HttpEngine::start(serving::GenerationRequest request,
                                                       serving::GenerationEvents events) {
  return client_->start(request, std::move(events));
}

}  // namespace stress
