// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <troika/device/candidate.hpp>
#include <troika/device/cuda/device.hpp>

namespace troika {

// What device/host/candidates.hpp says, of logits in memory of the GPU; `out` is in the host's, and this waits for it.
// More than 256 are looked for on the host.
std::size_t top_candidates(CudaStream& stream, std::span<const float> logits, std::int64_t first_id,
                           std::span<Candidate> out);

}  // namespace troika
