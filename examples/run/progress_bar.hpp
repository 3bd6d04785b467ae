// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>

// A bar on stderr that several ranks advance; nothing where stderr is no terminal. (Debian packages no library for it.)
class ProgressBar {
 public:
  ProgressBar(std::string what, std::uint64_t total)
      : what_(std::move(what)), total_(std::max<std::uint64_t>(total, 1)) {}
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }

  void advance(std::uint64_t amount) {
    const auto done = std::min(total_, done_ += amount);
    if (!terminal_) return;
    std::lock_guard lock(mutex_);
    const auto percent = static_cast<int>(100 * done / total_);
    if (percent == percent_) return;
    percent_ = percent;
    shown_ = true;
    const auto filled = static_cast<std::size_t>(percent) * 3 / 10;
    std::fprintf(stderr, "\r%s [%s%s] %3d%%", what_.c_str(), std::string(filled, '#').c_str(),
                 std::string(30 - filled, ' ').c_str(), percent);
  }

 private:
  std::string what_;
  std::uint64_t total_;
  std::atomic<std::uint64_t> done_{0};
  std::mutex mutex_;
  int percent_ = -1;
  bool shown_ = false;
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
};
