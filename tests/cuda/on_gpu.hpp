// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/rank.hpp>
#include <troika/device/cuda/cuda.hpp>

#include "runtime/recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

namespace troika::test {

// Values in the memory of a GPU, for check_operations. `offset` elements past where packs begin.
template <Element E>
struct OnGpu {
  CudaTensor<E> tensor;
  CudaStream stream;
  std::size_t offset;

  std::span<E> span() { return tensor.span().subspan(offset); }
  std::span<const E> read() const { return tensor.span().subspan(offset); }
  std::vector<E> values() {
    const auto host = read_back(stream, View<const E>(read().data(), {static_cast<std::int64_t>(read().size())}));
    return {host.span().begin(), host.span().end()};
  }
};
inline auto on_gpu(Rank<CudaDevice>& rank, std::size_t offset = 0) {
  return [&rank, offset]<Element E>(const std::vector<E>& values) {
    const auto count = static_cast<std::int64_t>(values.size());
    OnGpu<E> placed{{rank.device(), Shape{count + static_cast<std::int64_t>(offset)}}, rank.stream(), offset};
    upload(placed.stream, View<const E>(values.data(), {count}), View<E>(placed.span().data(), {count}));
    return placed;
  };
}

// One device of each of so many GPUs.
inline std::vector<CudaDevice> gpus(int count) {
  std::vector<int> all;
  for (int i = 0; i < count; ++i) all.push_back(i);
  return cuda_devices({}, all);
}

// Two groups of five ranks, each with a sum of its own; then all together.
template <class Transport>
void check_split(const Transport& transport) {
  const auto sums = run_ranks(gpus(5), [&](auto& rank) {
    Communication world{rank, transport};
    auto half = world.split(world.rank() % 2, -world.rank());
    auto sum = on_gpu(rank)(std::vector<std::int32_t>{world.rank()});
    half.all_reduce(sum.span());
    world.all_reduce(sum.span());
    half.broadcast(sum.span(), Root{0});
    return sum.values()[0];
  });
  // Twice the sum of 0 + 2 + 4 by three ranks, and of 1 + 3 by two.
  for (const auto sum : sums) CHECK(sum == 3 * 6 + 2 * 4);
}

inline std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}

}  // namespace troika::test
