// SPDX-License-Identifier: Apache-2.0
// Any body to any endpoint gets one answer, with a status that is documented; what is streamed ends. The input is
// "METHOD path" on its first line, then the body.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <troika/core/error.hpp>
#include <troika/serving/api.hpp>

#include "serving/api_fixture.hpp"

namespace {

using namespace troika;
using namespace troika::serving;

// Says a few bytes at once, on the thread that asks; they are not UTF-8.
struct Instant final : Engine {
  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    const auto prompt = static_cast<std::int64_t>(request.prompt.size());
    expects(prompt >= 1 && prompt < context(), "the prompt does not fit");
    expects(request.max_tokens >= 0, "max_tokens is below 0");
    GenerationEnd end{.prompt_tokens = prompt};
    while (end.tokens < std::min<std::int64_t>(request.max_tokens, 6))
      events.on_token("{\xe2\x82 \"a"[end.tokens++] & 255);
    if (end.tokens == request.max_tokens) end.finish = Finish::length;
    events.on_end(end);
    struct Done final : Generation {
      void cancel() noexcept override {}
    };
    return std::make_shared<Done>();
  }
  std::int64_t context() const override { return 200; }
  EngineLoad load() const override { return {.ready = true, .devices = 1}; }
};

struct Server {
  Server() { test::write_models(folder); }

  test::TempFolder folder;
  ModelStore store{folder.path(), Log::silent()};
  ModelHost host{[](const StoredModel&) { return std::make_unique<Instant>(); }, {.log = Log::silent()}};
  Api api{store, host, {.workers = 1, .log = Log::silent()}};
};

constexpr std::array documented{200, 204, 400, 404, 405, 501, 503};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::optional<Server> server;
  if (!server) server.emplace();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto line = input.substr(0, input.find('\n'));
  const auto space = std::min(line.find(' '), line.size());
  HttpRequest request{std::string(line.substr(0, space)), std::string(line.substr(std::min(space + 1, line.size())))};
  request.body = input.substr(std::min(line.size() + 1, input.size()));

  auto reply = std::make_shared<test::RecordedReply>();
  server->api(request, reply);
  const auto answer = reply->finished();
  if (std::ranges::find(documented, answer.status) == documented.end()) {
    std::fprintf(stderr, "%d: %s\n", answer.status, answer.body.c_str());
    std::abort();
  }
  // What was copied or removed is put back.
  constexpr std::array files{"small", "chat", "notes.txt", "empty", "broken.gguf"};
  const std::filesystem::directory_iterator all(server->folder.path());
  const auto count = std::count_if(begin(all), end(all), [&](const auto& entry) {
    return std::ranges::find(files, entry.path().filename().string()) != files.end();
  });
  const std::filesystem::directory_iterator again(server->folder.path());
  if (count != std::ssize(files) || std::distance(begin(again), end(again)) != std::ssize(files)) {
    server.reset();
    server.emplace();
  }
  return 0;
}
