// SPDX-License-Identifier: Apache-2.0
#include <troika/device/host/system_cores.hpp>

#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <string>
#include <vector>

using namespace troika;
using Numbers = std::vector<int>;

TEST_CASE("lists of cores are read as Linux writes them, and what is no list is empty") {
  CHECK(detail::parse_list("0-3,8,10-11\n") == Numbers{0, 1, 2, 3, 8, 10, 11});
  CHECK(detail::parse_list("5") == Numbers{5});
  CHECK(detail::parse_list("4,1-2,2") == Numbers{1, 2, 4});
  for (const auto* text : {"", "\n", "many", "1-", "-1", "3-1", "1,,2", "1-2-3", "0x3", "0-99999999", "1;2"}) {
    CAPTURE(text);
    CHECK(detail::parse_list(text).empty());
  }
}

TEST_CASE("of each core the first hardware thread that may be used counts") {
  test::TempFolder folder;  // two cores of two threads each: 0 and 2, 1 and 3
  const std::string root = folder.path().string() + "/";
  for (const int thread : {0, 1, 2, 3}) {
    folder.write("cpu/cpu" + std::to_string(thread) + "/topology/thread_siblings_list",
                 thread % 2 == 0 ? "0,2\n" : "1,3\n");
  }
  CHECK(detail::one_thread_a_core({0, 1, 2, 3}, root) == Numbers{0, 1});
  CHECK(detail::one_thread_a_core({1, 2, 3}, root) == Numbers{1, 2});
  CHECK(detail::one_thread_a_core({3}, root) == Numbers{3});
  CHECK(detail::one_thread_a_core({2, 3, 7, 8}, root) == Numbers{2, 3, 7, 8});  // nothing is known of 7 and 8
}

TEST_CASE("the nodes of cores are those with memory that name them, and none where there is only one") {
  test::TempFolder folder;
  const std::string root = folder.path().string() + "/";
  CHECK(detail::nodes_of({0, 1}, root).empty());
  folder.write("node/node0/cpulist", "0-3\n");
  folder.write("node/node1/cpulist", "4-7\n");
  folder.write("node/node2/cpulist", "\n");  // memory without cores
  folder.write("node/has_memory", "0\n");
  CHECK(detail::nodes_of({0, 1}, root).empty());
  folder.write("node/has_memory", "0-2\n");
  CHECK(detail::nodes_of({}, root).empty());
  CHECK(detail::nodes_of({5, 6}, root) == Numbers{1});
  CHECK(detail::nodes_of({6, 0}, root) == Numbers{0, 1});
  CHECK(detail::nodes_of({9}, root).empty());
}
