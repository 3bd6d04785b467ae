// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <troika/device/device.hpp>

namespace troika {

// A device that computes while ranks exchange what it has computed: device/cuda/second_stream.hpp says how.
template <class D>
concept HasSecondStream = HasOwnMemory<D> && requires {
  typename D::SecondStream;
};

}  // namespace troika
