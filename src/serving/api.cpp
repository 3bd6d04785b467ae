// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/api.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <exception>

#include <troika/version.hpp>

#include "embed_run.hpp"
#include "model_defaults.hpp"
#include "models_api.hpp"
#include "text_run.hpp"
#include "workers.hpp"

namespace troika::serving {
namespace {

struct Endpoint {
  std::string_view method, path;
};
// What this server does not do, but clients know. They learn it plainly.
constexpr std::array unbuilt{
    Endpoint{"POST", "/api/create"},   Endpoint{"POST", "/api/pull"},    Endpoint{"POST", "/api/push"},
    Endpoint{"POST", "/v1/responses"}, Endpoint{"POST", "/v1/messages"},
};
constexpr std::array built{
    Endpoint{"GET", "/"},
    Endpoint{"GET", "/api/version"},
    Endpoint{"GET", "/api/tags"},
    Endpoint{"GET", "/api/ps"},
    Endpoint{"POST", "/api/show"},
    Endpoint{"POST", "/api/copy"},
    Endpoint{"DELETE", "/api/delete"},
    Endpoint{"POST", "/api/generate"},
    Endpoint{"POST", "/api/chat"},
    Endpoint{"POST", "/api/embed"},
    Endpoint{"POST", "/api/embeddings"},
    Endpoint{"GET", "/v1/models"},
    Endpoint{"POST", "/v1/chat/completions"},
    Endpoint{"POST", "/v1/completions"},
    Endpoint{"POST", "/v1/embeddings"},
};

// The path of a target, with %xx read.
std::string path_of(std::string_view target) {
  target = target.substr(0, target.find_first_of("?#"));
  std::string path;
  for (std::size_t i = 0; i < target.size(); ++i) {
    unsigned char byte = 0;
    if (target[i] == '%' && i + 2 < target.size() &&
        std::from_chars(target.data() + i + 1, target.data() + i + 3, byte, 16).ptr == target.data() + i + 3) {
      path += static_cast<char>(byte);
      i += 2;
    } else {
      path += target[i];
    }
  }
  return path;
}

// Refused pages never get here, so any Origin may read the answer.
HttpFields cross_origin(const HttpRequest& request) {
  if (request.count("Origin") == 0) return {};
  return {{"Access-Control-Allow-Origin", std::string(request.header("Origin"))}, {"Vary", "Origin"}};
}

HttpAnswer preflight() {
  return {
      204,
      {{"Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE, OPTIONS"},
       {"Access-Control-Allow-Headers",
        "Authorization, Content-Type, User-Agent, Accept, X-Requested-With, x-stainless-lang, "
        "x-stainless-package-version, "
        "x-stainless-os, x-stainless-arch, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, "
        "x-stainless-async, x-stainless-helper-method, x-stainless-poll-helper, x-stainless-custom-poll-interval, "
        "x-stainless-timeout"},
       {"Access-Control-Max-Age", "3600"}},
      ""};
}

}  // namespace

Api::Api(const ModelStore& store, ModelHost& host, Options options)
    : store_(store),
      host_(host),
      options_(std::move(options)),
      pending_(std::make_unique<Pending>()),
      workers_(std::make_unique<Workers>(std::max(1, options_.workers))) {}
Api::~Api() { pending_->wait(); }

void Api::operator()(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  workers_->post([this, request = std::move(request), reply = std::move(reply)] {
    HttpFields headers = cross_origin(request);
    const ErrorAnswer error = request.target.starts_with("/v1/") ? openai_error : ollama_error;
    try {
      route(request, reply, headers);
    } catch (...) {
      HttpAnswer answer = failure_answer(std::current_exception(), error, true);
      answer.headers.insert(answer.headers.end(), headers.begin(), headers.end());
      reply->answer(std::move(answer));
    }
  });
}

void Api::route(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply, HttpFields headers) {
  const auto path = path_of(request.target);
  const std::string_view method = request.method == "HEAD" ? std::string_view("GET") : request.method;
  const auto is = [&](std::string_view wanted_method, std::string_view wanted) {
    return method == wanted_method && path == wanted;
  };
  const auto answer = [reply, headers](HttpAnswer text) {
    text.headers.insert(text.headers.end(), headers.begin(), headers.end());
    reply->answer(std::move(text));
  };
  const auto write = [&](TextRequest text, auto make_format, ErrorAnswer error) {
    auto format = make_format(text);
    const auto model = find_model(store_, text.model);
    const auto unloads = text.unloads();
    if (!unloads) check_writes(model, text.chat ? "chat" : "generate");
    const auto keep_alive = text.keep_alive;
    const auto run = std::make_shared<TextRun>(*workers_, *pending_, std::move(text), std::move(format),
                                               TextRun::To{reply, headers, request.peer, error}, options_.max_wait,
                                               options_.queue_time);
    if (unloads) {
      host_.unload(model.name);
      return run->answer_without_text("unload");
    }
    run->watch_client();
    host_.acquire(model, keep_alive, [run](ModelHost::Lease lease, std::exception_ptr failure) {
      run->have_model(std::move(lease), failure);
    });
  };

  const auto body = [&] { return with_model_defaults(store_, path, request.body); };
  const auto embed = [&](EmbedRequest texts, ErrorAnswer error) {
    const auto model = find_model(store_, texts.model);
    check_embeds(store_, model);
    const auto keep_alive = texts.keep_alive;
    const auto run = std::make_shared<EmbedRun>(*workers_, *pending_, std::move(texts),
                                                TextRun::To{reply, headers, request.peer, error},
                                                std::min(options_.max_wait, options_.queue_time));
    run->watch_client();
    host_.acquire(model, keep_alive, [run](ModelHost::Lease lease, std::exception_ptr failure) {
      run->have_model(std::move(lease), failure);
    });
  };

  if (method == "OPTIONS") return answer(preflight());
  if (is("GET", "/")) return answer({200, {{"Content-Type", "text/plain; charset=utf-8"}}, "Ollama is running"});
  if (is("GET", "/api/version")) {
    const auto text =
        std::to_string(version.major) + "." + std::to_string(version.minor) + "." + std::to_string(version.patch);
    return answer(json_answer(200, {{"version", text}}));
  }
  if (is("GET", "/api/tags")) return answer(json_answer(200, list_models(store_)));
  if (is("GET", "/api/ps")) return answer(json_answer(200, loaded_models(host_)));
  if (is("POST", "/api/show")) return answer(json_answer(200, show_model(store_, request.body)));
  if (is("POST", "/api/copy")) return copy_model(store_, request.body), answer({200, {}, ""});
  if (is("DELETE", "/api/delete")) return delete_model(store_, host_, request.body), answer({200, {}, ""});
  if (is("POST", "/api/generate")) return write(parse_generate(body()), ollama_format, ollama_error);
  if (is("POST", "/api/chat")) return write(parse_chat(body()), ollama_format, ollama_error);
  if (is("POST", "/api/embed")) return embed(parse_embed(request.body), ollama_error);
  if (is("POST", "/api/embeddings")) return embed(parse_embeddings(request.body), ollama_error);
  if (is("GET", "/v1/models")) return answer(json_answer(200, openai_models(store_)));
  if (constexpr std::string_view one = "/v1/models/"; method == "GET" && path.starts_with(one)) {
    return answer(json_answer(200, openai_model(store_, path.substr(one.size()))));
  }
  if (is("POST", "/v1/chat/completions")) return write(parse_openai_chat(body()), openai_format, openai_error);
  if (is("POST", "/v1/completions")) return write(parse_openai_completion(body()), openai_format, openai_error);
  if (is("POST", "/v1/embeddings")) return embed(parse_openai_embeddings(request.body), openai_error);
  if (const auto page = options_.pages.find(path); method == "GET" && page != options_.pages.end())
    return page->second(request, answer);

  const auto same_path = [&](const Endpoint& endpoint) { return endpoint.path == path; };
  if (std::ranges::any_of(unbuilt, same_path) || path.starts_with("/api/blobs/"))
    throw Refusal(501, path + " is not supported by this server");
  if (const auto* known = std::ranges::find_if(built, same_path); known != built.end()) {
    throw Refusal(405, path + " is asked with " + std::string(known->method));
  }
  throw Refusal(404, "there is nothing at this path");
}

}  // namespace troika::serving
