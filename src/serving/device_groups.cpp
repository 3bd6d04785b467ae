// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/device_groups.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iterator>
#include <utility>

#include <troika/core/partition.hpp>
#include <troika/models/files/config.hpp>
#include <troika/serving/replicas.hpp>

namespace troika::serving {
namespace {

// A model is small where so many like it fit a group: then each group has it, and requests go where there is least to
// do.
constexpr std::uint64_t small_part = 4;

std::string gigabytes(std::uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g GB", static_cast<double>(bytes) * 1e-9);
  return text;
}

std::string name_of(const std::vector<int>& team) {
  std::string name;
  for (const int group : team) name += (name.empty() ? "" : "+") + std::to_string(group);
  return name;
}

// What speaks for a group.
std::string merits(const DeviceLoad& load) {
  return gigabytes(load.free_memory) + " free, " + std::to_string(load.queued) + " requests, " +
         (load.speed > 0 ? gigabytes(static_cast<std::uint64_t>(load.speed)) + " of weights a second"
                         : "not measured yet");
}

}  // namespace

StatedPlace StatedPlace::parse(const std::string& text, int groups) {
  const auto wrong = [&](const std::string& why) {
    return Error(Fault::invalid_argument,
                 "a place is MODEL=GROUP[,GROUP...], or GROUP+GROUP for groups that are joined, of groups 0 to " +
                     std::to_string(groups - 1) + "; \"" + text + "\" " + why);
  };
  const auto equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) throw wrong("names no model");
  StatedPlace place{text.substr(0, equals), {{}}};
  std::vector<bool> taken(static_cast<std::size_t>(groups));
  const char *at = text.data() + equals + 1, *const end = text.data() + text.size();
  while (true) {
    int group = 0;
    const auto [next, error] = std::from_chars(at, end, group);
    if (error != std::errc() || group < 0 || group >= groups) throw wrong("names another");
    if (taken[static_cast<std::size_t>(group)]) throw wrong("names group " + std::to_string(group) + " twice");
    taken[static_cast<std::size_t>(group)] = true;
    place.teams.back().push_back(group);
    if (next == end) return place;
    if (*next != ',' && *next != '+') throw wrong("has something else in it");
    if (*next == ',') place.teams.emplace_back();
    at = next + 1;
  }
}

// A model in its place.
class DeviceGroups::Placed final : public Engine {
 public:
  Placed(DeviceGroups& groups, StoredModel stored, Teams where, std::uint64_t bytes)
      : model(std::move(stored)), teams(std::move(where)), needed(bytes), groups_(groups) {}
  ~Placed() override { groups_.forget(*this); }

  void begin(std::vector<std::unique_ptr<Engine>> engines, EnginePlace place) {
    place_ = std::move(place);
    replicas_ = std::make_unique<Replicas<NamedAllocation>>(std::move(engines), NamedAllocation(place_.allocation),
                                                            groups_.options_.engine.log);
  }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    return replicas_->start(std::move(request), std::move(events));
  }
  std::int64_t context() const override { return replicas_->context(); }
  EngineLoad load() const override { return replicas_->load(); }
  std::vector<DeviceState> device_states() const override { return replicas_->device_states(); }
  SelfCheck self_check() const override { return replicas_->self_check(); }
  EnginePlace place() const override {
    auto place = place_;
    place.groups = replicas_->place().groups;
    for (std::size_t i = 0; i < place.groups.size(); ++i) place.groups[i].name = name_of(teams[i]);
    return place;
  }

  // A group's part of a replica that it has, or nothing.
  struct Part {
    std::uint64_t memory = 0, weights = 0;  // bytes
    int queued = 0;
    double speed = 0;  // bytes of weights a second
    bool ready = true;
  };
  Part part_of(int group) const {
    for (std::size_t i = 0; i < teams.size(); ++i) {
      if (std::ranges::find(teams[i], group) == teams[i].end()) continue;
      Part part{.memory = needed / teams[i].size(), .weights = model.bytes / teams[i].size()};
      if (!replicas_) return part;  // it is being loaded
      const auto state = replicas_->groups()[i];
      part.queued = state.queued;
      part.speed = state.speed * static_cast<double>(part.weights);
      part.ready = state.healthy;
      return part;
    }
    return {};
  }

  const StoredModel model;
  const Teams teams;
  const std::uint64_t needed;

 private:
  DeviceGroups& groups_;
  EnginePlace place_;
  std::unique_ptr<Replicas<NamedAllocation>> replicas_;
};

