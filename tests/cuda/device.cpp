// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <numeric>
#include <string>
#include <vector>

#include <support/catch.hpp>

#include <examples/run/gpu_list.hpp>

#include "runtime/recorder.hpp"

#include <troika/device/cuda/cuda.hpp>

using Catch::Matchers::ContainsSubstring;
using troika::CudaDevice;
using troika::CudaStream;
using troika::CudaTensor;
using troika::Error;
using troika::Fault;
using troika::View;
using troika::recording::Recording;
using troika::recording::When;

namespace {

using Texts = std::vector<std::string>;

std::vector<float> counted(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

// A stream and two events of the runtime itself.
struct Raw {
  Raw() {
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
    for (auto& stream : streams) REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    REQUIRE(cudaMalloc(&data, 1024) == cudaSuccess);
  }
  ~Raw() {
    (void)cudaFree(data);
    (void)cudaEventDestroy(event);
    for (auto* const stream : streams) (void)cudaStreamDestroy(stream);
  }
  cudaStream_t streams[2]{};
  cudaEvent_t event{};
  void* data = nullptr;
};

}  // namespace

TEST_CASE("without a driver there are no GPUs, and devices of them are one error") {
  for (const bool recording : {false, true}) {
    const auto none = recording ? std::make_unique<Recording>(troika::recording::Options{.gpus = 0}) : nullptr;
    CHECK(troika::cuda_device_count() == 0);
    for (const auto& make : {+[] { (void)troika::cuda_devices(); }, +[] { (void)CudaDevice(); }}) {
      try {
        make();
        FAIL("a device without a GPU");
      } catch (const Error& error) {
        CHECK(error.fault() == Fault::unsupported);
        CHECK(std::string(error.what()).find("no GPU") != std::string::npos);
      }
    }
  }
}

TEST_CASE("a device for each GPU, or several that share it") {
  const Recording recording({.gpus = 2});
  const auto names = [](const std::vector<CudaDevice>& devices) {
    Texts all;
    for (const auto& device : devices) all.push_back(device.name() + " " + std::to_string(device.index()));
    return all;
  };
  CHECK(names(troika::cuda_devices()) == Texts{"cuda:0 0", "cuda:1 1"});
  CHECK(names(troika::cuda_devices({}, {1})) == Texts{"cuda:1 0"});
  CHECK(names(troika::cuda_devices({.virtual_ranks = 2})) ==
        Texts{"cuda:0/0 0", "cuda:0/1 1", "cuda:1/0 2", "cuda:1/1 3"});
  CHECK(names(troika::cuda_devices({}, {1, 0})) == Texts{"cuda:1 0", "cuda:0 1"});
  CHECK_THROWS_WITH(troika::cuda_devices({}, {0, 2}),
                    ContainsSubstring("there is no GPU 2; valid are 0 to 1, each once"));
  CHECK_THROWS_WITH(troika::cuda_devices({}, {1, 1}), ContainsSubstring("GPU 1 is named twice; valid are 0 to 1"));
  CHECK_THROWS_AS(troika::cuda_devices({.virtual_ranks = 0}), Error);
  CHECK(recording.live().empty());
  CHECK(recording.problems().empty());
}

TEST_CASE("programs take a number of GPUs or a list of them") {
  CHECK(parse_gpus("0").empty());
  CHECK(parse_gpus("3") == std::vector{0, 1, 2});
  CHECK(parse_gpus("0,2") == std::vector{0, 2});
  CHECK(parse_gpus("12,1,0") == std::vector{12, 1, 0});
  for (const std::string text :
       {"", ",", "1,", ",1", "0,,1", "0, 1", "-1", "0,-1", "two", "2x", "0;1", "99999999999", "1000"})
    CHECK_THROWS_WITH(parse_gpus(text),
                      ContainsSubstring("how many, such as 2, or their numbers, such as 0,2; not \"" + text));
}

TEST_CASE("values go to a GPU and come back, whole and in pieces, whenever it works") {
  for (const auto when : {When::early, When::late}) {
    const Recording recording({.when = when});
    {
      CudaDevice device(0, {}, 1);
      CudaStream stream(device);
      const auto values = counted(24);
      CudaTensor<float> whole(device, {2, 3, 4}), part(device, {2, 2, 4}), pasted(device, {2, 3, 4});
      upload(stream, View<const float>(values.data(), whole.shape()), whole.view());
      copy_slice(stream, std::as_const(whole).view(), 1, {1, 3}, part.view());
      fill_zero(stream, pasted.view());
      paste_slice(stream, std::as_const(part).view(), pasted.view(), 1, {0, 2});
      change_on_host(stream, part.view(),
                     [](std::span<float> x) { std::ranges::for_each(x, [](float& v) { v = -v; }); });
      copy(stream, std::as_const(part).view().rows(0, 1), whole.view().reshaped({3, 2, 4}).rows(2, 3));
      fill_on_host(stream, part.view(), [](std::span<float> x) { std::ranges::fill(x, 7.0f); });

      const auto all = read_back(stream, pasted.view());
      CHECK(std::vector<float>(all.span().begin(), all.span().end()) ==
            std::vector<float>{5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0, 17, 18, 19, 20, 21, 22, 23, 24, 0, 0, 0, 0});
      CHECK(read_back(stream, std::as_const(whole).view()).span()[16] == -5);
      CHECK(read_back(stream, part.view()).span()[15] == 7);
      CHECK(checksum(stream, std::as_const(whole).view()) != checksum(stream, std::as_const(pasted).view()));
      CHECK(device.holds(whole.data()));
      CHECK_FALSE(device.holds(values.data()));
      CHECK_THROWS_AS(copy(stream, std::as_const(part).view(), whole.view()), Error);
    }
    CHECK(recording.live().empty());
    CHECK(recording.problems().empty());
  }
}

TEST_CASE("memory that was given back is taken again, and nothing else is asked of the driver") {
  const Recording recording({.memory = std::size_t{64} << 20});
  CudaDevice device(0, {.memory_limit = std::size_t{48} << 20});
  CudaStream stream(device);
  for (int i = 0; i < 2; ++i) CudaTensor<float>(device, {1000});
  const auto before = recording.allocations();
  const auto reserved = device.memory_reserved();
  for (int i = 0; i < 100; ++i) {
    CudaTensor<float> x(device, {900 + i});
    fill_zero(stream, x.view());
  }
  { CudaTensor<float> sixteenth(device, {64}); }
  CHECK(recording.allocations() == before);
  CHECK(device.memory_reserved() == reserved);

  // What is kept goes back to the driver before there is no memory.
  { CudaTensor<float> large(device, {2 << 20}); }
  CHECK_NOTHROW(CudaTensor<float>(device, {3 << 20}));
  try {
    CudaTensor<float> larger(device, {5 << 20});
    FAIL("more memory than there is");
  } catch (const Error& error) {
    CHECK(error.fault() == Fault::out_of_memory);
  }
}

TEST_CASE("the recording sees wrong use: a race, a write beside memory, a copy to the wrong side") {
  for (const bool ordered : {true, false}) {
    const Recording recording;
    {
      const Raw raw;
      CHECK(cudaMemsetAsync(raw.data, 1, 512, raw.streams[0]) == cudaSuccess);
      CHECK(cudaEventRecord(raw.event, raw.streams[0]) == cudaSuccess);
      if (ordered) CHECK(cudaStreamWaitEvent(raw.streams[1], raw.event) == cudaSuccess);
      CHECK(cudaMemsetAsync(static_cast<char*>(raw.data) + 500, 2, 100, raw.streams[1]) == cudaSuccess);
    }
    CHECK(recording.problems() == (ordered ? Texts{} : Texts{"a fill races with a fill on memory that both use"}));
  }
  const Recording recording;
  {
    const Raw raw;
    char host[8] = {};
    CHECK(cudaMemcpyAsync(raw.data, host, 8, cudaMemcpyDeviceToDevice, raw.streams[0]) == cudaErrorInvalidValue);
    CHECK(cudaMemcpyAsync(raw.data, host, 8, cudaMemcpyDeviceToHost, raw.streams[0]) == cudaErrorInvalidValue);
    CHECK(cudaMemsetAsync(raw.data, 0, 1025, raw.streams[0]) == cudaErrorInvalidValue);
    CHECK(cudaFree(host) == cudaErrorInvalidValue);
    CHECK(recording.problems().size() == 4);
    CHECK(recording.live() == Texts{"1 cudaMalloc", "1 events", "2 streams"});
    CHECK(cudaSetDevice(1) == cudaSuccess);
    CHECK(cudaEventRecord(raw.event, raw.streams[0]) == cudaSuccess);
    CHECK(cudaEventSynchronize(raw.event) == cudaSuccess);
    CHECK(cudaStreamQuery(raw.streams[0]) == cudaSuccess);
    CHECK(cudaSetDevice(4) == cudaErrorInvalidDevice);
  }
  CHECK(recording.live().empty());
}

TEST_CASE("the recording does late what nobody waits for, and keeps the host from the memory of a GPU") {
  const Recording recording;
  const Raw raw;
  void* host = nullptr;
  REQUIRE(cudaHostAlloc(&host, 4, cudaHostAllocPortable) == cudaSuccess);
  auto& value = *static_cast<unsigned char*>(host);
  value = 1;
  REQUIRE(cudaMemsetAsync(raw.data, 9, 4, raw.streams[0]) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(host, raw.data, 4, cudaMemcpyDeviceToHost, raw.streams[0]) == cudaSuccess);
  CHECK(value == 1);
  REQUIRE(cudaStreamSynchronize(raw.streams[0]) == cudaSuccess);
  CHECK(value == 9);
  // The memory closes shortly after the last work.
  bool died = false;
  for (int tries = 0; tries < 1000 && !died; ++tries) {
    const pid_t child = fork();
    if (child == 0) {
      (void)close(STDERR_FILENO);
      (void)signal(SIGSEGV, SIG_DFL);
      _exit(static_cast<volatile unsigned char*>(raw.data)[0] == 9 ? 0 : 1);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    died = WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
  }
  CHECK(died);
  CHECK(cudaFreeHost(host) == cudaSuccess);
}
