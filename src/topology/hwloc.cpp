// SPDX-License-Identifier: Apache-2.0
// What hwloc knows of a machine, as plain values. The only file that includes it.
#include <hwloc.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/topology/host_topology.hpp>

namespace troika {
namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
  void operator()(hwloc_bitmap_s* bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Topology = std::unique_ptr<hwloc_topology, Destroy>;
using Bitmap = std::unique_ptr<hwloc_bitmap_s, Destroy>;

Topology empty_topology() {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) throw Error(Fault::out_of_memory, "hwloc has no memory for a topology");
  return Topology(topology);
}
Bitmap empty_bitmap() {
  Bitmap bitmap(hwloc_bitmap_alloc());
  if (!bitmap) throw Error(Fault::out_of_memory, "hwloc has no memory for a set of cores");
  return bitmap;
}

// The node whose memory is nearest: of those around this hardware thread, the smallest, and the first of equals.
hwloc_obj_t node_of(hwloc_topology_t topology, hwloc_obj_t thread) {
  hwloc_obj_t nearest = nullptr;
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    if (!hwloc_bitmap_isset(node->cpuset, thread->os_index)) continue;
    if (!nearest || hwloc_bitmap_weight(node->cpuset) < hwloc_bitmap_weight(nearest->cpuset)) nearest = node;
  }
  return nearest;
}

int cache_of(hwloc_topology_t topology, hwloc_obj_t thread) {
  for (const auto level : {HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE}) {
    if (const auto* cache = hwloc_get_ancestor_obj_by_type(topology, level, thread))
      return static_cast<int>(cache->logical_index);
  }
  return -1;
}

// Hardware threads follow each other as the tree of the machine has them.
std::pair<std::vector<HostCore>, std::vector<HostNode>> read(hwloc_topology_t topology, hwloc_const_bitmap_t allowed) {
  std::vector<HostCore> cores;
  std::vector<HostNode> nodes;
  hwloc_obj_t last = nullptr;
  for (hwloc_obj_t thread = nullptr;
       (thread = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, thread)) != nullptr;) {
    if (!hwloc_bitmap_isset(allowed, thread->os_index)) continue;
    const auto around = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, thread);
    const auto core = around ? around : thread;  // some machines do not say what a core is
    if (core != last) {
      const auto node = node_of(topology, thread);
      const int number = node ? static_cast<int>(node->os_index) : 0;
      cores.push_back({{}, number, cache_of(topology, thread)});
      nodes.push_back({number, 0, node ? node->attr->numanode.local_memory : 0});
      last = core;
    }
    cores.back().threads.push_back(static_cast<int>(thread->os_index));
  }
  return {std::move(cores), std::move(nodes)};
}

std::string reason() { return std::generic_category().message(errno); }

}  // namespace

HostTopology HostTopology::of_this_machine() {
  const auto topology = empty_topology();
  if (hwloc_topology_load(topology.get()) != 0)
    throw Error(Fault::unsupported, "hwloc cannot read the topology of this machine: " + reason());
  const auto allowed = empty_bitmap();
  hwloc_bitmap_copy(allowed.get(), hwloc_topology_get_allowed_cpuset(topology.get()));
  const auto bound = empty_bitmap();
  if (hwloc_get_cpubind(topology.get(), bound.get(), HWLOC_CPUBIND_THREAD) == 0) {
    hwloc_bitmap_and(allowed.get(), allowed.get(), bound.get());
  }
  auto [cores, nodes] = read(topology.get(), allowed.get());
  return HostTopology(std::move(cores), nodes);
}

HostTopology HostTopology::of(const std::string& description, const std::string& allowed) {
  const auto topology = empty_topology();
  if (hwloc_topology_set_synthetic(topology.get(), description.c_str()) != 0 ||
      hwloc_topology_load(topology.get()) != 0) {
    throw Error(
        Fault::invalid_argument,
        "\"" + description + "\" does not describe a machine; a description reads like \"numa:2 l3:1 core:4 pu:2\"");
  }
  const auto threads = empty_bitmap();
  hwloc_bitmap_copy(threads.get(), hwloc_topology_get_allowed_cpuset(topology.get()));
  if (!allowed.empty()) {
    const auto chosen = empty_bitmap();
    if (hwloc_bitmap_list_sscanf(chosen.get(), allowed.c_str()) != 0) {
      throw Error(Fault::invalid_argument,
                  "\"" + allowed + "\" is no list of hardware threads; one reads like \"0-3,8\"");
    }
    hwloc_bitmap_and(threads.get(), threads.get(), chosen.get());
  }
  auto [cores, nodes] = read(topology.get(), threads.get());
  expects(!cores.empty(),
          [&] { return "the machine \"" + description + "\" has none of the hardware threads " + allowed; });
  return HostTopology(std::move(cores), nodes);
}

}  // namespace troika
