// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/tiny_model.hpp>

#include "runtime/recorder.hpp"

#include <troika/device/cuda/cuda.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>
#include <troika/models/generate.hpp>
#include <troika/troika.hpp>

using troika::Error;
using troika::Partition;
using troika::Precision;
using troika::Replicate;
using troika::Tensor;
using troika::to;
using troika::View;
using troika::recording::Recording;
using Order = troika::shim::Schedule::Order;

namespace {

using Tokens = std::vector<std::int32_t>;
using Values = std::vector<float>;

struct Mix {
  int gpus, hosts;
  troika::StaticAllocation shares{};
  troika::recording::Options recording() const { return {.gpus = gpus, .schedule = {Order::forward}}; }
  auto devices() const {
    return troika::mixed_devices(troika::cuda_devices({.precision = Precision::exact}),
                                 troika::host_devices(hosts, {.precision = Precision::exact}));
  }
};
using Weights = troika::StaticAllocation;
const Mix mixes[] = {{1, 1},
                     {1, 2, Weights{{5, 1, 2}}},
                     {2, 1, Weights{{3, 1, 1}}},
                     {3, 2, Weights{{4, 4, 4, 1, 0}}},
                     {1, 1, Weights{{0, 1}}}};

// What a user writes; what each rank gives.
template <class D, class F>
auto on_every(std::vector<D> devices, const troika::StaticAllocation& shares, F&& f,
              troika::CommunicationOptions options = {}) {
  troika::TaskScheduler scheduler{std::move(devices), shares};
  return scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}, options};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    return f(pipeline);
  });
}
template <class F>
auto on_host(F&& f) {
  return on_every(troika::host_devices(1, {.precision = Precision::exact}), {}, f)[0];
}
// `check` gets what each rank gives.
template <class F, class Check>
void on_mix(const Mix& mix, F&& f, Check&& check) {
  INFO(mix.gpus << " GPUs and " << mix.hosts << " groups of cores");
  const Recording recording(mix.recording());
  for (const auto& given : on_every(mix.devices(), mix.shares, f)) check(given);
  CHECK(recording.calls() > 0);
  CHECK(recording.problems().empty());
  CHECK(recording.live().empty());
}

template <class T, class Pipeline, class X>
std::vector<T> values_of(Pipeline& pipeline, const X& x) {
  const auto here = read_back(pipeline.stream(), x.local());
  return {here.span().begin(), here.span().end()};
}

const Tokens prompt{1, 17, 42, 5, 99, 63, 8, 20, 77};

struct Answer {
  Tokens tokens;
  Values logits;  // of the prompt's last token
};
auto answer(const troika::models::ModelConfig& config, const troika::models::Weights& weights,
            troika::models::GenerateOptions options, troika::models::DecoderOptions decoder_options = {}) {
  return [&, options, decoder_options](auto& pipeline) -> Answer {
    const troika::models::Decoder decoder(pipeline, config, weights, decoder_options);
    auto cache = decoder.make_cache(pipeline.device());
    const auto logits = pipeline.run(decoder.forward(pipeline, prompt, cache), to<Replicate>);
    cache.truncate(0);
    return {generate(pipeline, decoder, cache, prompt, options), values_of<float>(pipeline, logits)};
  };
}

// Numbers between -0.5 and 0.5 that look like nothing.
Values numbers(std::int64_t count, std::uint32_t seed) {
  Values values;
  for (std::uint32_t state = seed; count > 0; --count) {
    state = state * 1664525u + 1013904223u;
    values.push_back(static_cast<float>(state >> 8) * 0x1p-24f - 0.5f);
  }
  return values;
}
View<const float> matrix(const Values& values, std::int64_t width) {
  return {values.data(), {static_cast<std::int64_t>(values.size()) / width, width}};
}

