// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <kernels/candidates.cuh>
#include <troika/core/error.hpp>
#include <troika/device/cuda/candidates.hpp>
#include <troika/device/cuda/slices.hpp>

#include "queue.hpp"

namespace troika {

namespace {

void refuse_nan(bool nan) { expects(!nan, "a logit is NaN"); }

// More than the kernel takes.
std::size_t most_on_host(CudaStream& stream, std::span<const float> logits, std::int32_t first_id,
                         std::span<Candidate> out) {
  const auto host = read_back(stream, View<const float>(logits.data(), {std::ssize(logits)}));
  std::vector<Candidate> all;
  for (const float logit : host.span()) {
    refuse_nan(std::isnan(logit));
    all.push_back({logit, first_id + static_cast<std::int32_t>(all.size())});
  }
  return static_cast<std::size_t>(std::ranges::partial_sort_copy(all, out, better).out - out.begin());
}

}  // namespace

std::size_t top_candidates(CudaStream& stream, std::span<const float> logits, std::int64_t first_id,
                           std::span<Candidate> out) {
  const auto size = std::ssize(logits);
  expects(first_id >= 0 && first_id + size - 1 <= std::numeric_limits<std::int32_t>::max(),
          [&] { return "token ids from " + std::to_string(first_id) + " on do not fit 31 bits"; });
  const auto first = static_cast<std::int32_t>(first_id);
  if (out.empty()) return 0;
  if (out.size() > static_cast<std::size_t>(cuda::most_candidates)) return most_on_host(stream, logits, first, out);

  // What comes back: the candidates, and after them whether there is a NaN.
  const int k = static_cast<int>(out.size());
  struct Found {
    std::size_t bytes;
    Candidate* best;
    std::uint32_t* nan;
  };
  const auto at = [&](std::byte* data) {
    auto* const best = reinterpret_cast<Candidate*>(data);
    return Found{out.size_bytes() + sizeof(std::uint32_t), best, reinterpret_cast<std::uint32_t*>(best + k)};
  };
  auto scratch =
      stream.device().allocate(static_cast<std::size_t>(cuda::candidate_scratch(size, k)) * sizeof(Candidate));
  auto result = stream.device().allocate(out.size_bytes() + sizeof(std::uint32_t));
  auto host = stream.device().allocate_host(out.size_bytes() + sizeof(std::uint32_t));
  const Found found = at(result.data());
  cuda::zero_bytes(stream, found.nan, sizeof *found.nan);
  cuda::top_candidates(logits.data(), size, first, k, reinterpret_cast<Candidate*>(scratch.data()), found.best,
                       found.nan, cuda::stream_of(stream));
  cuda::download_bytes(stream, result.data(), host.data(), found.bytes);
  const Found here = at(host.data());
  refuse_nan(*here.nan != 0);
  std::size_t count = 0;
  for (; count < out.size() && here.best[count].id != cuda::no_token; ++count) out[count] = here.best[count];
  return count;
}

}  // namespace troika
