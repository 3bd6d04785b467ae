// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
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

// y, the sum over the ranks, and residual and norm with it in one, against loops in double precision. Gives what differs
// on this rank.
template <class C>
std::string compare_all_reduce_norm(C& c, Rank<CudaDevice>& rank, int rows, int d) {
  const auto values = [](int count, int seed) {
    std::vector<float> result;
    for (int i = 0; i < count; ++i) result.push_back(static_cast<float>((i * 37 + seed * 71) % 101) / 7 - 6);
    return result;
  };
  const int ranks = c.world_size(), of_residual = ranks, of_weight = ranks + 1;
  const float eps = 1e-5f;
  const auto place = on_gpu(rank);
  auto y = place(values(rows * d, c.rank())), residual = place(values(rows * d, of_residual));
  const auto weight = place(values(d, of_weight));
  c.all_reduce_norm(y.span(), residual.span(), weight.read(), eps);

  std::vector<double> added(static_cast<std::size_t>(rows * d));
  for (int from = 0; from <= of_residual; ++from) {
    const auto term = values(rows * d, from);
    for (std::size_t i = 0; i < added.size(); ++i) added[i] += double{term[i]};
  }
  const auto scale = values(d, of_weight), got_added = residual.values(), got = y.values();
  std::string wrong;
  for (std::size_t row = 0; row < added.size(); row += scale.size()) {
    double squares = 0;
    for (std::size_t i = 0; i < scale.size(); ++i) squares += added[row + i] * added[row + i];
    const double factor = 1 / std::sqrt(squares / d + double{eps});
    for (std::size_t i = 0; i < scale.size(); ++i) {
      const double sum_error = std::abs(double{got_added[row + i]} - added[row + i]);
      const double norm_error = std::abs(double{got[row + i]} - added[row + i] * factor * double{scale[i]});
      if ((sum_error < 1e-4 && norm_error < 1e-4) || !wrong.empty()) continue;  // no number is not less either
      wrong = "all_reduce_norm of " + std::to_string(rows) + " rows of " + std::to_string(d) + " on rank " +
              std::to_string(c.rank()) + " is off by " + std::to_string(sum_error) + " and " +
              std::to_string(norm_error) + " at element " + std::to_string(row + i) + "; ";
    }
  }
  return wrong;
}

// What an error says when some call of CUDA failed: which, or what it was for.
inline bool names_failed_call(const std::string& what) {
  constexpr std::array names{"cuda", "cublasLt", "a kernel was not started", "memory"};
  return std::ranges::any_of(names, [&](const char* name) { return what.find(name) != std::string::npos; });
}

inline std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}

}  // namespace troika::test
