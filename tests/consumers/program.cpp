// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include <troika/core/partition.hpp>
#include <troika/version.hpp>

int main() {
  std::printf("troika %d.%d.%d\n", troika::version.major, troika::version.minor, troika::version.patch);
  return troika::Partition::even(8, 2)[1].size() == 4 ? 0 : 1;
}
