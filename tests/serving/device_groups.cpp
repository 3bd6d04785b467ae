// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>

#include "held_engine.hpp"

#include <troika/serving/device_groups.hpp>

using Catch::Matchers::ContainsSubstring;
using troika::serving::DeviceGroups;
using troika::serving::Engine;
using troika::serving::StatedPlace;
using troika::serving::StoredModel;
using troika::serving::Teams;

namespace {

// Groups with room for so many models like the one that it has, on engines that do nothing by themselves.
struct Server {
  explicit Server(int devices, int count, double room, DeviceGroups::Options options = {})
      : file(TinyModel::make("llama")) {
    needed = DeviceGroups::bytes_needed(stored("any"), options.engine);
    options.memory = static_cast<std::uint64_t>(room * static_cast<double>(needed));
    options.engine.log =
        troika::Log([this](troika::LogLevel, std::string_view text) { told += std::string(text) + "\n"; });
    const auto make = [this](std::span<const int> on, const std::filesystem::path&, troika::serving::EngineOptions) {
      auto engine = std::make_unique<Held>();
      for (const int device : on) engine->devices.push_back(std::to_string(device));
      made.push_back(engine.get());
      return engine;
    };
    groups =
        std::make_unique<DeviceGroups>(troika::serving::ServerDevices{devices, 0, make}, count, std::move(options));
  }
  StoredModel stored(const std::string& name) const {
    return {.name = name, .path = file.folder.path(), .bytes = 50000};
  }
  std::unique_ptr<Engine> load(const std::string& name) { return groups->load(stored(name)); }