DeviceGroups::DeviceGroups(ServerDevices devices, int groups, Options options)
    : options_([&] {
        expects(groups >= 1 && groups <= devices.count, [&] {
          const auto count = std::to_string(devices.count);
          return count + " devices make 1 to " + count + " groups, not " + std::to_string(groups);
        });
        if (options.memory == 0) options.memory = devices.memory / static_cast<std::uint64_t>(groups);
        return std::move(options);
      }()),
      devices_(std::move(devices)),
      allocation_(options_.allocation) {
  const auto parts = Partition::even(devices_.count, groups);
  for (int i = 0; i < groups; ++i)
    groups_.push_back({static_cast<int>(parts[i].begin), static_cast<int>(parts[i].end)});
}

std::uint64_t DeviceGroups::bytes_needed(const StoredModel& model, const EngineOptions& options) {
  const auto config = models::ModelConfig::load(model.path);
  const auto context = options.context_of(config.max_position_embeddings);
  const auto row = 2 * config.layers * config.kv_heads *
                   (config.head_dim * bytes_of(options.kv_type) + (options.kv_type == KvType::q8 ? 4 : 0));
  const auto step = 4 * options.step_tokens * (8 * config.hidden_size + 3 * config.intermediate_size);
  return model.bytes + model.bytes / 16 + static_cast<std::uint64_t>(options.pages_of(context) * kv_page * row + step);
}

std::unique_ptr<Engine> DeviceGroups::load(const StoredModel& model) {
  const auto needed = bytes_needed(model, options_.engine);
  std::unique_ptr<Placed> placed;
  EnginePlace why{.allocation = options_.allocation};
  {
    std::lock_guard lock(mutex_);
    auto place = choose(model, needed);
    why.reason = std::move(place.reason);
    placed = std::make_unique<Placed>(*this, model, std::move(place.teams), needed);
    placed_.push_back(placed.get());  // whose memory is taken from now on
  }
  std::string names;
  for (const auto& team : placed->teams) names += (names.empty() ? " " : ", ") + name_of(team);
  options_.engine.log.write(LogLevel::info, model.name + " (" + gigabytes(needed) + ") goes to " +
                                                (placed->teams.size() == 1 ? "group" : "each of the groups") + names +
                                                ": " + why.reason);
  std::vector<std::unique_ptr<Engine>> engines;
  for (const auto& team : placed->teams)
    engines.push_back(devices_.make_engine(devices_of(team), model.path, options_.engine));
  std::lock_guard lock(mutex_);
  placed->begin(std::move(engines), std::move(why));
  for (const auto& team : placed->teams) {
    for (const int group : team) groups_[static_cast<std::size_t>(group)].health.succeeded();
  }
  return placed;
}