// A block that has norms after attention and MLP, too.
template <class Pipeline, class D = typename Pipeline::Device>
troika::DecoderBlock<D> normed_block(Pipeline& pipeline, std::int64_t hidden, std::int64_t inner) {
  const auto norm = [&] {
    const auto ones = Values(static_cast<std::size_t>(hidden), 0.7f);
    Tensor<float, D> weight(pipeline.device(), {hidden});
    upload(pipeline.stream(), View<const float>(ones.data(), {hidden}), weight.view());
    return troika::RmsNorm<D>(std::move(weight), 1e-5f, pipeline.rank());
  };
  const auto column = [&](std::uint32_t seed, const Partition& part) {
    return troika::ColumnParallelLinear(pipeline, matrix(numbers(part.extent() * hidden, seed), hidden), {}, part);
  };
  const auto row = [&](std::uint32_t seed, const Partition& part) {
    return troika::RowParallelLinear(pipeline, matrix(numbers(hidden * part.extent(), seed), part.extent()), {}, part);
  };
  const auto heads = troika::HeadSplit::make(pipeline.shares(), 8, 4, 6);
  const auto query = heads.query_features(), kv = heads.kv_features();
  const auto middle = pipeline.partition(inner);
  return {norm(),
          {heads, column(1, query), column(2, kv), column(3, kv), row(4, query), pipeline.rank()},
          norm(),
          norm(),
          troika::GatedMlp<D>{{column(5, middle), column(6, middle)}, row(7, middle)},
          norm()};
}

}  // namespace

TEST_CASE("two products split over GPUs and groups of cores are those of long arithmetic") {
  constexpr std::int64_t rows = 5, width = 24, inner = 60;
  const auto x = numbers(rows * width, 1), up = numbers(inner * width, 2), down = numbers(width * inner, 3);
  const auto at = [](const Values& values, std::int64_t row, std::int64_t of, std::int64_t i) {
    return double{values[static_cast<std::size_t>(row * of + i)]};
  };
  std::vector<double> expected;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t out = 0; out < width; ++out) {
      double sum = 0;
      for (std::int64_t i = 0; i < inner; ++i)
        for (std::int64_t j = 0; j < width; ++j)
          sum += at(x, r, width, j) * at(up, i, width, j) * at(down, out, inner, i);
      expected.push_back(sum);
    }
  const auto products = [&](auto& pipeline) {
    const troika::ColumnParallelLinear first(pipeline, matrix(up, width));
    const troika::RowParallelLinear second(pipeline, matrix(down, inner));
    const auto y = pipeline.run(pipeline.replicate(matrix(x, width)), first, second, to<Replicate>);
    pipeline.sync().verify(y, pipeline.stream());  // the same bits everywhere
    return values_of<float>(pipeline, y);
  };
  for (const auto& mix : mixes) on_mix(mix, products, [&](const Values& y) { CHECK(distance(y, expected) < 1e-6); });
}

TEST_CASE("a block gives the same bits to GPUs and groups of cores, also where each rank takes norms for itself") {
  constexpr std::int64_t tokens = 7, hidden = 48;
  const auto x = numbers(tokens * hidden, 9);
  const Tokens positions{0, 1, 2, 3, 4, 5, 6};
  const auto forward = [&](auto& pipeline) {
    using D = typename std::remove_cvref_t<decltype(pipeline)>::Device;
    const auto block = normed_block(pipeline, hidden, 80);
    const troika::AttentionContext<D> context{.positions = positions};
    const auto y = block.forward(pipeline, pipeline.replicate(matrix(x, hidden)), context);
    pipeline.sync().verify(y, pipeline.stream(), "hidden state");
    return values_of<float>(pipeline, y);
  };
  const auto once = on_host(forward);
  const std::vector<double> expected(once.begin(), once.end());
  for (const auto& mix : mixes) on_mix(mix, forward, [&](const Values& y) { CHECK(distance(y, expected) < 1e-5); });
}

TEST_CASE("GPUs and groups of cores choose the same experts where rounding decides") {
  // The scores of both experts are sums of the same products, in one order and the other.
  constexpr std::int64_t tokens = 200, hidden = 64, inner = 16;
  auto x = numbers(tokens * hidden, 1), row = numbers(hidden, 2);
  for (std::int64_t t = 0; t < tokens; ++t)
    std::copy_n(x.begin() + t * hidden, hidden / 2, std::make_reverse_iterator(x.begin() + (t + 1) * hidden));
  auto router = row;
  router.insert(router.end(), row.rbegin(), row.rend());
  const auto route = [&](auto& pipeline) {
    using D = typename std::remove_cvref_t<decltype(pipeline)>::Device;
    troika::Weight<D> weight(pipeline.device(), troika::DType::f32, {2, hidden});
    upload(pipeline.stream(), matrix(router, hidden),
           View<float>(reinterpret_cast<float*>(weight.data()), weight.shape()));
    // What each rank adds is the rank's part of the inner features, all of them alike: an expert adds 1 or 100 for each.
    const auto expert = [&](float value) -> troika::GatedMlp<D> {
      const Values none(inner * hidden, 0), some(hidden * inner, value), ones(inner, 1);
      const auto part = pipeline.partition(inner);
      return {{troika::ColumnParallelLinear(pipeline, matrix(none, hidden), ones, part),
               troika::ColumnParallelLinear(pipeline, matrix(none, hidden), ones, part)},
              troika::RowParallelLinear(pipeline, matrix(some, inner), {}, part)};
    };
    std::vector<troika::GatedMlp<D>> experts;
    for (const float value : {1.0f, 100.0f}) experts.push_back(expert(value));
    const troika::Experts<D> mixture(std::move(weight), std::move(experts), 1, true);
    return values_of<float>(pipeline, pipeline.run(pipeline.replicate(matrix(x, hidden)), mixture, to<Replicate>));
  };
  const float one = 16 / (1 + std::exp(-1.0f));  // silu(1), 16 times
  on_mix({1, 1}, route, [&](const Values& y) {
    const auto of_one = [&](float value) {
      return std::abs(value / one - 1) < 1e-3f || std::abs(value / one - 100) < 1e-1f;
    };
    CHECK(std::ranges::all_of(y, of_one));
  });
}

