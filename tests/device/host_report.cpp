// SPDX-License-Identifier: Apache-2.0
#include <troika/device/host/host_report.hpp>

#include <support/catch.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/topology.hpp>

using namespace troika;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

std::string setting(const std::string& text) {
  std::istringstream stream(text);
  return detail::huge_page_setting(stream);
}

// A mapping as /proc/self/smaps shows it.
std::string mapping(const std::string& range, std::size_t rss_mib, std::size_t huge_mib) {
  return range + " rw-p 00000000 00:00 0 \nSize: 1 kB\nRss:   " + std::to_string(rss_mib * 1024) +
         " kB\nAnonymous: 5 kB\nAnonHugePages:  " + std::to_string(huge_mib * 1024) + " kB\nVmFlags: rd wr hg\n";
}
detail::HugeBytes huge(const std::string& smaps, const detail::Blocks& blocks) {
  std::istringstream stream(smaps);
  return detail::huge_bytes(stream, blocks);
}
std::span<const std::byte> block(std::uintptr_t at, std::size_t bytes) {
  return {reinterpret_cast<const std::byte*>(at), bytes};
}

HostReport report_of(HostReport::Device device, std::string huge_pages = "madvise") {
  HostReport report;
  report.huge_page_setting = std::move(huge_pages);
  report.devices.push_back(std::move(device));
  return report;
}
HostReport::Device good_device() {
  return {.index = 3, .threads = 4, .nodes = {1}, .huge = {1000 * mib, 1000 * mib}, .memory = {1000 * mib, 0, 0}};
}

}  // namespace

TEST_CASE("the setting of huge pages is the word in brackets") {
  CHECK(setting("always [madvise] never\n") == "madvise");
  CHECK(setting("always madvise [never]") == "never");
  CHECK(setting("[always] madvise never") == "always");
  CHECK(setting("") == "");
  CHECK(setting("always") == "");
}

TEST_CASE("bytes on huge pages are those of the mappings that hold the blocks") {
  const auto other = mapping("7000000-7400000", 4, 4);
  const auto own = mapping("8000000-8a00000", 10, 8);
  // 10 MiB from 0x8000000, of which the last half page cannot be huge.
  CHECK(huge(other + own, {block(0x8000000, 9 * mib + mib / 2)}).wished == 8 * mib);
  CHECK(huge(other + own, {block(0x8000000, 10 * mib)}).got == 8 * mib);
  CHECK(huge(other + own, {block(0x8000000, 10 * mib)}).wished == 10 * mib);
  CHECK(huge(other + own, {block(0x9000000, 10 * mib)}).wished == 0);
  // Only what was touched can be anywhere.
  CHECK(huge(mapping("8000000-8a00000", 2, 2), {block(0x8000000, 10 * mib)}).wished == 2 * mib);
  // Neighbours that the system joined: each device counts its part.
  const auto joined = mapping("8000000-9000000", 16, 8);
  CHECK(huge(joined, {block(0x8000000, 4 * mib)}).got == 2 * mib);
  CHECK(huge(joined, {block(0x8000000, 4 * mib), block(0x8400000, 12 * mib)}).got == 8 * mib);
  CHECK(huge("", {block(0x8000000, 4 * mib)}).wished == 0);
}

TEST_CASE("a report without refusals has no notes") {
  CHECK(report_of(good_device()).notes().empty());
  CHECK(report_of({}, "never").notes().empty());  // nothing was wished
  CHECK(
      report_of(good_device()).to_string() ==
      "pinned 4 of 4 threads; 1.05 of 1.05 GB on huge pages (madvise); 1.05 of 1.05 GB on the NUMA node of the cores");
}

TEST_CASE("each refusal is a line that says what was not given") {
  const auto only_note = [](const HostReport& report) {
    const auto notes = report.notes();
    REQUIRE(notes.size() == 1);
    return notes[0];
  };
  using Catch::Matchers::ContainsSubstring;
  auto device = good_device();
  device.refused_cores = {12, 13};
  CHECK_THAT(only_note(report_of(device)),
             ContainsSubstring("could not be pinned") && ContainsSubstring("device 3: 12 13"));

  device = good_device();
  device.huge.got = 0;
  CHECK(only_note(report_of(device, "never")) ==
        "huge pages are off (/sys/kernel/mm/transparent_hugepage/enabled says never): reading weights is slower");
  device.huge.got = 500 * mib;
  CHECK_THAT(only_note(report_of(device)),
             ContainsSubstring("only 0.52 of 1.05 GB") && ContainsSubstring("says madvise"));

  device = good_device();
  device.bind_error = EPERM;
  CHECK_THAT(only_note(report_of(device)), ContainsSubstring("Operation not permitted"));

  device = good_device();
  device.memory = {800 * mib, 200 * mib, 0};
  CHECK_THAT(only_note(report_of(device)),
             ContainsSubstring("0.21 of 1.05 GB of weights and caches lie on other NUMA nodes"));
  device.memory = {0, 0, ENOSYS};
  CHECK(report_of(device).notes().empty());  // not known is not bad
  CHECK_THAT(report_of(device).to_string(), ContainsSubstring("does not say"));
}

TEST_CASE("a report of this machine counts the threads that the system refused, and the memory that was touched") {
  std::thread([] {
    std::vector<HostDevice> devices{HostDevice(0, {{available_cores().back()}}), HostDevice(1, {{100000}}),
                                    HostDevice(2)};
    for (auto& device : devices) device.team().pin_caller();
    auto touched = devices[0].allocate_exact(32 * mib);
    auto untouched = devices[0].allocate_exact(64 * mib);
    std::fill_n(touched.data(), 32 * mib, std::byte{1});
    const auto report = HostReport::of(devices);
    REQUIRE(report.devices.size() == 3);
    CHECK(report.devices[0].threads == 1);
    CHECK(report.devices[1].refused_cores == std::vector<int>{100000});
    CHECK(report.devices[2].threads == 0);
    CHECK(report.devices[2].refused_cores.empty());
#if defined(__linux__)
    CHECK(report.devices[0].refused_cores.empty());
    CHECK(report.devices[0].huge.wished >= 31 * mib);
    CHECK(report.devices[0].huge.wished <= 48 * mib);  // mappings that lie beside each other are one to the system
    CHECK(report.devices[0].memory.elsewhere == 0);
#endif
    CHECK(report.devices[1].huge.wished == 0);
  }).join();
}
