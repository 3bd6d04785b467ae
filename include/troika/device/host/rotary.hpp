// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>

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
};

// cos and sin of every angle that positions [0, positions) need. Immutable: share it between layers and ranks.
class RotaryTable {
 public:
  RotaryTable(std::int64_t positions, std::int64_t head_dim, RotaryOptions options = {})
      : positions_(positions), head_dim_(head_dim) {
    expects(positions >= 0, [&] { return "a rotary table has at least 0 positions, not " + std::to_string(positions); });
    expects(head_dim >= 2 && head_dim % 2 == 0,
            [&] { return "rotary embedding needs an even head_dim of at least 2, not " + std::to_string(head_dim); });
    expects(std::isfinite(options.theta) && options.theta > 0, [&] {
      return "the theta of a rotary embedding is finite and above 0, not " + std::to_string(options.theta);
    });
    const std::int64_t half = head_dim / 2;
    (void)Shape{positions, head_dim};  // throws where the product overflows
    cos_.resize(static_cast<std::size_t>(positions * half));
    sin_.resize(cos_.size());
    for (std::int64_t i = 0; i < half; ++i) {
      // Models were trained with frequencies and angles rounded to float: so are these.
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
      float frequency = 1.0f / static_cast<float>(std::pow(double{options.theta}, double{exponent}));
      if (options.llama3) frequency = scaled(frequency, *options.llama3);
      for (std::int64_t position = 0; position < positions; ++position) {
        const float angle = static_cast<float>(position) * frequency;
        cos_[static_cast<std::size_t>(position * half + i)] = static_cast<float>(std::cos(double{angle}));
        sin_[static_cast<std::size_t>(position * half + i)] = static_cast<float>(std::sin(double{angle}));
      }
    }
  }

  std::int64_t positions() const { return positions_; }
  std::int64_t head_dim() const { return head_dim_; }
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
};

// Rotates the pairs (i, i + head_dim/2) of each head of x (tokens, heads, head_dim), in place; positions (tokens).
inline void rotary(HostStream& stream, View<float> x, std::span<const std::int32_t> positions, const RotaryTable& table,
                   CpuLevel level = cpu_level()) {
  expects(x.shape().dims() == 3 && x.shape()[0] == static_cast<std::int64_t>(positions.size()) &&
              x.shape()[2] == table.head_dim(),
          [&] {
            return "rotary takes x (tokens, heads, " + std::to_string(table.head_dim()) + ") and a position per token, not " +
                   x.shape().to_string() + " and " + std::to_string(positions.size()) + " positions";
          });
  for (const auto position : positions) {
    expects(position >= 0 && position < table.positions(), [&] {
      return "position " + std::to_string(position) + " is outside of the rotary table, which holds 0 to " +
             std::to_string(table.positions() - 1);
    });
  }
  const std::int64_t heads = x.shape()[1], half = x.shape()[2] / 2;
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    const std::int64_t grain = 8192 / std::max<std::int64_t>(heads * half, 1) + 1;
    parallel_for(stream.device().team(), x.shape()[0], grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t position = positions[static_cast<std::size_t>(t)];
        for (std::int64_t h = 0; h < heads; ++h) {
          float* low = x.data() + (t * heads + h) * 2 * half;
          R::rotate(low, low + half, table.cos(position), table.sin(position), half);
        }
      }
    });
  });
}

}  // namespace troika
