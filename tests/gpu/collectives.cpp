// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/fastest.hpp>
#include <troika/communication/peer.hpp>
#if defined(TROIKA_HAS_NCCL)
#include <troika/communication/nccl.hpp>
#endif

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;

namespace {

template <class Transport>
std::vector<std::string> wrong(std::vector<CudaDevice> devices, Transport transport) {
  return run_ranks(std::move(devices), [&](auto& rank) {
    Communication c{rank, transport};
    const auto place = on_gpu(rank), odd = on_gpu(rank, 1);
    std::string text;
    std::uint64_t seed = 0;
    for (const std::size_t count : {0, 1, 17, 1000, 5003, 300'001}) {
      text += check_operations<float>(c, place, ++seed, count);
      text += check_operations<bf16>(c, place, ++seed, count);
      text += check_operations<f16>(c, odd, ++seed, count);
      text += check_operations<std::int32_t>(c, place, ++seed, count);
      text += check_operations<std::int8_t>(c, odd, ++seed, count);
      text += check_operations<std::uint8_t>(c, place, ++seed, count);
    }
    for (const auto& [rows, d] : {std::pair{1, 64}, {7, 33}, {1, 4096}, {40, 128}, {512, 4096}, {2, 100'000}})
      text += compare_all_reduce_norm(c, rank, rows, d);
    return text;
  });
}

}  // namespace

TEST_CASE("Ranks that share a GPU get by Peer what a naive loop gives, bit for bit", "[ranks]") {
  const int ranks = GENERATE(1, 2, 3, 4, 5, 8);
  for (const auto& text : wrong(cuda_devices({.virtual_ranks = ranks}, {0}), Peer{})) CHECK(text == "");
}

TEST_CASE("Ranks that share a GPU get by whatever is fastest what a naive loop gives", "[ranks]") {
  const int ranks = GENERATE(1, 2, 4);
  for (const auto& text : wrong(cuda_devices({.virtual_ranks = ranks}, {0}), Fastest{})) CHECK(text == "");
}

TEST_CASE("Ranks that share a GPU have many epochs, in pieces, without a rank being late", "[ranks]") {
  const auto sums = run_ranks(cuda_devices({.virtual_ranks = 4}, {0}), [](auto& rank) {
    Communication c{rank, Peer({.staged_bytes = 1 << 16, .one_shot_bytes = 1 << 14})};
    auto data = on_gpu(rank)(std::vector<std::int32_t>(70'001, 1));
    for (int i = 0; i < 500; ++i) c.all_reduce(data.span(), Reduction::max);
    c.all_reduce(data.span());
    std::int64_t sum = 0;
    for (const auto value : data.values()) sum += value;
    return sum;
  });
  for (const auto sum : sums) CHECK(sum == 4 * 70'001);
}

#if defined(TROIKA_HAS_NCCL)
TEST_CASE("One rank gets by NCCL what a naive loop gives") {
  for (const auto& text : wrong(cuda_devices({}, {0}), Nccl{})) CHECK(text == "");
}
#endif
