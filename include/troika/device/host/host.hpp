// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that CPU cores can do.
#include <troika/device/host/attention.hpp>
#include <troika/device/host/candidates.hpp>
#include <troika/device/host/checksum.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/elementwise.hpp>
#include <troika/device/host/embedding.hpp>
#include <troika/device/host/experts.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/gemv.hpp>
#include <troika/device/host/host_report.hpp>
#include <troika/device/host/kv_rows.hpp>
#include <troika/device/host/linear.hpp>
#include <troika/device/host/memory.hpp>
#include <troika/device/host/norm.hpp>
#include <troika/device/host/rotary.hpp>
#include <troika/device/host/slices.hpp>
#include <troika/device/host/system_memory.hpp>
#include <troika/device/host/team.hpp>
#include <troika/device/host/topology.hpp>
