// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include <troika/communication/threads.hpp>
#include <troika/core/error.hpp>

#if defined(TROIKA_HAS_CUDA)
#include <troika/communication/fastest.hpp>
#include <troika/device/cuda/cuda.hpp>
#endif

#include "gpu_list.hpp"

// How devices of a kind reach each other.
template <class D>
inline const auto transport_of = troika::Threads{};
#if defined(TROIKA_HAS_CUDA)
template <>
inline const auto transport_of<troika::CudaDevice> = troika::Fastest{};
#endif

// What --devices and --gpus ask for.
struct DeviceOptions {
  int devices = 0;  // groups of cores; 0: not asked for
  std::optional<std::string> gpus{};
};

inline void add_device_options(CLI::App& app, DeviceOptions& options) {
  auto* const cores = app.add_option("--devices", options.devices,
                                     "devices, each with its share of the cores (default: one a core, at least 2)")
                          ->check(CLI::Range(1, 256));
  app.add_option("--gpus", options.gpus,
                 "GPUs instead of cores: so many, or a list such as 0,2 of their numbers among those that "
                 "CUDA_VISIBLE_DEVICES lets it see; 0: none (default: all)")
      ->excludes(cores);
}

// The GPUs that a program works on, or none, for cores: those that were asked for; else all that there are, which it
// says, unless cores were asked for.
inline std::vector<int> gpus_to_use(const DeviceOptions& asked) {
  const auto numbers = parse_gpus(asked.gpus.value_or("0"));
#if defined(TROIKA_HAS_CUDA)
  if (!numbers.empty()) return troika::cuda_gpus(numbers);
  if (asked.gpus || asked.devices > 0) return {};
  const int there = troika::cuda_device_count();
  if (there == 0) return {};
  std::printf("on %d GPUs; --gpus 0 takes cores instead\n", there);
  return troika::cuda_gpus();
#else
  if (!numbers.empty())
    throw troika::Error(troika::Fault::unsupported, "this program was built without GPUs, the component troika::cuda");
  return {};
#endif
}
