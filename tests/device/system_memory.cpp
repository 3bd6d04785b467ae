// SPDX-License-Identifier: Apache-2.0
#include <troika/device/host/system_memory.hpp>

#include <support/catch.hpp>

#include <sstream>
#include <string>

using namespace troika;

namespace {

std::uint64_t machine(const std::string& meminfo) {
  std::istringstream lines(meminfo);
  return detail::memory_of_machine(lines);
}
std::uint64_t container(const std::string& max, const std::string& current, const std::string& stat) {
  std::istringstream a(max), b(current), c(stat);
  return detail::memory_of_container(a, b, c);
}

}  // namespace

TEST_CASE("What a machine has left is what Linux says is available") {
  CHECK(machine("MemTotal:       24000 kB\nMemFree:  5 kB\nMemAvailable:   2048 kB\nBuffers: 1 kB\n") == 2048 * 1024);
  CHECK(machine("MemTotal:       24000 kB\n") == detail::unknown_memory);
  CHECK(machine("MemAvailable: many kB\n") == detail::unknown_memory);
  CHECK(machine("MemAvailable: 18446744073709551615 kB\n") == detail::unknown_memory);
  CHECK(machine("") == detail::unknown_memory);
}

TEST_CASE("What a container has left is its limit without what it holds, but for cached files") {
  CHECK(container("1000\n", "700\n", "anon 400\nfile 300\nkernel 0\n") == 600);
  CHECK(container("1000\n", "700\n", "anon 400\n") == 300);
  CHECK(container("1000\n", "1500\n", "file 0\n") == 0);
  CHECK(container("max\n", "700\n", "file 300\n") == detail::unknown_memory);
  CHECK(container("", "", "") == detail::unknown_memory);
}

TEST_CASE("This machine has some memory left") { CHECK(memory_available(HostDevice()) > 1'000'000); }
