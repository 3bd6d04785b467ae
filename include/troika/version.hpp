// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one place that states the version. CMake, pkg-config and the packages read it from here.
#define TROIKA_VERSION_MAJOR 0
#define TROIKA_VERSION_MINOR 1
#define TROIKA_VERSION_PATCH 0

namespace troika {

struct Version {
  int major, minor, patch;
};

inline constexpr Version version{TROIKA_VERSION_MAJOR, TROIKA_VERSION_MINOR, TROIKA_VERSION_PATCH};

}  // namespace troika
