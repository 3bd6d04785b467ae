// SPDX-License-Identifier: Apache-2.0
//
//   rank 0  [ 1 1 1 ]  \              / [ 10 10 10 ]
//   rank 1  [ 2 2 2 ]   \  all_reduce   [ 10 10 10 ]
//   rank 2  [ 3 3 3 ]   /     sum       [ 10 10 10 ]
//   rank 3  [ 4 4 4 ]  /              \ [ 10 10 10 ]
//
// The collective under everything else: four ranks, each a thread with its own cores, add up what they hold.
#include <cstdio>
#include <vector>

#include <troika/troika.hpp>

int main() {
  troika::TaskScheduler scheduler{troika::host_devices(4), troika::StaticAllocation{}};

  const auto sums = scheduler.run_on_every_device([](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    std::vector<float> values(3, static_cast<float>(rank.rank() + 1));
    communication.all_reduce(std::span(values));
    return values;
  });

  bool right = true;
  for (std::size_t r = 0; r < sums.size(); ++r) {
    std::printf("rank %zu has %g %g %g\n", r, sums[r][0], sums[r][1], sums[r][2]);
    right &= sums[r] == std::vector<float>(3, 10.0f);
  }

  // A rank that calls something else is found out: an error on every rank, instead of a hang or a wrong sum.
  try {
    scheduler.run_on_every_device([](auto& rank) {
      troika::Communication communication{rank, troika::Threads{}};
      std::vector<float> values(rank.rank() == 2 ? 4 : 3);
      communication.all_reduce(std::span(values));
    });
    right = false;
  } catch (const troika::Error& error) {
    std::printf("\nrank 2 brought 4 values, the others 3:\n  %s\n", error.what());
  }
  std::printf("\nNext: linear, where the sum is a matrix product.\n");
  return right ? 0 : 1;
}
