// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace troika {

enum class LogLevel { debug, info, warning, error };

constexpr std::string_view to_string(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return "debug";
    case LogLevel::info: return "info";
    case LogLevel::warning: return "warning";
    case LogLevel::error: return "error";
  }
  return "unknown level";
}

// Where the library tells what it did on its own, such as trying a task again elsewhere. A handle: copies share the
// sink. Thread-safe: the sink is called by one thread at a time.
class Log {
 public:
  using Sink = std::function<void(LogLevel, std::string_view)>;

  // Warnings and errors, one line each, to stderr.
  Log() : Log(print, LogLevel::warning) {}
  // Messages below `least` are dropped. An empty sink drops all. What a sink throws is dropped too: telling about a
  // failure must not become one. The sink must not write to this log.
  explicit Log(Sink sink, LogLevel least = LogLevel::debug)
      : shared_(std::make_shared<Shared>(std::move(sink), least)) {}

  static Log silent() { return Log(Sink{}); }

  void write(LogLevel level, std::string_view text) const noexcept {
    if (level < shared_->least || !shared_->sink) return;
    try {
      std::lock_guard lock(shared_->mutex);
      shared_->sink(level, text);
    } catch (...) {
    }
  }

 private:
  static void print(LogLevel level, std::string_view text) {
    const std::string line = "troika: " + std::string(to_string(level)) + ": " + std::string(text) + "\n";
    std::fputs(line.c_str(), stderr);
  }

  struct Shared {
    Shared(Sink s, LogLevel l) : sink(std::move(s)), least(l) {}
    std::mutex mutex;
    Sink sink;
    LogLevel least;
  };
  std::shared_ptr<Shared> shared_;
};

}  // namespace troika