TEST_CASE("models of each kind give on GPUs and groups of cores what the reference gives") {
  const auto check = [](const std::string& type, const Mix& mix, troika::models::DecoderOptions options = {}) {
    INFO(type);
    const auto tiny = TinyModel::make(type);
    const LoadedModel model(tiny);
    const auto ask = answer(model.config, model.weights, {.max_tokens = 4}, options);
    const auto tokens = on_host(ask).tokens;
    const auto logits = ReferenceModel(tiny).logits(prompt).back();
    on_mix(mix, ask, [&](const Answer& found) {
      CHECK(found.tokens == tokens);
      CHECK(distance(found.logits, logits) < 2e-5);
    });
  };
  for (const auto& mix : mixes) check("llama", mix);
  check("llama", mixes[1], {.sequence_parallel = true});
  for (const auto* type : {"gemma2", "qwen3_moe"}) check(type, mixes[2]);
}

TEST_CASE("every rank of GPUs and groups of cores draws the token that one device draws") {
  const LoadedModel model(TinyModel::make("llama", 5));
  for (const troika::SamplingOptions& sampling : {troika::SamplingOptions{.temperature = 1, .top_k = 9, .seed = 3},
                                                  {.temperature = 1.2f, .top_p = 0.8f, .min_p = 0.01f, .seed = 4}}) {
    const auto drawn = answer(model.config, model.weights, {.max_tokens = 6, .sampling = sampling});
    const auto expected = on_host(drawn).tokens;
    on_mix(mixes[1], drawn, [&](const Answer& found) { CHECK(found.tokens == expected); });
  }
}

TEST_CASE("the bundled model gives the same tokens on GPUs and groups of cores as on the host") {
  const std::filesystem::path bundled = TROIKA_SOURCE_DIR "/examples/model";
  const auto config = troika::models::ModelConfig::load(bundled);
  const auto weights = troika::models::Weights::open(bundled);
  const auto ask = answer(config, weights, {.max_tokens = 3});
  const auto expected = on_host(ask).tokens;
  REQUIRE(expected.size() == 3);
  for (const auto& mix : {mixes[1], mixes[3]})
    on_mix(mix, ask, [&](const Answer& found) { CHECK(found.tokens == expected); });
}

TEST_CASE("an encoder gives the same bits to GPUs and groups of cores, near those of the reference") {
  const auto tiny = TinyModel::make("bert");
  const LoadedModel model(tiny);
  const auto rows = ReferenceModel(tiny).hidden_state(prompt);
  std::vector<double> expected;
  for (const auto& row : rows) expected.insert(expected.end(), row.begin(), row.end());
  const auto encode = [&](auto& pipeline) {
    const troika::models::Encoder encoder(pipeline, model.config, model.weights);
    const std::span<const std::int32_t> text(prompt);
    const auto hidden = encoder.forward(pipeline, std::span(&text, 1));
    pipeline.sync().verify(hidden, pipeline.stream(), "hidden state");
    return values_of<float>(pipeline, hidden);
  };
  for (const auto& mix : {mixes[0], mixes[2]})
    on_mix(mix, encode, [&](const Values& found) { CHECK(distance(found, expected) < 2e-5); });
}

