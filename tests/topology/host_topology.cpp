// SPDX-License-Identifier: Apache-2.0
#include <troika/topology/host_topology.hpp>

#include <support/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/device/host/topology.hpp>

using namespace troika;

namespace {

using Groups = std::vector<std::vector<int>>;

// The cores first..last, every `step`th number.
std::vector<int> cores(int first, int last, int step = 1) {
  std::vector<int> numbers;
  for (int i = first; i <= last; i += step) numbers.push_back(i);
  return numbers;
}
Groups nobody(int n) { return Groups(static_cast<std::size_t>(n)); }

std::vector<std::size_t> sizes(const Groups& groups) {
  std::vector<std::size_t> result;
  for (const auto& group : groups) result.push_back(group.size());
  return result;
}

}  // namespace

TEST_CASE("cores of a machine of one node are cut in order, and the first devices take the remainder") {
  const auto machine = HostTopology::of("numa:1 core:8 pu:1");
  CHECK(machine.groups(1) == Groups{cores(0, 7)});
  CHECK(machine.groups(2) == Groups{cores(0, 3), cores(4, 7)});
  CHECK(machine.groups(3) == Groups{cores(0, 2), cores(3, 5), cores(6, 7)});
  CHECK(machine.groups(4) == Groups{cores(0, 1), cores(2, 3), cores(4, 5), cores(6, 7)});
  CHECK(machine.groups(5) == Groups{cores(0, 1), cores(2, 3), cores(4, 5), {6}, {7}});
  CHECK(machine.groups(6) == Groups{cores(0, 1), cores(2, 3), {4}, {5}, {6}, {7}});
  CHECK(machine.groups(7) == Groups{cores(0, 1), {2}, {3}, {4}, {5}, {6}, {7}});
  CHECK(machine.groups(8) == Groups{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}});
  CHECK(machine.groups(9) == nobody(9));
}

TEST_CASE("of each core one hardware thread is used, and no device is in two nodes") {
  const auto machine = HostTopology::of("numa:2(memory=16GB) core:4 pu:2");
  CHECK(machine.groups(1) == Groups{cores(0, 14, 2)});
  CHECK(machine.groups(2) == Groups{cores(0, 6, 2), cores(8, 14, 2)});
  CHECK(machine.groups(3) == Groups{{0, 2}, {4, 6}, cores(8, 14, 2)});
  CHECK(machine.groups(4) == Groups{{0, 2}, {4, 6}, {8, 10}, {12, 14}});
  CHECK(machine.groups(5) == Groups{{0, 2}, {4}, {6}, {8, 10}, {12, 14}});
  CHECK(machine.groups(6) == Groups{{0, 2}, {4}, {6}, {8, 10}, {12}, {14}});
  CHECK(machine.groups(7) == Groups{{0}, {2}, {4}, {6}, {8, 10}, {12}, {14}});
  CHECK(machine.groups(8) == Groups{{0}, {2}, {4}, {6}, {8}, {10}, {12}, {14}});
  CHECK(machine.groups(9) == nobody(9));
  REQUIRE(machine.cores().size() == 8);
  CHECK(machine.cores()[5].threads == std::vector<int>{10, 11});
  CHECK(machine.cores()[5].node == 1);

  CHECK(machine.groups(4, HardwareThreads::all) == Groups{cores(0, 3), cores(4, 7), cores(8, 11), cores(12, 15)});
  CHECK(machine.groups(9, HardwareThreads::all) == nobody(9));  // devices are dealt cores, not threads
}

TEST_CASE("nodes of unlike size get devices in proportion to the cores that may be used") {
  const auto machine = HostTopology::of("numa:4 core:4 pu:1", "0-3,4-5,8-10,12");
  CHECK(machine.groups(1) == Groups{{0, 1, 2, 3, 4, 5, 8, 9, 10, 12}});
  CHECK(machine.groups(2) == Groups{{0, 1, 2, 3, 4, 5}, {8, 9, 10, 12}});  // 6 and 4, not 4 and 6 or 9 and 1
  CHECK(machine.groups(3) == Groups{{0, 1, 2, 3}, {4, 5}, {8, 9, 10, 12}});
  CHECK(machine.groups(4) == Groups{{0, 1, 2, 3}, {4, 5}, {8, 9, 10}, {12}});
  CHECK(machine.groups(5) == Groups{{0, 1}, {2, 3}, {4, 5}, {8, 9, 10}, {12}});
  CHECK(machine.groups(6) == Groups{{0, 1}, {2, 3}, {4, 5}, {8, 9}, {10}, {12}});
  CHECK(machine.groups(7) == Groups{{0, 1}, {2}, {3}, {4, 5}, {8, 9}, {10}, {12}});
  CHECK(machine.groups(8) == Groups{{0, 1}, {2}, {3}, {4}, {5}, {8, 9}, {10}, {12}});
  CHECK(machine.groups(9) == Groups{{0, 1}, {2}, {3}, {4}, {5}, {8}, {9}, {10}, {12}});
  CHECK(machine.groups(10) == Groups{{0}, {1}, {2}, {3}, {4}, {5}, {8}, {9}, {10}, {12}});
  CHECK(machine.groups(11) == nobody(11));
}

TEST_CASE("fewer devices than nodes have whole nodes, neighbours, and as even as nodes allow") {
  const auto eight = HostTopology::of("numa:8 core:2 pu:1");
  CHECK(sizes(eight.groups(3)) == std::vector<std::size_t>{6, 6, 4});
  CHECK(eight.groups(3)[1] == cores(6, 11));
  CHECK(sizes(eight.groups(5)) == std::vector<std::size_t>{4, 4, 4, 2, 2});
  CHECK(sizes(HostTopology::of("numa:3 core:8 pu:1", "0-7,8-15,16-18").groups(2)) == std::vector<std::size_t>{8, 11});
  CHECK(sizes(HostTopology::of("numa:3 core:8 pu:1", "0-2,8-15,16-23").groups(2)) == std::vector<std::size_t>{11, 8});
}

