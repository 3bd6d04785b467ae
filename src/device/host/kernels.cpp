// SPDX-License-Identifier: Apache-2.0

// The kernels of the host that take long to compile, once. They are the same templates that a program without this
// library compiles for itself.
#undef TROIKA_COMPILED_KERNELS

#include <troika/device/host/attention.hpp>
#include <troika/device/host/linear.hpp>

namespace troika {

TROIKA_LINEAR_INSTANCES(template)

namespace kernels {
TROIKA_ATTENTION_INSTANCES(template)
}

}  // namespace troika
