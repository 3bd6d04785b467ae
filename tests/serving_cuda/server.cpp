// SPDX-License-Identifier: Apache-2.0
//
// The server on GPUs, from a request of a client to the answer.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <cuda/runtime/recorder.hpp>
#include <serving/api_fixture.hpp>
#include <support/catch.hpp>
#include <support/tiny_model.hpp>

#include <troika/serving/cuda_engine.hpp>
#include <troika/serving/device_groups.hpp>

using troika::recording::Recording;
using troika::test::ApiFixture;
using troika::test::Json;
namespace serving = troika::serving;

namespace {

// A client's question and /api/ps, of a server on these devices.
std::pair<std::string, Json> asked(serving::ServerDevices devices, int groups) {
  serving::DeviceGroups::Options options;
  options.engine = {.kv_type = troika::KvType::f32,
                    .step_tokens = 64,
                    .mixed_tokens = 64,
                    .most_running = 8,
                    .log = troika::Log::silent()};
  serving::DeviceGroups on(std::move(devices), groups, options);
  ApiFixture api([&](const serving::StoredModel& model) { return on.load(model); });
  TinyModel::make("qwen2", 41, troika::DType::f32, 262).write(api.folder.path() / "small");
  const auto answer = api.json("/api/generate", {{"model", "small"},
                                                 {"prompt", "hello"},
                                                 {"stream", false},
                                                 {"options", {{"temperature", 1}, {"seed", 7}, {"num_predict", 8}}}});
  return {answer["response"].get<std::string>(), api.get("/api/ps")["models"].at(0)};
}

}  // namespace

TEST_CASE("a server on GPUs answers a client as one on cores does, and tells that the model is on GPUs") {
  const auto [expected, on_cores] = asked(serving::server_cores({{}}, {.precision = troika::Precision::exact}), 1);
  CHECK(on_cores["size_vram"] == 0);
  const Recording recording({.gpus = 4, .schedule = {troika::shim::Schedule::Order::forward}});
  const auto [text, place] = asked(serving::server_gpus({3, 0, 2}, {.precision = troika::Precision::exact}), 2);
  CHECK(text == expected);
  CHECK(text != "");
  CHECK(place["size_vram"].get<std::int64_t>() > 0);
  CHECK(place["size_vram"] == place["size"]);
  CHECK(place["groups"][0]["devices"] == Json{"cuda:3", "cuda:0"});
  CHECK(place["groups"][1]["devices"] == Json{"cuda:2"});
  CHECK(recording.problems().empty());
  CHECK(recording.live().empty());
}

TEST_CASE("a server's GPUs are those of its list; one that is not there is one error, as is a machine without any") {
  CHECK_THROWS_WITH(serving::server_gpus(), Catch::Matchers::ContainsSubstring("no GPU, or no driver for it"));
  const Recording recording({.gpus = 2});
  CHECK_THROWS_WITH(serving::server_gpus({0, 2}),
                    Catch::Matchers::ContainsSubstring("there is no GPU 2; valid are 0 to 1, each once"));
  CHECK(serving::server_gpus({1}).count == 1);
  CHECK(serving::server_gpus().memory == 2 * (std::uint64_t{512} << 20) / 10 * 9);
}
