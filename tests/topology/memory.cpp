// SPDX-License-Identifier: Apache-2.0
// Where memory really lies, asked of hwloc. With one NUMA node all is there; the test says more on machines of several.
#include <hwloc.h>

#include <support/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/host.hpp>
#include <troika/layers/kv_cache.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/topology/host_topology.hpp>

using namespace troika;

namespace {

// The NUMA nodes of these pages, such as "0" or "0-1"; empty where the system does not say.
std::string nodes_of_area(hwloc_topology_t topology, const void* data, std::size_t bytes) {
  const std::unique_ptr<hwloc_bitmap_s, void (*)(hwloc_bitmap_t)> nodes(hwloc_bitmap_alloc(), hwloc_bitmap_free);
  if (hwloc_get_area_memlocation(topology, data, bytes, nodes.get(), HWLOC_MEMBIND_BYNODESET) != 0) return "";
  char text[256];
  hwloc_bitmap_list_snprintf(text, sizeof text, nodes.get());
  return text;
}

}  // namespace

TEST_CASE("what a rank loads lies in the NUMA node of its cores, whoever writes it first") {
  hwloc_topology_t raw = nullptr;
  REQUIRE(hwloc_topology_init(&raw) == 0);
  const std::unique_ptr<hwloc_topology, void (*)(hwloc_topology_t)> topology(raw, hwloc_topology_destroy);
  REQUIRE(hwloc_topology_load(topology.get()) == 0);

  const auto machine = HostTopology::of_this_machine();
  // As many devices as nodes, and twice as many where there are cores: each is in one node.
  for (std::size_t world : {machine.nodes().size(), 2 * machine.nodes().size()}) {
    const auto groups = machine.groups(static_cast<int>(world));
    if (groups[0].empty()) continue;
    const auto devices = host_devices(groups);
    TaskScheduler scheduler{devices, StaticAllocation{}};
    struct Found {
      std::string weight, cache, other;
      HostReport report;
    };
    const auto ranks = scheduler.run_on_every_device([&](auto& rank) {
      auto device = devices[static_cast<std::size_t>(rank.rank())];
      HostStream stream(device);
      // As a Loader does: the rank's thread writes the rows, then they go into panels.
      Weight<HostDevice> weight(device, WeightType::bf16, {2048, 4096});
      std::fill_n(weight.data(), weight.bytes(), std::byte{0});
      make_ready(device, weight);
      // The members of the team write keys and values.
      KvMemory<HostDevice> cache(device, 1, 4096, 8, 64);
      auto& keys = cache.layer(0).keys;
      parallel_for(device.team(), keys.bytes(), 4096, [&](std::int64_t begin, std::int64_t end) {
        std::fill(keys.data() + begin, keys.data() + end, std::uint8_t{0});
      });
      // A thread in another node, where there is one, is first to write.
      auto other = device.allocate_exact(std::size_t{16} << 20);
      std::thread([&] {
        const bool in_first = groups[static_cast<std::size_t>(rank.rank())][0] == machine.cores().front().threads[0];
        pin_this_thread((in_first ? machine.cores().back() : machine.cores().front()).threads[0]);
        std::fill_n(other.data(), std::size_t{16} << 20, std::byte{1});
      }).join();
      return Found{nodes_of_area(topology.get(), weight.data(), weight.bytes()),
                   nodes_of_area(topology.get(), keys.data(), static_cast<std::size_t>(keys.bytes())),
                   nodes_of_area(topology.get(), other.data(), std::size_t{16} << 20), HostReport::of({device})};
    });
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      if (ranks[i].weight.empty()) TROIKA_SKIP("this system does not say where memory lies");
      const auto core =
          std::ranges::find(machine.cores(), groups[i][0], [](const HostCore& c) { return c.threads[0]; });
      REQUIRE(core != machine.cores().end());
      const auto node = std::to_string(core->node);
      CAPTURE(world, i);
      CHECK(ranks[i].weight == node);
      CHECK(ranks[i].cache == node);
      if (ranks[i].report.devices[0].bind_error == 0) {
        CHECK(ranks[i].other == node);
        CHECK(ranks[i].report.devices[0].memory.elsewhere == 0);
      }
      CHECK(ranks[i].report.devices[0].nodes ==
            (machine.nodes().size() > 1 ? std::vector<int>{core->node} : std::vector<int>{}));
      CHECK(ranks[i].report.devices[0].refused_cores.empty());
    }
  }
}

TEST_CASE("a device of several NUMA nodes has its memory on all of them in turn") {
  const auto machine = HostTopology::of_this_machine();
  if (machine.nodes().size() < 2) TROIKA_SKIP("there is one NUMA node");
  auto device = host_devices(machine.groups(1))[0];
  auto buffer = device.allocate_exact(std::size_t{64} << 20);
  std::fill_n(buffer.data(), std::size_t{64} << 20, std::byte{1});
  const auto report = HostReport::of({device});
  if (report.devices[0].bind_error != 0) TROIKA_SKIP("this system does not let memory be bound");
  const auto share = detail::node_bytes(device.memory().large_blocks(), {machine.nodes()[0].number});
  CHECK(share.own >= std::size_t{64 - 16} * (std::size_t{1} << 20) / machine.nodes().size());
  CHECK(share.own <= std::size_t{64 + 16} * (std::size_t{1} << 20) / machine.nodes().size());
  CHECK(report.devices[0].memory.elsewhere == 0);
}
