// SPDX-License-Identifier: Apache-2.0
// troika-selftest: what a user runs first on a new machine. Every collective with every type and odd sizes, by every
// transport that there is, against loops on the host; then how long they take. Ends with 1 if anything differs.
// ctest: --quick --ranks 3
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include <troika/troika.hpp>

#if defined(TROIKA_HAS_CUDA)
#include <troika/communication/fastest.hpp>
#include <troika/communication/peer.hpp>
#include <troika/device/cuda/cuda.hpp>
#endif
#if defined(TROIKA_HAS_NCCL)
#include <troika/communication/nccl.hpp>
#endif

#include "selftest/checks.hpp"
#include "selftest/timings.hpp"

namespace {

struct Arguments {
  int ranks = 4;  // on the host, or that share a single GPU
  bool quick = false;
};

// Everything on these devices by this transport. True if nothing differed.
template <class Device, class Transport>
bool test(const std::string& name, std::vector<Device> devices, Transport transport, const Arguments& arguments) {
  std::vector<std::size_t> counts{1, 3, 17, 255, 1000, 5003}, sizes;
  if (!arguments.quick) counts.insert(counts.end(), {65'537, 1'000'003});
  for (std::size_t bytes = 1 << 10; bytes <= (arguments.quick ? 1u << 14 : 1u << 26); bytes *= 16)
    sizes.push_back(bytes);

  const auto ranks = devices.size();
  std::vector<selftest::Outcome> outcomes(ranks);
  std::vector<selftest::Timing> timings;
  try {
    troika::TaskScheduler scheduler{std::move(devices), troika::StaticAllocation{}};
    scheduler.run_on_every_device([&](auto& rank) {
      troika::Communication communication{rank, transport};
      outcomes[static_cast<std::size_t>(rank.rank())] = selftest::check_everything(rank, communication, counts);
      auto mine = selftest::time_collectives(rank, communication, sizes);
      if (rank.rank() == 0) timings = std::move(mine);
    });
  } catch (const std::exception& error) {
    std::printf("\n%s, %zu ranks: FAILED: %s\n", name.c_str(), ranks, error.what());
    return false;
  }
  std::int64_t compared = 0;
  std::vector<std::string> wrong;
  for (const auto& outcome : outcomes) {
    compared += outcome.compared;
    wrong.insert(wrong.end(), outcome.wrong.begin(), outcome.wrong.end());
  }
  std::printf("\n%s, %zu ranks: %lld elements compared, %zu results differ%s\n", name.c_str(), ranks,
              static_cast<long long>(compared), wrong.size(), wrong.empty() ? "" : ":");
  for (std::size_t i = 0; i < wrong.size() && i < 20; ++i) std::printf("  %s\n", wrong[i].c_str());
  std::printf("  %-14s %10s %10s %11s %11s\n", "collective", "bytes", "us", "algbw GB/s", "busbw GB/s");
  for (const auto& timing : timings) {
    const double rate = 1e-9 * static_cast<double>(timing.bytes) / timing.seconds;
    std::printf("  %-14s %10zu %10.1f %11.2f %11.2f\n", timing.collective.c_str(), timing.bytes, 1e6 * timing.seconds,
                rate, rate * timing.bus_factor);
  }
  return wrong.empty();
}

#if defined(TROIKA_HAS_CUDA)
bool test_gpus(const Arguments& arguments) {
  bool right = true;
  const int gpus = troika::cuda_device_count();
  troika::CudaOptions shared;
  if (gpus == 1) shared.virtual_ranks = arguments.ranks;
  const auto devices = [&] { return troika::cuda_devices(shared); };
  for (const auto& device : devices()) std::printf("%s\n", device.name().c_str());
  right &= test("Threads on GPUs", devices(), troika::Threads{}, arguments);
  right &= test("Peer", devices(), troika::Peer{}, arguments);
#if defined(TROIKA_HAS_NCCL)
  right &= test("NCCL", troika::cuda_devices(), troika::Nccl{}, arguments);
#else
  std::printf("\nNCCL: troika was built without it\n");
#endif
  std::string chosen;
  const troika::Log log([&](troika::LogLevel, std::string_view line) { chosen += "  " + std::string(line) + "\n"; });
  right &= test("Fastest", devices(), troika::Fastest({.log = log}), arguments);
  std::printf("%s", chosen.c_str());
  return right;
}
#endif

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(values[i], "--quick") == 0) {
      arguments.quick = true;
    } else if (std::strcmp(values[i], "--ranks") == 0 && i + 1 < count && std::atoi(values[i + 1]) > 0) {
      arguments.ranks = std::atoi(values[++i]);
    } else {
      std::printf(
          "usage: troika-selftest [--ranks N] [--quick]\n"
          "  --ranks N  ranks on the host's cores, and those that share the GPU where there is one (4)\n"
          "  --quick    small sizes only\n");
      return 2;
    }
  }
  bool right = test("Threads", troika::host_devices(arguments.ranks), troika::Threads{}, arguments);
#if defined(TROIKA_HAS_CUDA)
  if (troika::cuda_device_count() > 0)
    right &= test_gpus(arguments);
  else
    std::printf("\nno GPU: the driver has none, or there is no driver\n");
#else
  std::printf("\nno GPU: troika was built without CUDA\n");
#endif
  std::printf("\n%s\n", right ? "Everything is as it should be." : "SOMETHING IS WRONG: see above.");
  return right ? 0 : 1;
}
