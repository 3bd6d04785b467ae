// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <span>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "bounded.hpp"

namespace troika::fuzz {

// The path of a file that has these bytes, until the next call; it is in memory only.
inline const std::string& file_of(std::span<const std::byte> bytes) {
  static const int fd = ::memfd_create("fuzz", 0);
  static const std::string path = [] {
    const Uncounted own;
    return "/proc/self/fd/" + std::to_string(fd);
  }();
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, bytes.data(), bytes.size(), 0) != std::ssize(bytes)) std::abort();
  return path;
}

}  // namespace troika::fuzz
