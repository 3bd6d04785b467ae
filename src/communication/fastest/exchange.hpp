// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include <troika/communication/device_engine.hpp>

namespace troika::fastest {

// One collective with equal counts, by an engine: the same on all ranks. A send is one of a ring of messages. `in` and
// `out` have room for what goes in and comes out; of a broadcast, by the last rank, out is both.
void exchange(DeviceEngine& engine, Operation operation, const Call& call, const std::byte* in, std::byte* out);

// Every collective with every type and small odd sizes, each rank's numbers against what it works out on the host. The
// first that differs, in words; empty if none does.
std::string self_test(DeviceEngine& engine, std::chrono::nanoseconds deadline);

}  // namespace troika::fastest
