// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

#include <troika/device/host/topology.hpp>

using namespace troika;

TEST_CASE("devices share the cores evenly, each core belongs to one") {
  const auto cores = available_cores();
  REQUIRE_FALSE(cores.empty());
  for (std::size_t n = 1; n <= cores.size(); ++n) {
    auto devices = host_devices(static_cast<int>(n));
    REQUIRE(devices.size() == n);
    std::vector<int> seen;
    for (std::size_t i = 0; i < n; ++i) {
      const auto& own = devices[i].options().cores;
      REQUIRE(own.size() >= cores.size() / n);
      REQUIRE(own.size() <= (cores.size() + n - 1) / n);
      REQUIRE(devices[i].index() == static_cast<int>(i));
      REQUIRE(devices[i].team().size() == static_cast<int>(own.size()));
      seen.insert(seen.end(), own.begin(), own.end());
    }
    REQUIRE(seen == cores);
  }
}

TEST_CASE("more devices than cores are one thread each, wherever the system puts them") {
  const int n = static_cast<int>(available_cores().size()) + 3;
  auto devices = host_devices(n);
  REQUIRE(static_cast<int>(devices.size()) == n);
  for (auto& device : devices) {
    REQUIRE(device.options().cores.empty());
    REQUIRE(device.team().size() == 1);
  }
}

TEST_CASE("devices can be given their cores by hand") {
  auto devices = host_devices({{0, 1}, {}, {2}});
  REQUIRE(devices.size() == 3);
  REQUIRE(devices[0].team().size() == 2);
  REQUIRE(devices[1].team().size() == 1);
  REQUIRE(devices[2].options().cores == std::vector<int>{2});
}

TEST_CASE("no devices, or impossible cores, are an error that names what is valid") {
  for (const int n : {0, -1}) {
    REQUIRE_THROWS_WITH(host_devices(n), Catch::Matchers::ContainsSubstring("at least 1"));
  }
  REQUIRE_THROWS_WITH(host_devices(std::vector<std::vector<int>>{}), Catch::Matchers::ContainsSubstring("at least 1"));
  REQUIRE_THROWS_WITH(host_devices({{-3}}), Catch::Matchers::ContainsSubstring("-3"));
}
