// SPDX-License-Identifier: Apache-2.0

// Catch2's main, which without a GPU says so; --list-gpus names those that there are.

#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"

#include <cstdio>
#include <exception>
#include <string_view>

#include <troika/device/cuda/device.hpp>

int main(int argc, char** argv) {
  try {
    if (troika::cuda_device_count() == 0) {
      std::puts("no GPU, or no driver for it");
      return 3;
    }
    for (const auto& device : troika::cuda_devices()) std::printf("%s\n", device.name().c_str());
  } catch (const std::exception& error) {
    std::printf("no GPU: %s\n", error.what());
    return 3;
  }
  if (argc == 2 && std::string_view(argv[1]) == "--list-gpus") return 0;
  return Catch::Session().run(argc, argv);
}
