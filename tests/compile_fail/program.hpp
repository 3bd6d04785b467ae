// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <troika/troika.hpp>

// What every case here is a variation of.
using namespace troika;

using Scheduler = TaskScheduler<StaticAllocation, HostDevice>;
using Ranks = Communication<Threads>;
using Pipe = Pipeline<Scheduler, DataSync<Ranks>, Ranks>;
using Up = ColumnParallelLinear<HostDevice>;  // Replicate -> Shard<1>
using Down = RowParallelLinear<HostDevice>;   // Shard<1>  -> Partial
template <class P>
using Tokens = DTensor<float, P, HostDevice>;
