// SPDX-License-Identifier: Apache-2.0

// The sums and maxima of all element types, once; see src/device/host/kernels.cpp.
#undef TROIKA_COMPILED_KERNELS

#include <troika/communication/reduce.hpp>

namespace troika::reduce_detail {

TROIKA_REDUCE_INSTANCES(template)

}  // namespace troika::reduce_detail
