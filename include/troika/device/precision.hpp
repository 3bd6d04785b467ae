// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace troika {

// How activations meet a weight that is not f32.
enum class Precision {
  fast,   // rounded to what the device multiplies faster with such weights: bf16, or 8 bits in groups of 32
  exact,  // as they are, in f32
};

}  // namespace troika