DeviceGroups::Place DeviceGroups::choose(const StoredModel& model, std::uint64_t needed) {
  const auto count = groups_.size();
  const auto loads = measured();
  const auto no_room = [&](const std::string& where, std::uint64_t free) {
    return Error(Fault::out_of_memory, "model '" + model.name + "' needs " + gigabytes(needed) + "; " + where +
                                           " has " + gigabytes(free) + " free of " + gigabytes(options_.memory) +
                                           " now");
  };
  const auto check = [&](const std::vector<int>& team) {
    const auto part = needed / team.size();
    if (part > options_.memory) {
      throw Error(Fault::unsupported, "model '" + model.name + "' needs " + gigabytes(needed) + ", which " +
                                          std::to_string(team.size()) + " groups of " + gigabytes(options_.memory) +
                                          " do not have");
    }
    for (const int group : team) {
      const auto free = loads[static_cast<std::size_t>(group)].free_memory;
      if (part > free) throw no_room("group " + std::to_string(group), free);
    }
  };

  const auto stated = std::ranges::find_if(
      options_.places, [&](const auto& place) { return ModelStore::same_name(place.model, model.name); });
  if (stated != options_.places.end()) {
    for (const auto& team : stated->teams) check(team);
    return {stated->teams, "stated by the user"};
  }
  if (count == 1) {
    check({0});
    return {{{0}}, "the only group"};
  }
  if (needed > options_.memory) {
    std::vector<int> all;
    for (const auto& load : loads) all.push_back(load.device);
    check(all);
    return {{all}, "too large for one group, so all are joined"};
  }
  auto fitting = candidates(loads, needed);
  if (fitting.empty()) {
    const auto most = std::ranges::max_element(loads, {}, &DeviceLoad::free_memory);
    throw no_room("group " + std::to_string(most->device) + ", which has most,", most->free_memory);
  }
  if (needed <= options_.memory / small_part) {
    Teams teams;
    for (const auto& load : fitting) teams.push_back({load.device});
    return {std::move(teams), "small, so that each group with room has a replica; " + options_.allocation +
                                  " allocation picks by request"};
  }
  for (auto& load : fitting) load.task_work = static_cast<double>(model.bytes);
  const auto& choice = fitting[static_cast<std::size_t>(allocation_.pick(fitting))];
  return {{{choice.device}},
          "picked by " + options_.allocation + " allocation from " + std::to_string(fitting.size()) +
              " groups: " + merits(choice)};
}

// Those with so much memory, and without those that failed lately unless there are no others.
std::vector<DeviceLoad> DeviceGroups::candidates(const std::vector<DeviceLoad>& loads, std::uint64_t needed) const {
  std::vector<DeviceLoad> fitting;
  std::ranges::copy_if(loads, std::back_inserter(fitting),
                       [&](const auto& load) { return load.free_memory >= needed; });
  if (std::ranges::any_of(fitting, &DeviceLoad::healthy))
    std::erase_if(fitting, [](const auto& load) { return !load.healthy; });
  return fitting;
}

std::vector<DeviceLoad> DeviceGroups::loads() const {
  std::lock_guard lock(mutex_);
  return measured();
}

std::vector<DeviceLoad> DeviceGroups::measured() const {
  std::vector<DeviceLoad> loads;
  for (int i = 0; i < static_cast<int>(groups_.size()); ++i) {
    const auto& group = groups_[static_cast<std::size_t>(i)];
    DeviceLoad load{.device = i,
                    .speed = group.speed,
                    .free_memory = options_.memory,
                    .healthy = group.health.healthy() || group.health.due(Clock::now())};
    double speed = 0;
    int measurements = 0;
    for (const auto* placed : placed_) {
      const auto part = placed->part_of(i);
      load.free_memory -= std::min<std::size_t>(load.free_memory, part.memory);
      load.queued += part.queued;
      // A model that is there will be asked: it counts as one request.
      if (part.memory > 0) load.queued_work += static_cast<double>(part.weights) * (part.queued + 1);
      load.healthy &= part.ready;
      if (part.speed > 0) speed += part.speed, ++measurements;
    }
    if (measurements > 0) load.speed = speed / measurements;
    loads.push_back(load);
  }
  return loads;
}

std::vector<int> DeviceGroups::devices_of(const std::vector<int>& team) const {
  std::vector<int> devices;
  for (const int number : team) {
    const auto& group = groups_[static_cast<std::size_t>(number)];
    for (int i = group.first; i < group.last; ++i) devices.push_back(i);
  }
  return devices;
}

void DeviceGroups::forget(const Placed& placed) {
  std::lock_guard lock(mutex_);
  const auto loads = measured();
  for (const auto& team : placed.teams) {
    for (const int number : team) {
      auto& group = groups_[static_cast<std::size_t>(number)];
      group.speed = loads[static_cast<std::size_t>(number)].speed;
      if (!placed.part_of(number).ready) group.health.failed(Clock::now(), false, options_.quarantine);
    }
  }
  std::erase(placed_, &placed);
}

}  // namespace troika::serving