  LoadedModel file;
  std::uint64_t needed = 0;
  std::string told;
  std::vector<Held*> made;
  std::unique_ptr<DeviceGroups> groups;
};

// "0 1+2": the groups that have the model.
std::string where(const Engine& engine) {
  std::string text;
  for (const auto& group : engine.place().groups) text += (text.empty() ? "" : " ") + group.name;
  return text;
}

std::string refusal(Server& server, const std::string& name) {
  try {
    (void)server.load(name);
  } catch (const troika::Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a small model has a replica in each group, and requests go where there is least to do") {
  Server server(5, 3, 10);
  const auto engine = server.load("small");
  CHECK(where(*engine) == "0 1 2");
  const auto place = engine->place();
  CHECK(place.allocation == "dynamic");
  CHECK_THAT(place.reason, ContainsSubstring("small"));
  CHECK(place.groups[0].devices == std::vector<std::string>{"0", "1"});
  CHECK(place.groups[1].devices == std::vector<std::string>{"2", "3"});
  CHECK(place.groups[2].devices == std::vector<std::string>{"4"});
  for (int i = 0; i < 6; ++i) (void)engine->start({.prompt = {1}, .max_tokens = 10}, {});
  for (const auto* held : server.made) CHECK(held->tickets.size() == 2);
  CHECK(engine->place().groups[1].queued == 2);
  CHECK_THAT(server.told,
             ContainsSubstring("small (") && ContainsSubstring("goes to each of the groups 0, 1, 2: small"));
}

TEST_CASE("a model that fits a group goes to the one with least to do, until there is no room") {
  Server server(2, 2, 2.5);
  auto a = server.load("a");
  CHECK(where(*a) == "0");
  CHECK_THAT(a->place().reason, ContainsSubstring("picked by dynamic allocation from 2 groups") &&
                                    ContainsSubstring("free, 0 requests, not measured yet"));
  const auto b = server.load("b");
  CHECK(where(*b) == "1");
  (void)a->start({.prompt = {1}, .max_tokens = 10}, {});
  const auto c = server.load("c");
  CHECK(where(*c) == "1");  // the other one is asked something
  const auto d = server.load("d");
  CHECK(where(*d) == "0");
  CHECK_THAT(refusal(server, "e"),
             ContainsSubstring("model 'e' needs ") && ContainsSubstring("free of") && ContainsSubstring("now"));
  a.reset();
  CHECK(where(*server.load("e")) == "0");
}

TEST_CASE("a group that was measured as faster takes more models") {
  Server server(2, 2, 3.5);
  const auto slow = server.load("a"), fast = server.load("b");
  for (auto* held : server.made) {
    const bool is_fast = held == server.made[1];
    (void)(is_fast ? fast : slow)->start({.prompt = {1}, .max_tokens = 100}, {});
    held->tickets.at(0)->end(troika::serving::Finish::length, std::chrono::seconds(is_fast ? 1 : 3));
  }
  const auto loads = server.groups->loads();
  CHECK(loads[1].speed > 2 * loads[0].speed);
  CHECK(where(*server.load("c")) == "1");
}

TEST_CASE("a model that is too large for a group is split over all; what never fits is refused as such") {
  Server joined(3, 3, 0.5);
  const auto engine = joined.load("large");
  CHECK(where(*engine) == "0+1+2");
  CHECK(joined.made.at(0)->devices == std::vector<std::string>{"0", "1", "2"});
  CHECK_THAT(refusal(joined, "another"), ContainsSubstring("needs ") && ContainsSubstring("now"));
  CHECK(joined.groups->loads()[1].free_memory < joined.needed / 2);
  Server narrow(3, 3, 0.3);
  CHECK_THAT(refusal(narrow, "large"), ContainsSubstring("which 3 groups of ") && ContainsSubstring("do not have"));
}

TEST_CASE("the user says where a model is") {
  Server server(4, 4, 10, {.places = {StatedPlace::parse("a:latest=3,0+1", 4)}});
  const auto engine = server.load("A:latest");
  CHECK(where(*engine) == "3 0+1");
  CHECK(engine->place().reason == "stated by the user");
  CHECK(server.made.at(1)->devices == std::vector<std::string>{"0", "1"});

  CHECK(StatedPlace::parse("x=y=0", 1).model == "x=y");
  CHECK(StatedPlace::parse("m=1+0", 2).teams == Teams{{1, 0}});
  for (const std::string wrong :
       {"", "m", "=0", "m=", "m=2", "m=-1", "m=0,", "m=0+", "m=0;1", "m=0,0", "m=0+0", "m=0,1+0", "m=99999999999"}) {
    INFO(wrong);
    CHECK_THROWS_WITH(StatedPlace::parse(wrong, 2),
                      ContainsSubstring("groups 0 to 1") && ContainsSubstring("\"" + wrong + "\""));
  }
  CHECK_THROWS_WITH(Server(2, 3, 1), ContainsSubstring("2 devices make 1 to 2 groups, not 3"));
  CHECK_THROWS_WITH(Server(2, 1, 1, {.allocation = "best"}),
                    ContainsSubstring("there is no allocation 'best'; valid are dynamic"));
}

TEST_CASE("allocations that do not measure place models in their own way") {
  Server server(3, 3, 2.5, {.allocation = "round-robin"});
  std::vector<std::unique_ptr<Engine>> engines;
  std::string places;
  for (int i = 0; i < 4; ++i) {
    engines.push_back(server.load("m" + std::to_string(i)));
    places += where(*engines.back());
  }
  CHECK(places == "0120");
  CHECK(engines[0]->place().allocation == "round-robin");
}

TEST_CASE("a group that failed takes no models for a while, unless there is no other") {
  Server server(2, 2, 2.5);
  auto a = server.load("a");
  CHECK(where(*a) == "0");
  server.made[0]->ready = false;
  CHECK(!a->place().groups[0].ready);
  auto b = server.load("b"), c = server.load("c");
  CHECK(where(*b) == "1");
  CHECK(where(*c) == "1");
  a.reset();
  c.reset();
  c = server.load("c");
  CHECK(where(*c) == "1");  // although the other one is empty
  const auto d = server.load("d");
  CHECK(where(*d) == "0");
}
