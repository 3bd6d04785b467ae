// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include <troika/serving/engine.hpp>

namespace stress {

// A server behind a URL as an engine: each request goes to its /v1/completions, as OpenAI's API streams it, over a
// connection of its own, with token ids as the prompt. What ends as failed has the HTTP status as its error, or what
// went wrong on the way. on_token comes with each piece of text, which may hold several tokens; GenerationEnd has their
// count.
class HttpEngine final : public troika::serving::Engine {
 public:
  // Error{invalid_argument} for what is no http://host:port, or names no host that is known.
  HttpEngine(const std::string& url, std::string model);
  ~HttpEngine() override;  // cuts off what runs

  std::shared_ptr<troika::serving::Generation> start(troika::serving::GenerationRequest request,
                                                     troika::serving::GenerationEvents events) override;
  std::int64_t context() const override { return 0; }               // the server does not say
  troika::serving::EngineLoad load() const override { return {}; }  // likewise

 private:
  class Client;
  std::unique_ptr<Client> client_;
};

}  // namespace stress
