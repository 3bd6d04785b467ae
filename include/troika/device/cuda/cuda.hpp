// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that GPUs can do; the component troika::cuda.
#include <troika/device/cuda/attention.hpp>
#include <troika/device/cuda/candidates.hpp>
#include <troika/device/cuda/checksum.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/cuda/elementwise.hpp>
#include <troika/device/cuda/embedding.hpp>
#include <troika/device/cuda/experts.hpp>
#include <troika/device/cuda/kv_rows.hpp>
#include <troika/device/cuda/linear.hpp>
#include <troika/device/cuda/memory.hpp>
#include <troika/device/cuda/norm.hpp>
#include <troika/device/cuda/rotary.hpp>
#include <troika/device/cuda/slices.hpp>
