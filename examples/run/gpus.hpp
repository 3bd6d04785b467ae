// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <optional>

#include <troika/communication/threads.hpp>
#include <troika/core/error.hpp>

#if defined(TROIKA_HAS_CUDA)
#include <troika/communication/fastest.hpp>
#include <troika/device/cuda/cuda.hpp>
#endif

// How devices of a kind reach each other.
template <class D>
inline const auto transport_of = troika::Threads{};
#if defined(TROIKA_HAS_CUDA)
template <>
inline const auto transport_of<troika::CudaDevice> = troika::Fastest{};
#endif

// How many GPUs a program works on: as many as were asked for; else all that there are, which it says, unless cores were
// asked for.
inline int gpus_to_use(std::optional<int> asked, bool cores_asked) {
#if defined(TROIKA_HAS_CUDA)
  if (asked || cores_asked) return asked.value_or(0);
  const int there = troika::cuda_device_count();
  if (there > 0) std::printf("on %d GPUs; --gpus 0 takes cores instead\n", there);
  return there;
#else
  (void)cores_asked;
  if (asked.value_or(0) > 0)
    throw troika::Error(troika::Fault::unsupported, "this program was built without GPUs, the component troika::cuda");
  return 0;
#endif
}
