// SPDX-License-Identifier: Apache-2.0
// Two devices on this machine, each on cores that lie together.
#include <cstdio>

#include <troika/device/host/topology.hpp>
#include <troika/topology/host_topology.hpp>

int main() {
  const auto topology = troika::HostTopology::of_this_machine();
  const auto groups = topology.groups(2);
  const auto devices = troika::host_devices(groups);
  std::printf("%s", topology.to_string(groups).c_str());
  return devices.size() == 2 && !topology.cores().empty() ? 0 : 1;
}
