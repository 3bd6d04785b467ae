// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <span>

#include <troika/communication/transport.hpp>

namespace troika {

// A product of a device with what ranks exchange of it: sums of y, or rows of x.
struct ExchangedProduct {
  Operation operation;
  std::int64_t rows, outputs, features;  // the same on all ranks
};

// In how many parts such a product is exchanged, one beside the computing of the next: found by timing it whole and in
// parts, once for each kind and size of rows, and kept. Of one communication; the same on all its ranks.
class Chunking {
 public:
  // What is smaller than this loses more by smaller products and messages than it can hide.
  static constexpr std::int64_t fewest_rows = 256, fewest_rows_of_part = 128;

  // From here on nothing is timed; what was not is not done in parts.
  void stop() { stopped_ = true; }
  // Whether anything is. Ranks that share a GPU have nothing to hide: sums take its processors from products.
  template <class Communication, class Stream>
  bool times(const Communication& communication, const Stream& stream) const {
    const auto& options = stream.device().options();
    return !stopped_ && !options.overlap_rows && options.virtual_ranks == 1 && communication.world_size() > 1;
  }

  // `prepare` takes all memory that the product needs, and gives run(parts), which does it.
  template <class Communication, class Stream, class Prepare>
  int parts(Communication& communication, Stream& stream, const ExchangedProduct& product, Prepare&& prepare) {
    const auto& options = stream.device().options();
    if (stream.in_step() || product.rows == 0) return 1;
    if (options.overlap_rows) {
      if (*options.overlap_rows <= 0) return 1;
      return static_cast<int>((product.rows - 1) / *options.overlap_rows + 1);
    }
    if (product.rows < fewest_rows) return 1;
    const std::array key{static_cast<std::int64_t>(product.operation),
                         static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(product.rows))),
                         product.outputs, product.features};
    const auto found = known_.find(key);
    if (found != known_.end()) return found->second;
    if (!times(communication, stream)) return 1;
    return known_[key] = measure(communication, stream, product.rows, prepare);
  }

 private:
  using Key = std::array<std::int64_t, 4>;
  static constexpr std::array tried{1, 2, 4};
  static constexpr float worth = 0.97f;  // of the time of the whole: less of a gain is noise

  template <class Communication, class Stream, class Prepare>
  static int measure(Communication& communication, Stream& stream, std::int64_t rows, Prepare&& prepare) {
    // No device waits for another while memory is asked for.
    stream.synchronize();
    communication.barrier();
    auto run = prepare();
    stream.synchronize();
    std::array<float, tried.size()> seconds;
    for (std::size_t i = 0; i < tried.size(); ++i) {
      const bool small = tried[i] > 1 && rows / tried[i] < fewest_rows_of_part;
      seconds[i] = small ? std::numeric_limits<float>::max() : time_of(communication, stream, run, tried[i]);
    }
    const auto best = std::ranges::min_element(seconds);
    std::int32_t parts = *best < worth * seconds[0] ? tried[static_cast<std::size_t>(best - seconds.begin())] : 1;
    communication.broadcast(std::span(&parts, 1), Root{0});
    return parts;
  }

  // The median of a few runs after one that is not counted.
  template <class Communication, class Stream, class Run>
  static float time_of(Communication& communication, Stream& stream, Run& run, int parts) {
    std::array<float, 3> seconds;
    for (int i = -1; i < static_cast<int>(seconds.size()); ++i) {
      communication.barrier();
      const auto begin = std::chrono::steady_clock::now();
      run(parts);
      stream.synchronize();
      const std::chrono::duration<float> time = std::chrono::steady_clock::now() - begin;
      if (i >= 0) seconds[static_cast<std::size_t>(i)] = time.count();
    }
    std::ranges::nth_element(seconds, seconds.begin() + 1);
    return seconds[1];
  }

  std::map<Key, int> known_;
  bool stopped_ = false;
};

}  // namespace troika
