// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include <troika/observe/log.hpp>
#include <troika/serving/http_server.hpp>
#include <troika/serving/model_host.hpp>
#include <troika/serving/model_store.hpp>

namespace troika::serving {

class Pending;
class Workers;

// Answers requests the way Ollama does (/api/...) and the way OpenAI does (/v1/...), from the models of a store.
class Api {
 public:
  // Calls `answer` once, now or later, on any thread.
  using Page = std::function<void(const HttpRequest&, std::function<void(HttpAnswer)> answer)>;
  struct Options {
    // Both count from when the model is there, and end with 503: who is expected to wait longer than max_wait is told so
    // at once; who does not begin within queue_time, then.
    std::chrono::milliseconds max_wait{300'000}, queue_time{300'000};
    int workers = 2;                      // threads that read requests and write answers
    std::map<std::string, Page> pages{};  // further paths for GET, such as /metrics
    Log log{};
  };

  // Both outlive it. Stop the server first.
  Api(const ModelStore& store, ModelHost& host) : Api(store, host, Options{}) {}
  Api(const ModelStore& store, ModelHost& host, Options options);
  ~Api();  // waits for what runs

  // A handler for HttpServer: hands over and returns. Any thread.
  void operator()(HttpRequest request, std::shared_ptr<HttpReply> reply);

 private:
  void route(const HttpRequest& request, const std::shared_ptr<HttpReply>& reply, HttpFields headers);

  const ModelStore& store_;
  ModelHost& host_;
  const Options options_;
  std::unique_ptr<Pending> pending_;  // runs, which use the workers
  std::unique_ptr<Workers> workers_;
};

}  // namespace troika::serving
