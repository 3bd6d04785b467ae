// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <troika/scheduling/device_health.hpp>
#include <troika/scheduling/named_allocation.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/model_store.hpp>
#include <troika/serving/server_devices.hpp>

namespace troika::serving {

// The groups that a model is on: a replica for each team, which is one group, or several that are joined and split the
// model.
using Teams = std::vector<std::vector<int>>;

// "llama3=0,2+3" has one replica on group 0, and one that groups 2 and 3 share.
struct StatedPlace {
  std::string model;
  Teams teams;

  // Error{invalid_argument} for other words, for a group that is not there, or that is named twice.
  static StatedPlace parse(const std::string& text, int groups);
};

// The devices of a server, in groups, and which models are where. Each model that is loaded gets its place:
// what the user states; a replica in each group where it is small; the group that the allocation picks; or all groups
// joined where it fits no single one. A model that fits nowhere at the moment is Error{out_of_memory}, one that never
// will is Error{unsupported}. All members may be called from any thread; it outlives its engines.
class DeviceGroups {
 public:
  struct Options {
    std::string allocation = "dynamic";  // picks groups for models, and for the requests to a model with replicas
    std::vector<StatedPlace> places{};
    std::uint64_t memory = 0;  // bytes of each group; 0: even parts of what the devices have
    QuarantineRules quarantine{.failures = 1, .first = std::chrono::seconds(30), .longest = std::chrono::minutes(10)};
    EngineOptions engine{};
  };

  // Groups of devices whose numbers are neighbours; they have as many as each other, or one more.
  DeviceGroups(ServerDevices devices, int groups, Options options);
  DeviceGroups(const DeviceGroups&) = delete;

  std::unique_ptr<Engine> load(const StoredModel& model);

  // Bytes that the model takes on all devices of a team together, about: weights, keys and values, and what steps use.
  static std::uint64_t bytes_needed(const StoredModel& model, const EngineOptions& options);

  // What an allocation sees of each group; work is in bytes of weights read, which is what takes the time of a token.
  std::vector<DeviceLoad> loads() const;

 private:
  class Placed;
  struct Group {
    int first = 0, last = 0;  // device
    double speed = 0;         // bytes a second
    DeviceHealth health{};
  };
  struct Place {
    Teams teams;
    std::string reason;
  };

  Place choose(const StoredModel& model, std::uint64_t needed);  // with the mutex held, as for the next two
  std::vector<DeviceLoad> measured() const;
  std::vector<DeviceLoad> candidates(const std::vector<DeviceLoad>& loads, std::uint64_t needed) const;
  std::vector<int> devices_of(const std::vector<int>& team) const;
  void forget(const Placed& placed);

  const Options options_;
  const ServerDevices devices_;
  mutable std::mutex mutex_;
  NamedAllocation allocation_;
  std::vector<Group> groups_;
  std::vector<const Placed*> placed_;
};

}  // namespace troika::serving
