// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <complex>
#include <cstddef>
#include <span>

namespace troika::truth {

// Turns one head: pair i is a complex number whose parts lie half a head apart.
inline void rotary(std::span<double> head, std::span<const float> cos, std::span<const float> sin) {
  const std::size_t half = cos.size();
  for (std::size_t i = 0; i < half; ++i) {
    const std::complex<double> turned = std::complex<double>(head[i], head[i + half]) *
                                        std::complex<double>(static_cast<double>(cos[i]), static_cast<double>(sin[i]));
    head[i] = turned.real();
    head[i + half] = turned.imag();
  }
}

}  // namespace troika::truth
