// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <cuda_runtime.h>

#include <troika/communication/communication.hpp>
#include <troika/communication/peer.hpp>

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using recording::be_process;
using recording::Recording;

namespace {

void check_clean(const Recording& recorded) {
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

}  // namespace

TEST_CASE("Ranks of several processes open each other's memory, and close it before it is freed", "[peer]") {
  const auto processes = GENERATE(std::vector<int>{1, 2}, std::vector<int>{1, 2, 3}, std::vector<int>{1, 1, 2});
  const int ranks = static_cast<int>(processes.size());
  Recording recorded({.gpus = ranks});
  for (const auto& text : run_ranks(gpus(ranks), [&](auto& rank) {
         be_process(processes[static_cast<std::size_t>(rank.rank())]);
         std::string opened, text;
         {
           Communication c{rank, Peer({.staged_bytes = 16384, .one_shot_bytes = 2000})};
           opened = joined(recorded.live());
           text = check_operations<float>(c, on_gpu(rank), 1, 5003) + check_operations<bf16>(c, on_gpu(rank, 1), 2, 17);
           auto pair = c.split(0, -c.rank());
           text += check_operations<float>(pair, on_gpu(rank), 3, 100);
         }
         const int others = processes == std::vector<int>{1, 1, 2} ? 4 : ranks * (ranks - 1);
         if (opened.find(std::to_string(others) + " opened handles") == std::string::npos) text += "opened " + opened;
         return text;
       }))
    CHECK(text == "");
  check_clean(recorded);
}

TEST_CASE("A process that ends frees its memory after the others have closed it", "[peer]") {
  Recording recorded({.gpus = 2});
  const auto sums = run_ranks(2, [&](auto& place) {
    const int me = place.rank();
    be_process(me);
    CudaDevice device(me, {}, me);  // goes with its memory when this ends
    Rank<CudaDevice> rank(me, device, place.shared_world());
    Communication c{rank, Peer{}};
    auto one = on_gpu(rank)(std::vector<float>(1, 1.0f));
    c.all_reduce(one.span());
    const float sum = one.values()[0];
    if (me == 1) std::this_thread::sleep_for(300ms);  // whoever does not wait for this rank is seen
    return sum;
  });
  CHECK(sums == std::vector<float>{2, 2});
  check_clean(recorded);
}

TEST_CASE("Two processes on one GPU are refused by Peer", "[peer]") {
  Recording recorded({.gpus = 2});
  const auto outcomes = try_ranks(cuda_devices({.virtual_ranks = 2}, {0}), [&](auto& rank) {
    be_process(rank.rank());
    Communication c{rank, Peer{}};
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::unsupported);
    CHECK_THAT(outcome.what(), ContainsSubstring("two processes share a GPU"));
  }
  check_clean(recorded);
}

TEST_CASE("Memory of a process that this one does not reach is an error of every rank", "[peer]") {
  Recording recorded({.gpus = 2, .without_peers = 1});
  const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
    be_process(rank.rank());
    Communication c{rank, Peer({.connect_deadline = 5s})};
  });
  for (const auto& outcome : outcomes) REQUIRE(outcome.troika_error());
  CHECK_THAT(outcomes[0].what() + outcomes[1].what(), ContainsSubstring("cudaIpcOpenMemHandle"));
  CHECK(joined(recorded.problems()) == "");
}

TEST_CASE("A rank of another process that throws is named, and its memory stays while it may be open", "[peer]") {
  Recording recorded({.gpus = 2});
  const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
    be_process(rank.rank());
    Communication c{rank, Peer{}};
    auto data = on_gpu(rank)(std::vector<float>(100));
    for (int i = 0;; ++i) {
      c.all_reduce(data.span());
      if (i == 3 && rank.rank() == 1) throw std::runtime_error("no more rope");
    }
  });
  REQUIRE(outcomes[0].troika_error());
  CHECK(outcomes[0].troika_error()->rank() == 1);
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()).find("opened handles") == std::string::npos);
}

TEST_CASE("The recorded runtime tells who breaks a rule of IPC handles", "[recorded]") {
  Recording recorded({.gpus = 2});
  void *memory = nullptr, *opened = nullptr;
  cudaIpcMemHandle_t handle;
  REQUIRE(cudaMalloc(&memory, 1000) == cudaSuccess);
  CHECK(cudaIpcGetMemHandle(&handle, static_cast<char*>(memory) + 256) != cudaSuccess);
  REQUIRE(cudaIpcGetMemHandle(&handle, memory) == cudaSuccess);
  CHECK(cudaIpcOpenMemHandle(&opened, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess);
  CHECK(cudaIpcCloseMemHandle(memory) != cudaSuccess);
  CHECK(recorded.problems().size() == 3);
  std::thread other([&] {
    be_process(1);
    CHECK(cudaIpcOpenMemHandle(&opened, handle, cudaIpcMemLazyEnablePeerAccess) == cudaSuccess);
    CHECK(cudaFree(memory) == cudaSuccess);
    CHECK(recorded.problems().size() == 4);
    CHECK(cudaIpcCloseMemHandle(opened) == cudaSuccess);
  });
  other.join();
  CHECK(cudaIpcOpenMemHandle(&opened, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess);
  CHECK(recorded.problems().size() == 5);
}
