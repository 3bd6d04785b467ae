// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include <troika/core/shape.hpp>

namespace troika {

// "rope_type": "llama3" of a Hugging Face config.
struct Llama3Scaling {
  float factor = 8;
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  float original_max_position = 8192;
};

struct RotaryOptions {
  float theta = 10000;
  std::optional<Llama3Scaling> llama3{};
  std::vector<float> divisors{};  // (head_dim / 2), of the frequencies; empty: all 1
  float factor = 1;               // positions are divided by it
  float magnitude = 1;            // cos and sin are multiplied by it
};

// cos and sin of every angle that positions [0, positions) need. Immutable: share it between layers and ranks.
class RotaryTable {
 public:
  RotaryTable(std::int64_t positions, std::int64_t head_dim, RotaryOptions options = {})
      : positions_(positions), head_dim_(head_dim) {
    expects(positions >= 0,
            [&] { return "a rotary table has at least 0 positions, not " + std::to_string(positions); });
    expects(head_dim >= 2 && head_dim % 2 == 0,
            [&] { return "rotary embedding needs an even head_dim of at least 2, not " + std::to_string(head_dim); });
    expects(std::isfinite(options.theta) && options.theta > 0, [&] {
      return "the theta of a rotary embedding is finite and above 0, not " + std::to_string(options.theta);
    });
    const std::int64_t half = head_dim / 2;
    expects(options.divisors.empty() || std::ssize(options.divisors) == half, [&] {
      return "a rotary embedding of heads of " + std::to_string(head_dim) + " takes " + std::to_string(half) +
             " divisors, not " + std::to_string(options.divisors.size());
    });
    (void)Shape{positions, head_dim};  // throws where the product overflows
    cos_.resize(static_cast<std::size_t>(positions * half));
    sin_.resize(cos_.size());
    for (std::int64_t i = 0; i < half; ++i) {
      // Models were trained with frequencies and angles rounded to float: so are these.
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
      float frequency = 1.0f / static_cast<float>(std::pow(double{options.theta}, double{exponent}));
      if (options.llama3) frequency = scaled(frequency, *options.llama3);
      if (!options.divisors.empty()) frequency /= options.divisors[static_cast<std::size_t>(i)];
      frequency /= options.factor;
      for (std::int64_t position = 0; position < positions; ++position) {
        const float angle = static_cast<float>(position) * frequency;
        cos_[static_cast<std::size_t>(position * half + i)] =
            static_cast<float>(std::cos(double{angle})) * options.magnitude;
        sin_[static_cast<std::size_t>(position * half + i)] =
            static_cast<float>(std::sin(double{angle})) * options.magnitude;
      }
    }
  }

  std::int64_t positions() const { return positions_; }
  std::int64_t head_dim() const { return head_dim_; }
  // The same of a table and its copies, and as long as somebody holds it, of no other: who keeps a copy of the angles
  // elsewhere knows them by it.
  const std::shared_ptr<const void>& identity() const { return identity_; }
  // (head_dim / 2)
  const float* cos(std::int64_t position) const { return cos_.data() + position * (head_dim_ / 2); }
  const float* sin(std::int64_t position) const { return sin_.data() + position * (head_dim_ / 2); }

 private:
  static float scaled(float frequency, const Llama3Scaling& llama3) {
    const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
    if (wavelength < llama3.original_max_position / llama3.high_freq_factor) return frequency;
    if (wavelength > llama3.original_max_position / llama3.low_freq_factor) return frequency / llama3.factor;
    const float smooth = (llama3.original_max_position / wavelength - llama3.low_freq_factor) /
                         (llama3.high_freq_factor - llama3.low_freq_factor);
    return (1 - smooth) * frequency / llama3.factor + smooth * frequency;
  }

  std::int64_t positions_, head_dim_;
  std::vector<float> cos_, sin_;  // (positions, head_dim / 2)
  std::shared_ptr<const void> identity_ = std::make_shared<char>();
};

}  // namespace troika
