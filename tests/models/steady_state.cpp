// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/sanitizers.hpp>
#include <support/spmd.hpp>
#include <support/temp_folder.hpp>
#include <support/tiny_model.hpp>

#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>

#if !TROIKA_SANITIZED
// All tests of this program allocate through these. They count what all threads allocate while a test asks for it. Not
// inlined: a compiler that sees malloc on one side of a call and operator delete on the other warns.
namespace {
std::atomic<bool> counting{false};
std::atomic<int> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  bytes = bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment;
  void* memory = alignment <= alignof(std::max_align_t) ? std::malloc(bytes) : std::aligned_alloc(alignment, bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes, 1); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return counted(bytes, 1); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using troika::models::Decoder;

struct Steps {
  int allocations = 0;          // of all threads
  std::size_t pool_growth = 0;  // of all ranks: tensors come from their devices, not from operator new
};

// What 24 decode steps allocate after 4 to warm up.
Steps decode(const std::filesystem::path& folder, int world, const troika::SamplingOptions& sampling,
             troika::models::DecoderOptions options = {}) {
  const auto config = troika::models::ModelConfig::load(folder);
  const auto weights = troika::models::Weights::open(folder);
  const auto ranks = spmd(world, [&](auto& pipeline) {
    const Decoder decoder(pipeline, config, weights, options);
    auto cache = decoder.make_cache(pipeline.device());
    troika::Sampler sampler(pipeline.communication(), sampling);
    const std::vector<std::int32_t> prompt{1, 17, 42, 5, 99};
    auto logits = decoder.forward(pipeline, prompt, cache);
    const auto steps = [&](std::uint64_t from, std::uint64_t to) {
      for (auto step = from; step < to; ++step) {
        const auto token = sampler(logits, step, pipeline.stream());
        logits = decoder.forward(pipeline, std::span(&token, 1), cache);
      }
    };
    steps(0, 4);
    const auto before = pipeline.device().memory_reserved();
    troika::CommunicationCounters counters;
    pipeline.communication().count(&counters);
    pipeline.communication().barrier();  // all ranks are warm
    counting = true;
    pipeline.communication().barrier();
    steps(4, 28);
    pipeline.communication().barrier();
    counting = false;
    return pipeline.device().memory_reserved() - before;
  });
  Steps result{allocations.exchange(0), 0};
  for (const auto growth : ranks) result.pool_growth += growth;
  return result;
}

}  // namespace

TEST_CASE("operator new is counted, on every thread") {
  allocations = 0;
  counting = true;
  (void)spmd(2, [](auto&) { return std::vector<int>(100).size(); });
  counting = false;
  CHECK(allocations.exchange(0) >= 2);
  std::vector<int> later(100);
  CHECK(allocations == 0);
}

TEST_CASE("a step of several sequences allocates nothing once it is warm") {
  const troika::test::TempFolder folder;
  TinyModel::make("llama").write(folder.path());
  const auto config = troika::models::ModelConfig::load(folder.path());
  const auto weights = troika::models::Weights::open(folder.path());
  for (const int world : {1, 2, 3}) {
    INFO(world << " ranks");
    const auto growth = spmd(world, [&](auto& pipeline) {
      const Decoder decoder(pipeline, config, weights);
      auto memory = decoder.make_memory(pipeline.device(), 4);
      troika::models::Batch batch;
      const std::vector<std::int32_t> prompt{1, 17, 42}, pages{3, 0, 2, 1};
      const auto steps = [&](std::int64_t from, std::int64_t to) {
        for (auto step = from; step < to; ++step) {
          batch.clear();
          for (std::size_t i = 0; i < pages.size(); ++i) {
            const auto more = std::span(prompt).first(i == 0 ? 3 : 1);
            batch.add(more, step * static_cast<std::int64_t>(more.size()), std::span(pages).subspan(i, 1));
          }
          (void)decoder.forward(pipeline, batch, memory);
        }
      };
      steps(0, 4);
      const auto before = pipeline.device().memory_reserved();
      pipeline.communication().barrier();
      counting = true;
      pipeline.communication().barrier();
      steps(4, 20);
      pipeline.communication().barrier();
      counting = false;
      return pipeline.device().memory_reserved() - before;
    });
    CHECK(allocations.exchange(0) == 0);
    for (const auto bytes : growth) CHECK(bytes == 0);
  }
}

TEST_CASE("a decode step allocates nothing once it is warm") {
  const std::pair<const char*, troika::SamplingOptions> choices[] = {
      {"greedy", {}},
      {"sampled", {.temperature = 1.1f, .seed = 3}},
      {"top k", {.temperature = 0.9f, .top_k = 9, .seed = 4}},
      {"top p", {.temperature = 1.2f, .top_p = 0.8f, .seed = 5}}};
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3", "gemma2", "qwen3_moe"}) {
    const troika::test::TempFolder folder;
    TinyModel::make(type).write(folder.path());
    for (const int world : {1, 2, 3}) {
      for (const auto& [name, sampling] : choices) {
        INFO(type << " on " << world << " ranks, " << name);
        const auto steps = decode(folder.path(), world, sampling);
        CHECK(steps.allocations == 0);
        CHECK(steps.pool_growth == 0);
      }
      INFO(type << " on " << world << " ranks, sequence parallel prompt");
      const auto steps = decode(folder.path(), world, {}, {.sequence_parallel = true});
      CHECK(steps.allocations == 0);
      CHECK(steps.pool_growth == 0);
    }
  }
}

#endif
