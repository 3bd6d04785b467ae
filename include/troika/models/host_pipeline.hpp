// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/device/host/host.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/sync/data_sync.hpp>

namespace troika::models {

// The pipeline that models are compiled for: groups of cores that talk through threads, with shares that are stated. A
// program with another one compiles the same templates for itself.
using HostCommunication = Communication<Threads>;
using HostPipeline = Pipeline<TaskScheduler<StaticAllocation>, DataSync<HostCommunication>, HostCommunication>;

}  // namespace troika::models
