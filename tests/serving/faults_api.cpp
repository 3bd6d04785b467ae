// SPDX-License-Identifier: Apache-2.0
//
// Devices that fail or hang while a client waits for its answer.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/tiny_model.hpp>

#include "api_fixture.hpp"
#include "faults.hpp"

#include <troika/serving/device_groups.hpp>
#include <troika/serving/metrics.hpp>

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using troika::test::ApiFixture;
using troika::test::Fault;
using troika::test::Json;
namespace serving = troika::serving;

namespace {

// What the server says in its log, from any thread.
class Told {
 public:
  troika::Log log() {
    return troika::Log([this](troika::LogLevel, std::string_view text) {
      std::lock_guard lock(mutex_);
      text_ += std::string(text) + "\n";
    });
  }
  std::string text() const {
    std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

// A server whose models are small, but run.
class Server {
 public:
  explicit Server(int devices, int groups = 1, serving::EngineOptions engine = {}, double models = 100) {
    engine.kv_type = troika::KvType::f32;
    engine.log = told.log();
    model_.positions = 400;
    model_.write(sizes_.path());
    const auto bytes = serving::DeviceGroups::bytes_needed(
        {.name = "", .path = sizes_.path(), .bytes = std::filesystem::file_size(sizes_.path() / "model.safetensors")},
        engine);
    groups_.emplace(serving::server_cores(std::vector<std::vector<int>>(static_cast<std::size_t>(devices)),
                                          {.precision = troika::Precision::exact}),
                    groups,
                    serving::DeviceGroups::Options{
                        .memory = static_cast<std::uint64_t>(models * static_cast<double>(bytes)), .engine = engine});
    api.emplace([this](const serving::StoredModel& model) { return watch.watch(model.name, groups_->load(model)); });
    for (const std::string name : {"small", "chat"}) model_.write(api->folder.path() / name);
  }

  static Json request(bool stream = true, const std::string& prompt = "hello, is anybody there?") {
    return {{"model", "small"},
            {"prompt", prompt},
            {"stream", stream},
            {"options", {{"temperature", 1}, {"seed", 7}, {"num_predict", 40}}}};
  }
  // The whole text, or nothing where the answer says that it is broken.
  static std::optional<std::string> text_of(const serving::HttpAnswer& answer) {
    if (answer.status != 200) {
      CHECK(answer.status == 503);
      CHECK(Json::parse(answer.body).contains("error"));
      bool retry = false;
      for (const auto& [name, value] : answer.headers) retry |= name == "Retry-After";
      CHECK(retry);
      return std::nullopt;
    }
    std::string text;
    const auto parts = troika::test::lines(answer.body);
    for (const auto& part : parts) {
      if (part.contains("response")) text += part["response"].get<std::string>();
    }
    if (parts.back().contains("error")) return std::nullopt;
    CHECK(parts.back()["done"] == true);
    return text;
  }
  std::optional<std::string> ask() { return text_of(api->post("/api/generate", request())); }
  // Until it answers.
  std::string ask_again() {
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (std::chrono::steady_clock::now() < until) {
      if (const auto text = ask()) return *text;
      std::this_thread::sleep_for(10ms);
    }
    throw std::runtime_error("no answer in 60 s");
  }
  Json place() { return api->get("/api/ps")["models"].at(0); }

  Told told;
  serving::EngineWatch watch;
  serving::Metrics metrics{watch};

 private:
  TinyModel model_ = TinyModel::make("qwen2", 41, troika::DType::f32, 262);
  troika::test::TempFolder sizes_;
  std::optional<serving::DeviceGroups> groups_;

 public:
  std::optional<ApiFixture> api;  // first to go
};

std::string undisturbed() {
  static const std::string text = Server(1).ask().value();
  return text;
}

double milliseconds_since(Fault::Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Fault::Clock::now() - begin).count();
}

}  // namespace

TEST_CASE("a device that fails in the middle of an answer changes nothing in it while others are left") {
  REQUIRE(undisturbed().size() > 20);
  for (const int count : {2, 3, 4}) {
    INFO(count << " devices");
    Fault fault(Fault::Kind::throws, count / 2, 12);
    Server server(count, 1, {.before_step = fault.hook()});
    const auto reply = server.api->send("POST", "/api/generate", Server::request().dump());
    fault.at();
    const auto parts = [&](const serving::HttpAnswer& answer) { return std::ranges::count(answer.body, '\n'); };
    std::ptrdiff_t before = -1;
    REQUIRE(reply->wait([&](const auto& answer, bool ended) {
      if (before < 0) before = parts(answer);
      return ended || parts(answer) > before + 1;
    }));
    std::printf("%d devices, one failed: the answer went on after %.0f ms\n", count, milliseconds_since(fault.at()));
    CHECK(Server::text_of(reply->finished()) == undisturbed());
    const auto place = server.place();
    CHECK(place["devices"] == count - 1);
    CHECK(place["groups"].at(0)["ready"] == true);
    CHECK(place["groups"].at(0)["devices"].size() == static_cast<std::size_t>(count - 1));
    CHECK_THAT(server.told.text(), ContainsSubstring("host:" + std::to_string(count / 2) + " failed and is left out") &&
                                       ContainsSubstring("the device caught fire"));
    CHECK(server.ask() == undisturbed());
    server.api.reset();
  }
}

TEST_CASE(
    "a device that hangs in the middle of an answer is given up, and the answer is whole or says that it is not") {
  for (const int count : {1, 2, 3, 4}) {
    INFO(count << " devices");
    Fault fault(Fault::Kind::hangs, count - 1, 12);
    {
      // One device has ten times as long for a step as several have to wait for each other.
      Server server(count, 1, {.deadline = count == 1 ? 400ms : 4000ms, .before_step = fault.hook()});
      const auto answer = server.api->post("/api/generate", Server::request());
      const auto done = milliseconds_since(fault.at());
      const auto text = Server::text_of(answer);
      CHECK((!text || text == undisturbed()));
      if (count == 1) CHECK(!text);
      CHECK(server.ask_again() == undisturbed());
      std::printf("%d devices, one hung: %s after %.0f ms, the next answer after %.0f ms\n", count,
                  text ? "the answer was complete" : "the answer said that it broke", done,
                  milliseconds_since(fault.at()));
      CHECK_THAT(server.told.text(), ContainsSubstring("host:" + std::to_string(count - 1)) &&
                                         ContainsSubstring("hung; it is left to itself"));
      server.api.reset();  // with the device still hanging
    }
    fault.release();
  }
}

TEST_CASE("when all devices of the only group failed, clients learn it, and the model is loaded again for the next") {
  for (const bool stream : {false, true}) {
    Fault fault(Fault::Kind::throws, 0, 12);
    Server server(1, 1, {.before_step = fault.hook()});
    const auto answer = server.api->post("/api/generate", Server::request(stream));
    CHECK(answer.status == (stream ? 200 : 503));
    CHECK(Server::text_of(answer) == std::nullopt);
    CHECK_THAT(answer.body, ContainsSubstring("the device caught fire"));
    CHECK(server.ask() == undisturbed());
    CHECK(server.place()["devices"] == 1);
    server.api.reset();
  }
}

TEST_CASE("a model that cannot be loaded again says why") {
  // The second load fails, too.
  auto loads = std::make_shared<std::atomic<int>>(0);
  serving::EngineOptions engine{.before_step = [](int, std::uint64_t step) {
    if (step > 12) throw std::runtime_error("the device caught fire");
  }};
  engine.progress = [loads](std::uint64_t) {
    if (++*loads > 100) throw std::runtime_error("the file is gone");
  };
  Server server(1, 1, engine);
  CHECK(server.ask() == std::nullopt);
  *loads = 1000;
  const auto answer = server.api->post("/api/generate", Server::request(false));
  CHECK(answer.status == 500);
  CHECK_THAT(answer.body, ContainsSubstring("the file is gone"));
}

TEST_CASE("what a group gives up goes on in another, which is seen in the log, in /api/ps and in metrics") {
  Fault fault(Fault::Kind::throws, 0, 12);
  Server server(2, 2, {.before_step = fault.hook()});
  const auto reply = server.api->send("POST", "/api/generate", Server::request().dump());
  CHECK(Server::text_of(reply->finished()) == undisturbed());
  CHECK(fault.happened());
  const auto place = server.place();
  CHECK(place["allocation"] == "dynamic");
  CHECK_THAT(place["reason"].get<std::string>(), ContainsSubstring("small"));
  REQUIRE(place["groups"].size() == 2);
  CHECK(place["groups"][0]["group"] == "0");
  CHECK(place["groups"][0]["ready"] == false);
  CHECK(place["groups"][1]["devices"] == Json{"host:1"});
  CHECK(place["groups"][1]["ready"] == true);
  CHECK_THAT(server.metrics.text(),
             ContainsSubstring("troika_model_placements{group=\"0\",model_name=\"small:latest\"} 0") &&
                 ContainsSubstring("troika_model_placements{group=\"1\",model_name=\"small:latest\"} 1"));
  CHECK_THAT(server.told.text(),
             ContainsSubstring("a request goes on elsewhere") && ContainsSubstring("the device caught fire"));
  for (int i = 0; i < 3; ++i) CHECK(server.ask() == undisturbed());
  CHECK(server.api->post("/api/generate", {{"model", "small"}, {"keep_alive", 0}}).status == 200);
  while (server.metrics.text().find("troika_model_placements{") != std::string::npos) std::this_thread::sleep_for(1ms);
  server.api.reset();
}

TEST_CASE("a model that finds no memory takes that of one that is idle; what nothing makes room for says so") {
  Server server(2, 1, {}, 1.5);
  CHECK(server.ask() == undisturbed());
  auto other = Server::request(false);
  other["model"] = "chat";
  CHECK(server.api->post("/api/generate", other).status == 200);
  CHECK(server.api->get("/api/ps")["models"].size() == 1);
  CHECK(server.place()["name"] == "chat:latest");

  Server narrow(2, 1, {}, 0.5);
  const auto refused = narrow.api->post("/api/generate", Server::request());
  CHECK(refused.status == 400);
  CHECK_THAT(refused.body, ContainsSubstring("needs ") && ContainsSubstring("do not have"));
}
