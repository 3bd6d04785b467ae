// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one include: all that troika::troika holds. Models, their files and tokenizers are a component of their own,
// troika::models, with headers under <troika/models/...>.

#include <troika/communication/communication.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/threads.hpp>
#include <troika/core/activation.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/core/lane.hpp>
#include <troika/core/partition.hpp>
#include <troika/core/placement.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/device.hpp>
#include <troika/device/host/host.hpp>
#include <troika/device/mixed.hpp>
#include <troika/device/tensor.hpp>
#include <troika/layers/attention.hpp>
#include <troika/layers/block.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/embedding.hpp>
#include <troika/layers/experts.hpp>
#include <troika/layers/kv_cache.hpp>
#include <troika/layers/linear.hpp>
#include <troika/layers/norm.hpp>
#include <troika/layers/sampler.hpp>
#include <troika/observe/log.hpp>
#include <troika/observe/trace.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/measure_speeds.hpp>
#include <troika/scheduling/named_allocation.hpp>
#include <troika/scheduling/random_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/sync/data_sync.hpp>
#include <troika/sync/dtensor.hpp>
#include <troika/sync/replicated.hpp>
#include <troika/version.hpp>