TEST_CASE("caches stay whole where devices are as even all the same") {
  const auto package = HostTopology::of("pack:1 l3:3 core:8 pu:1");
  CHECK(package.groups(1) == Groups{cores(0, 23)});
  CHECK(package.groups(2) == Groups{cores(0, 11), cores(12, 23)});
  CHECK(package.groups(3) == Groups{cores(0, 7), cores(8, 15), cores(16, 23)});
  CHECK(package.groups(4) == Groups{cores(0, 5), cores(6, 11), cores(12, 17), cores(18, 23)});
  CHECK(package.groups(5) == Groups{cores(0, 4), cores(5, 9), cores(10, 14), cores(15, 19), cores(20, 23)});
  CHECK(package.groups(6) ==
        Groups{cores(0, 3), cores(4, 7), cores(8, 11), cores(12, 15), cores(16, 19), cores(20, 23)});
  CHECK(sizes(package.groups(7)) == std::vector<std::size_t>{4, 4, 4, 3, 3, 3, 3});
  CHECK(sizes(package.groups(8)) == std::vector<std::size_t>(8, 3));
  CHECK(package.groups(9) == Groups{cores(0, 2),
                                    cores(3, 5),
                                    {6, 7},
                                    cores(8, 10),
                                    cores(11, 13),
                                    {14, 15},
                                    cores(16, 18),
                                    cores(19, 21),
                                    {22, 23}});
  CHECK(package.cores()[9].cache == 1);
  CHECK(HostTopology::of("numa:1 core:2 pu:1").cores()[0].cache == -1);
}

TEST_CASE("only hardware threads that may be used are used, the other one of a core where its first may not") {
  const auto restricted = HostTopology::of("numa:2 core:4 pu:2", "1,4-5,12-13,15,99");
  CHECK(restricted.groups(1) == Groups{{1, 4, 12, 15}});
  CHECK(restricted.groups(1, HardwareThreads::all) == Groups{{1, 4, 5, 12, 13, 15}});
  CHECK(restricted.groups(2) == Groups{{1, 4}, {12, 15}});
  CHECK(restricted.groups(5) == nobody(5));
  REQUIRE(restricted.nodes().size() == 2);
  CHECK(restricted.nodes()[1].cores == 2);
  const auto one = HostTopology::of("numa:2 core:4 pu:2", "8");  // the other node is not in the picture
  REQUIRE(one.nodes().size() == 1);
  CHECK(one.nodes()[0].number == 1);
}

TEST_CASE("a core is in the smallest node around it, and a machine may say nothing of cores") {
  CHECK(HostTopology::of("[numa(memory=4GB)] pack:2 [numa(memory=8GB)] core:2 pu:1").nodes()[0].memory > 7'000'000'000);
  CHECK(HostTopology::of("numa:2 pu:3").groups(2) == Groups{cores(0, 2), cores(3, 5)});
}

TEST_CASE("what a machine looks like and who has what is said in lines") {
  const auto machine = HostTopology::of("numa:2(memory=16000000000) core:4 pu:2");
  CHECK(machine.to_string(machine.groups(3)) ==
        "NUMA node 0: 4 cores, 16.0 GB\n"
        "NUMA node 1: 4 cores, 16.0 GB\n"
        "device 0: 2 cores of node 0, hardware threads 0,2\n"
        "device 1: 2 cores of node 0, hardware threads 4,6\n"
        "device 2: 4 cores of node 1, hardware threads 8,10,12,14\n");
  CHECK_THAT(machine.to_string(machine.groups(1, HardwareThreads::all)),
             Catch::Matchers::ContainsSubstring("device 0: 8 cores of node 0-1, hardware threads 0-15\n"));
  CHECK_THAT(machine.to_string(machine.groups(9)),
             Catch::Matchers::ContainsSubstring("device 8: one thread, wherever"));
}

TEST_CASE("what is no machine, no list, no core or no device is an error that says what would be") {
  for (const auto* text : {"nonsense", "", "numa:2 core", "core:4 numa:x", "pu:0"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(HostTopology::of(text), Error);
  }
  CHECK_THROWS_WITH(HostTopology::of("nonsense"), Catch::Matchers::ContainsSubstring("numa:2 l3:1 core:4 pu:2"));
  CHECK_THROWS_WITH(HostTopology::of("core:4 pu:1", "many"), Catch::Matchers::ContainsSubstring("0-3,8"));
  CHECK_THROWS_WITH(HostTopology::of("core:4 pu:1", "7-9"), Catch::Matchers::ContainsSubstring("7-9"));
  for (const int n : {0, -1})
    CHECK_THROWS_WITH(HostTopology::of("core:4 pu:1").groups(n), Catch::Matchers::ContainsSubstring("at least 1"));
}

TEST_CASE("the cores of this machine are those that the system's files name, in an order of their own") {
  const auto machine = HostTopology::of_this_machine();
  const auto plain = available_cores();
  const auto ours = machine.groups(1)[0];
  CHECK(std::set<int>(ours.begin(), ours.end()) == std::set<int>(plain.begin(), plain.end()));
  for (const int n : {1, 2, 3}) CHECK(host_devices(machine.groups(n)).size() == static_cast<std::size_t>(n));
  int cores = 0;
  for (const auto& node : machine.nodes()) {
    cores += node.cores;
    CHECK(node.memory > 0);
  }
  CHECK(cores == static_cast<int>(machine.cores().size()));
}