TEST_CASE("a rank that throws is named by the rank of the other kind") {
  for (const int failing : {0, 1}) {
    const Mix mix{1, 1};
    const Recording recording(mix.recording());
    std::optional<Error> told;
    const auto work = [&](auto& pipeline) {
      auto x = pipeline.replicate(matrix(numbers(40'000, 1), 200));
      pipeline.communication().all_reduce(x.local().span());
      if (pipeline.rank() == failing) throw std::runtime_error("the device is broken");
      try {
        pipeline.communication().all_reduce(x.local().span());
      } catch (const Error& error) {
        told = error;
      }
    };
    CHECK_THROWS_WITH(on_every(mix.devices(), {}, work), "the device is broken");
    REQUIRE(told);
    CHECK(told->fault() == troika::Fault::peer_failed);
    CHECK(told->rank() == failing);
    CHECK(recording.problems().empty());
    CHECK(recording.live().empty());
  }
}

TEST_CASE("a rank that does not come is named by the deadline by the rank of the other kind") {
  for (const int silent : {0, 1}) {
    const Mix mix{1, 1};
    const Recording recording(mix.recording());
    std::optional<Error> told;
    std::atomic<bool> over = false;
    const auto work = [&](auto& pipeline) {
      auto x = pipeline.replicate(matrix(numbers(400, 1), 20));
      if (pipeline.rank() == silent) return over.wait(false);
      try {
        pipeline.communication().all_reduce(x.local().span());
      } catch (const Error& error) {
        told = error;
      }
      over = true;
      over.notify_all();
    };
    on_every(mix.devices(), {}, work, {.deadline = std::chrono::seconds(4)});
    REQUIRE(told);
    CHECK(told->fault() == troika::Fault::timeout);
    CHECK(told->rank() == silent);
    CHECK(recording.live().empty());
  }
}

TEST_CASE("whichever call of CUDA fails, both kinds of ranks end with a named error, and nothing is left") {
  const LoadedModel model(TinyModel::make("llama"));
  const Mix mix{1, 1};
  const auto ask = answer(model.config, model.weights, {.max_tokens = 2});
  std::int64_t calls = 0;
  {
    const Recording recording(mix.recording());
    (void)on_every(mix.devices(), mix.shares, ask);
    calls = recording.calls();
  }
  REQUIRE(calls > 500);
  std::int64_t failures = 0, host_told = 0;
  for (std::int64_t n = 1; n < calls; n += calls / 41) {
    INFO("call " << n << " of " << calls);
    Recording recording(mix.recording());
    recording.fail(n);
    try {
      (void)on_every(mix.devices(), mix.shares, [&](auto& pipeline) {
        try {
          return ask(pipeline);
        } catch (const Error& error) {
          host_told += pipeline.rank() == 1 && error.rank() == 0;
          throw;
        }
      });
    } catch (const Error& error) {
      ++failures;
      const std::string what = error.what();
      CAPTURE(what);
      const auto names = [&](const char* text) { return what.find(text) != std::string::npos; };
      CHECK((names("cuda") || names("cublasLt") || names("a kernel was not started") || names("memory")));
    }
    CHECK(recording.failed());
    CHECK(recording.problems().empty());
    CHECK(recording.live().empty());
  }
  CHECK(failures > 10);
  CHECK(host_told > 10);
}

TEST_CASE("shares follow the speed that is measured on devices of each kind") {
  const Mix mix{1, 2};
  const Recording recording(mix.recording());
  troika::TaskScheduler scheduler{mix.devices(), troika::DynamicAllocation{}};
  measure_speeds(scheduler, {.outputs = 64, .inputs = 256, .time = std::chrono::milliseconds(1)});
  const auto loads = scheduler.loads();
  const auto shares = scheduler.shares();
  REQUIRE(loads.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(loads[i].speed > 0);
    const double even = (loads[0].speed + loads[1].speed + loads[2].speed) / 3;
    CHECK(shares[i] == Catch::Approx(std::max(loads[i].speed, 0.02 * even) / (3 * even)));
  }
  CHECK(recording.problems().empty());
}

TEST_CASE("tasks go to devices of each kind, and a list of GPUs may be empty") {
  const Mix mix{1, 1};
  const Recording recording(mix.recording());
  troika::TaskScheduler scheduler{mix.devices(), troika::RoundRobin{}};
  const auto name = [](auto& device) { return device.name(); };
  CHECK(scheduler.submit(name).get() == "cuda:0");
  CHECK(scheduler.submit(name).get() == "host:0");
  CHECK(scheduler.device(1).name() == "host:0");

  troika::TaskScheduler cores{troika::mixed_devices(std::vector<troika::CudaDevice>(), troika::host_devices(2)),
                              troika::StaticAllocation{}};
  CHECK(cores.run_on_every_device([](auto& rank) { return rank.world_size(); }) == std::vector<int>{2, 2});
}
