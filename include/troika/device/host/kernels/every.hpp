// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else
#include <troika/device/host/kernels/vector.hpp>

// What the others call comes first.
#include <troika/device/host/kernels/elementwise.hpp>
#include <troika/device/host/kernels/rows.hpp>
#include <troika/device/host/kernels/tiles.hpp>

#include <troika/device/host/kernels/dots.hpp>
#endif
