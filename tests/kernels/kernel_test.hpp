// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <shim/cuda.hpp>
#include <support/sanitizers.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <random>
#include <vector>

#if TROIKA_SANITIZED
#include <sanitizer/asan_interface.h>
#endif

namespace troika::test {

using shim::Machine;
using shim::Schedule;

inline std::vector<Schedule> schedules() {
  using Order = Schedule::Order;
  return {{Order::forward}, {Order::reverse}, {Order::random, 1}};
}

// Memory as a kernel gets it, with a margin on both sides that is no number and that nobody may write: AddressSanitizer
// stops at it, and intact() sees what was written elsewhere. `offset` elements past an address that packs may be read
// at.
template <class T>
class Memory {
 public:
  explicit Memory(std::vector<T> values, std::size_t offset = 0)
      : size_(values.size()), bytes_(2 * margin + (size_ + offset) * sizeof(T) + 16, std::byte{0xff}) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data() + margin);
    begin_ = margin + (16 - address % 16) % 16 + offset * sizeof(T);
    if (size_ > 0) std::memcpy(bytes_.data() + begin_, values.data(), size_ * sizeof(T));
    poison(true);
  }
  explicit Memory(std::size_t size, std::size_t offset = 0) : Memory(unwritten(size), offset) {}
  Memory(Memory&&) = default;
  ~Memory() { poison(false); }

  T* data() { return reinterpret_cast<T*>(bytes_.data() + begin_); }
  std::vector<T> values() {
    std::vector<T> result(size_);
    if (size_ > 0) std::memcpy(result.data(), data(), size_ * sizeof(T));
    return result;
  }
  bool intact() {
    poison(false);
    const auto end = begin_ + size_ * sizeof(T);
    const auto unwritten = [](std::byte b) { return b == std::byte{0xff}; };
    const bool result = std::all_of(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(begin_), unwritten) &&
                        std::all_of(bytes_.begin() + static_cast<std::ptrdiff_t>(end), bytes_.end(), unwritten);
    poison(true);
    return result;
  }

 private:
  static constexpr std::size_t margin = 64;
  static std::vector<T> unwritten(std::size_t size) {
    std::vector<T> values(size);
    if (size > 0) std::memset(static_cast<void*>(values.data()), 0xff, size * sizeof(T));
    return values;
  }
  void poison([[maybe_unused]] bool on) {
#if TROIKA_SANITIZED
    const std::size_t end = begin_ + size_ * sizeof(T);
    if (bytes_.empty()) return;
    if (on) {
      __asan_poison_memory_region(bytes_.data(), begin_ / 8 * 8);
      __asan_poison_memory_region(bytes_.data() + end, bytes_.size() - end);
    } else {
      __asan_unpoison_memory_region(bytes_.data(), bytes_.size());
    }
#endif
  }

  std::size_t size_, begin_ = 0;
  std::vector<std::byte> bytes_;
};

inline std::vector<float> numbers(std::size_t count, std::uint64_t seed, float low = -1, float high = 1) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

// How many are farther than `bound` from what they should be; a NaN is.
template <class Expected>
std::size_t wrong(const std::vector<float>& values, const std::vector<Expected>& expected, double bound) {
  std::size_t count = values.size() != expected.size();
  for (std::size_t i = 0; i < std::min(values.size(), expected.size()); ++i) {
    const double want = static_cast<double>(expected[i]);
    count += !(std::abs(static_cast<double>(values[i]) - want) <= bound * std::max(1.0, std::abs(want)));
  }
  return count;
}

// Whether `right`, which runs kernels on a machine and says if their results are right, notices each __syncthreads and
// each __syncwarp of these kernels that is taken out, in one schedule at least. So one that is not needed is found, too.
inline bool misses_every_barrier(const std::function<bool(Machine&)>& right) {
  Machine whole;
  if (!right(whole) || whole.barriers() + whole.meetings() == 0) return false;
  const auto noticed = [&](int Schedule::*without, int n) {
    auto all = schedules();
    for (std::uint64_t seed = 2; seed < 20; ++seed) all.push_back({Schedule::Order::random, seed});
    return std::any_of(all.begin(), all.end(), [&](Schedule schedule) {
      schedule.*without = n;
      Machine machine(schedule);
      try {
        return !right(machine);
      } catch (const std::exception&) {
        return true;
      }
    });
  };
  for (int n = 0; n < whole.barriers(); ++n)
    if (!noticed(&Schedule::without_barrier, n)) return false;
  for (int n = 0; n < whole.meetings(); ++n)
    if (!noticed(&Schedule::without_meeting, n)) return false;
  return true;
}

}  // namespace troika::test
