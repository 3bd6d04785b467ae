// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <span>

#include <kernels/experts.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/experts.hpp>

#include "queue.hpp"

namespace troika {

void choose_experts(CudaStream& stream, View<const float> scores, bool normalized, View<std::int32_t> chosen,
                    View<float> weights) {
  kernels::check_experts(scores.shape(), chosen.shape(), weights.shape());
  cuda::choose_experts(scores.data(), scores.shape()[0], static_cast<int>(scores.shape()[1]),
                       static_cast<int>(chosen.shape()[1]), normalized, chosen.data(), weights.data(),
                       cuda::stream_of(stream));
}

void gather_rows(CudaStream& stream, View<const float> x, std::span<const std::int32_t> rows, View<float> y) {
  cuda::gather_rows(x.data(), rows.data(), std::ssize(rows), y.data(), x.shape()[1], cuda::stream_of(stream));
}

void add_rows(CudaStream& stream, View<const float> x, std::span<const std::int32_t> rows,
              std::span<const float> weights, View<float> y) {
  cuda::add_rows(x.data(), rows.data(), weights.data(), std::ssize(rows), y.data(), x.shape()[1],
                 cuda::stream_of(stream));
}

}  // namespace troika
