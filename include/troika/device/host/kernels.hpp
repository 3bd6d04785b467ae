// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <troika/core/dequantize.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/kernels/amx.hpp>
#include <troika/device/host/kernels/levels.hpp>
#include <troika/device/host/panel_fields.hpp>

// Where several follow each other, the later ones need the earlier ones.
// clang-format off
#define TROIKA_LEVEL plain
#define TROIKA_WIDTH 4
#define TROIKA_TARGET
#include <troika/device/host/kernels/every.hpp>
#undef TROIKA_LEVEL
#undef TROIKA_WIDTH
#undef TROIKA_TARGET

#if defined(__x86_64__)

#define TROIKA_LEVEL avx2
#define TROIKA_WIDTH 8
#define TROIKA_TARGET __attribute__((target("avx2,fma,f16c")))
#include <troika/device/host/kernels/every.hpp>
#include <troika/device/host/kernels/groups.hpp>
#include <troika/device/host/kernels/bytes.hpp>
#include <troika/device/host/kernels/panel_lanes.hpp>
#include <troika/device/host/kernels/panels.hpp>
#include <troika/device/host/kernels/panel_sums.hpp>
#undef TROIKA_LEVEL
#undef TROIKA_WIDTH
#undef TROIKA_TARGET

#define TROIKA_LEVEL avx512
#define TROIKA_WIDTH 16
#define TROIKA_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#include <troika/device/host/kernels/every.hpp>
#undef TROIKA_LEVEL
#undef TROIKA_WIDTH
#undef TROIKA_TARGET

#define TROIKA_LEVEL avx512
#define TROIKA_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")))
#include <troika/device/host/kernels/pairs.hpp>
#include <troika/device/host/kernels/pair_panels.hpp>
#undef TROIKA_LEVEL
#undef TROIKA_TARGET

#define TROIKA_LEVEL avx512
#define TROIKA_WIDTH 16
#define TROIKA_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")))
#include <troika/device/host/kernels/panel_lanes.hpp>
#include <troika/device/host/kernels/panels.hpp>
#include <troika/device/host/kernels/panel_dots.hpp>
#include <troika/device/host/kernels/amx_panels.hpp>
#undef TROIKA_LEVEL
#undef TROIKA_WIDTH
#undef TROIKA_TARGET

#endif
// clang-format on

#undef TROIKA_INLINE
#undef TROIKA_UNROLL
