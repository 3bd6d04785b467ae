// SPDX-License-Identifier: Apache-2.0
// expect: compiles
#include <troika/core/partition.hpp>
#include <troika/core/placement.hpp>

static_assert(troika::Placement<troika::Replicate>);

int main() { return troika::Partition::even(8, 2)[1].size() == 4 ? 0 : 1; }
