// SPDX-License-Identifier: Apache-2.0
// troika-bench: how fast models are on this machine. One table: prompts, decoding and batches, by model and by how the
// cores are split into ranks, each beside what the machine can do at most, measured in the same run.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/models/decoder.hpp>
#include <troika/troika.hpp>

#include "../examples/run/machine.hpp"
#include "../examples/run/progress_bar.hpp"
#include "limits.hpp"

namespace models = troika::models;

namespace {

struct World {
  int ranks = 1, cores = 1;  // cores of each rank
  std::string name() const { return std::to_string(ranks) + " x " + std::to_string(cores); }
};

struct Arguments {
  std::vector<std::string> models, worlds;
  std::vector<std::int64_t> prompts{128, 512, 2048}, batches{1, 2, 4, 8, 16, 32, 64};
  std::int64_t tokens = 32;
  int repeats = 3;
  std::string json;
  bool invariant = false;
};

// What one forward pass reads and computes, of whole matrices; attention's own products are not counted.
struct Work {
  double bytes = 0;                                   // of weights
  double block_operations = 0;                        // for each token
  double head_operations = 0;                         // for each token whose logits are wanted
  troika::WeightType type = troika::WeightType::f32;  // of most of the weights

  static Work of(const models::ModelConfig& config, const models::Weights& weights) {
    Work work;
    std::vector<double> by_type(troika::weight_layouts.size());
    for (const auto& name : weights.names()) {
      const auto& info = weights.info(name);
      if (info.shape.dims() != 2 || !info.type) continue;
      const bool embedding = name.find("embed_tokens") != std::string::npos;
      if (embedding && !config.tie_word_embeddings) continue;
      const auto elements = static_cast<double>(info.shape.count());
      const bool head = embedding || name.find("lm_head") != std::string::npos;
      (head ? work.head_operations : work.block_operations) += 2 * elements;
      work.bytes += static_cast<double>(info.size_bytes());
      by_type[static_cast<std::size_t>(*info.type)] += elements;
    }
    work.type = static_cast<troika::WeightType>(std::ranges::max_element(by_type) - by_type.begin());
    return work;
  }
};

struct Row {
  std::string model, work;
  World world;
  std::int64_t tokens = 0;  // of one measurement
  double seconds = 0, reduce_share = 0;
  double of_limit = 0;
  double invariant_seconds = 0;  // the same on invariant devices, if that was asked for
  bool by_reads = false;         // which of the two limits this is

  double rate() const { return static_cast<double>(tokens) / seconds; }
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Task {
  std::string name;
  std::int64_t sequences, tokens, passes;  // tokens of a sequence in a pass
  std::int64_t all() const { return sequences * tokens * passes; }
};

// What fits the model's context; what does not is named once in `left_out`.
std::vector<Task> tasks_of(const models::ModelConfig& config, const Arguments& arguments,
                           std::string* left_out = nullptr) {
  std::vector<Task> tasks;
  for (const auto n : arguments.prompts) tasks.push_back({"prompt of " + std::to_string(n), 1, n, 1});
  tasks.push_back({"decoding", 1, 1, arguments.tokens});
  for (const auto n : arguments.batches)
    if (n > 1) tasks.push_back({std::to_string(n) + " sequences", n, 1, std::max<std::int64_t>(1, 16 / n)});
  std::erase_if(tasks, [&](const Task& task) {
    const bool too_long = task.tokens * task.passes > config.max_position_embeddings;
    if (too_long && left_out) *left_out += (left_out->empty() ? "" : ", ") + task.name;
    return too_long;
  });
  return tasks;
}

// As many cores as the world has, of those that each device would have; in a row where one would have too few.
std::vector<std::vector<int>> groups_of(const World& world) {
  auto groups = core_groups(world.ranks);
  const auto size = static_cast<std::size_t>(world.cores);
  const bool fits = std::ranges::all_of(groups, [&](const auto& group) { return group.size() >= size; });
  const auto cores = core_groups(1)[0];
  for (std::size_t r = 0; r < groups.size(); ++r) {
    if (fits)
      groups[r].resize(size);
    else
      groups[r].assign(cores.begin() + static_cast<std::ptrdiff_t>(r * size),
                       cores.begin() + static_cast<std::ptrdiff_t>((r + 1) * size));
  }
  return groups;
}

struct Shape {
  std::int64_t context, pages;
};

// A model on devices of its own, which stays loaded from measurement to measurement.
class Measured {
 public:
  Measured(const models::ModelConfig& config, const models::Weights& weights, std::vector<std::vector<int>> groups,
           Shape shape, bool invariant, const models::LoadProgress& progress)
      : ranks_(groups.size()),
        devices_(troika::host_devices(std::move(groups), {.invariant = invariant})),
        scheduler_(devices_, troika::StaticAllocation{}, {.trace = &trace_}) {
    on_ranks([&](auto& rank, auto& pipeline) {
      rank.decoder.emplace(pipeline, config, weights, models::DecoderOptions{.context = shape.context}, progress);
      rank.memory.emplace(rank.decoder->make_memory(pipeline.device(), shape.pages));
    });
  }

  // Seconds, and the share of them in reductions; `warm`: one pass that fills the caches and the pool.
  std::pair<double, double> run(const Task& task, std::span<const std::int32_t> pages, std::int64_t each, bool warm) {
    std::pair<double, double> result;
    on_ranks([&](auto& rank, auto& pipeline) {
      std::vector<std::int32_t> ids;
      for (std::int64_t i = 0; i < task.tokens; ++i)
        ids.push_back(static_cast<std::int32_t>((7919 * i + 17) % rank.decoder->config().vocab_size));
      const auto* const track = &trace_.track(pipeline.rank(), troika::Lane::communication);
      pipeline.communication().barrier();
      const auto before = track->total();
      const double begin = bench::seconds();
      for (std::int64_t pass = 0; pass < (warm ? 1 : task.passes); ++pass) {
        rank.batch.clear();
        for (std::int64_t i = 0; i < task.sequences; ++i) {
          rank.batch.add(ids, pass * task.tokens,
                         pages.subspan(static_cast<std::size_t>(i * each), static_cast<std::size_t>(each)));
        }
        (void)rank.decoder->forward(pipeline, rank.batch, *rank.memory);
      }
      const std::chrono::duration<double> reducing = track->total() - before;
      pipeline.communication().barrier();
      const double took = bench::seconds() - begin;
      if (pipeline.rank() == 0) result = {took, reducing.count() / took};
    });
    return result;
  }

  troika::HostReport report() const { return troika::HostReport::of(devices_); }

 private:
  struct Rank {
    std::optional<models::Decoder<troika::HostDevice>> decoder;
    std::optional<troika::KvMemory<troika::HostDevice>> memory;
    models::Batch batch;
  };

  template <class F>
  void on_ranks(F&& f) {
    scheduler_.run_on_every_device([&](auto& rank) {
      troika::Communication communication{rank, troika::Threads{}};
      troika::DataSync sync{communication};
      troika::Pipeline pipeline{scheduler_, sync, communication};
      f(ranks_[static_cast<std::size_t>(rank.rank())], pipeline);
    });
  }

  std::vector<Rank> ranks_;
  troika::Trace trace_;
  std::vector<troika::HostDevice> devices_;
  troika::TaskScheduler<troika::StaticAllocation> scheduler_;
};

std::vector<Row> measure(const std::string& path, const World& world, const Arguments& arguments) {
  const auto config = models::ModelConfig::load(path);
  const auto weights = models::Weights::open(path);
  const auto work = Work::of(config, weights);
  const auto groups = groups_of(world);
  std::vector<int> used;
  for (const auto& group : groups) used.insert(used.end(), group.begin(), group.end());
  const double bandwidth = bench::read_bandwidth(used);
  const double operations = bench::peak_rate(work.type) * static_cast<double>(used.size());

  const auto tasks = tasks_of(config, arguments);
  std::int64_t context = 1, pages = 1;  // each sequence has its own, side by side
  const auto pages_of = [](const Task& task) {
    return (task.tokens * task.passes + troika::kv_page - 1) / troika::kv_page;
  };
  for (const auto& task : tasks) {
    context = std::max(context, task.tokens * task.passes);
    pages = std::max(pages, task.sequences * pages_of(task));
  }
  std::vector<std::int32_t> page_ids(static_cast<std::size_t>(pages));
  std::iota(page_ids.begin(), page_ids.end(), 0);

  ProgressBar bar(std::filesystem::path(path).filename().string() + " on " + world.name(),
                  (weights.total_bytes() + tasks.size() * static_cast<std::uint64_t>(arguments.repeats)) *
                      (arguments.invariant ? 2 : 1));
  const auto progress = [&](std::uint64_t done) { bar.advance(done); };
  const Shape shape{context, pages};
  Measured measured(config, weights, groups, shape, false, progress);
  std::optional<Measured> invariant;
  if (arguments.invariant) invariant.emplace(config, weights, groups, shape, true, progress);

  std::vector<Row> rows;
  for (const auto& task : tasks) {
    std::vector<double> times, shares, invariant_times;
    for (int repeat = -1; repeat < arguments.repeats; ++repeat) {
      const auto [took, share] = measured.run(task, page_ids, pages_of(task), repeat < 0);
      const double other = invariant ? invariant->run(task, page_ids, pages_of(task), repeat < 0).first : 0;
      if (repeat < 0) continue;
      times.push_back(took);
      shares.push_back(share);
      invariant_times.push_back(other);
      bar.advance(invariant ? 2 : 1);
    }
    Row row{path, task.name, world, task.all(), median(times), median(shares)};
    row.invariant_seconds = median(invariant_times);
    const auto passes = static_cast<double>(task.passes);
    const double reads = passes * work.bytes / bandwidth;
    const double products = (static_cast<double>(row.tokens) * work.block_operations +
                             passes * static_cast<double>(task.sequences) * work.head_operations) /
                            operations;
    row.by_reads = reads > products;
    row.of_limit = std::max(reads, products) / row.seconds;
    rows.push_back(row);
  }
  print_report(measured.report());
  return rows;
}

World parse_world(const std::string& text, int cores) {
  World world;
  int used = 0;
  const bool whole = std::sscanf(text.c_str(), "%dx%d%n", &world.ranks, &world.cores, &used) == 2 &&
                     used == static_cast<int>(text.size());
  if (!whole || world.ranks < 1 || world.cores < 1 || world.ranks > cores || world.cores > cores / world.ranks) {
    throw troika::Error(troika::Fault::invalid_argument, "--worlds takes ranks x cores of each, such as 2x1, of the " +
                                                             std::to_string(cores) + " cores here, not \"" + text +
                                                             "\"");
  }
  return world;
}

nlohmann::json json_of(const Row& row) {
  return {{"model", row.model},
          {"work", row.work},
          {"ranks", row.world.ranks},
          {"cores_per_rank", row.world.cores},
          {"tokens", row.tokens},
          {"seconds", row.seconds},
          {"tokens_per_second", row.rate()},
          {"of_limit", row.of_limit},
          {"limit", row.by_reads ? "reads" : "products"},
          {"share_in_reductions", row.reduce_share},
          {"invariant_seconds", row.invariant_seconds}};
}

int run(const Arguments& arguments) {
  const auto cores = core_groups(1)[0];
  const int count = static_cast<int>(cores.size());
  std::vector<World> worlds;
  for (const auto& text : arguments.worlds) worlds.push_back(parse_world(text, count));
  if (worlds.empty()) {
    worlds.push_back({1, 1});
    if (count > 1) worlds.insert(worlds.end(), {{1, count}, {count, 1}});
  }
  const double giga = 1e-9;
  const auto rate = [&](troika::WeightType type) { return bench::peak_rate(type) * count * giga; };
  const double bandwidth = bench::read_bandwidth(cores) * giga;
  std::printf(
      "Limits of the %d cores, measured: reads %.1f GB/s; products of f32 %.0f, bf16 %.0f, 8 bits %.0f G "
      "operations/s\n",
      count, bandwidth, rate(troika::WeightType::f32), rate(troika::WeightType::bf16), rate(troika::WeightType::q8_0));
  nlohmann::json json{{"cores", count},
                      {"read_bytes_per_second", bandwidth / giga},
                      {"f32_operations_per_second", rate(troika::WeightType::f32) / giga},
                      {"bf16_operations_per_second", rate(troika::WeightType::bf16) / giga},
                      {"int8_operations_per_second", rate(troika::WeightType::q8_0) / giga},
                      {"rows", nlohmann::json::array()}};
  std::ofstream file;
  if (!arguments.json.empty()) {
    file.open(arguments.json);  // now, not after minutes of measuring
    if (!file) throw troika::Error(troika::Fault::bad_file, "cannot write " + arguments.json);
  }
  for (const auto& model : arguments.models) {
    const auto config = models::ModelConfig::load(model);
    if (!config.is_decoder()) {
      throw troika::Error(troika::Fault::unsupported, model + " is no decoder; troika-bench measures those");
    }
    const auto work = Work::of(config, models::Weights::open(model));
    std::printf("\n%s: %.2f G weights a token, mostly %s, %.0f MB\n", model.c_str(),
                (work.block_operations + work.head_operations) / 2 * giga, std::string(to_string(work.type)).c_str(),
                work.bytes * 1e-6);
    std::string left_out;
    (void)tasks_of(config, arguments, &left_out);
    if (!left_out.empty()) {
      std::printf("  left out, its context is %lld tokens: %s\n",
                  static_cast<long long>(config.max_position_embeddings), left_out.c_str());
    }
    std::printf("  %-18s  %15s  %10s  %9s  %-16s  %13s%s\n", "work", "ranks x cores", "tokens/s", "ms", "of its limit",
                "in all_reduce", arguments.invariant ? "  invariant" : "");
    std::vector<std::vector<Row>> results;
    for (const auto& world : worlds) results.push_back(measure(model, world, arguments));
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      for (const auto& rows : results) {
        const auto& row = rows[i];
        std::printf("  %-18s  %15s  %10.1f  %9.2f  %4.0f %% of %-8s  %11.1f %%", row.work.c_str(),
                    row.world.name().c_str(), row.rate(), 1e3 * row.seconds, 100 * row.of_limit,
                    row.by_reads ? "reads" : "products", 100 * row.reduce_share);
        if (arguments.invariant) std::printf("  %+7.1f %%", 100 * (row.invariant_seconds / row.seconds - 1));
        std::printf("\n");
        json["rows"].push_back(json_of(row));
      }
    }
  }
  if (!arguments.json.empty()) {
    file << json.dump(1) << '\n';
    if (!file.flush()) throw troika::Error(troika::Fault::bad_file, "cannot write " + arguments.json);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app{"Measures decoders on the cores of this machine, beside the limits of the machine."};
  app.add_option("--model", arguments.models, "GGUF file or Hugging Face folder, one or more")
      ->required()
      ->check(CLI::ExistingPath);
  app.add_option("--worlds", arguments.worlds,
                 "ranks x cores of each, such as 1x2,2x1 (default: one core, one rank, one core a rank)")
      ->delimiter(',');
  app.add_option("--prompts", arguments.prompts, "tokens of the prompts")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batches", arguments.batches, "sequences that are decoded at once")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--tokens", arguments.tokens, "tokens to decode, one by one")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--repeats", arguments.repeats, "the median is shown")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--invariant", arguments.invariant,
               "measure invariant devices in turn with the others, and show the time that they take more");
  app.add_option("--json", arguments.json, "write all results to this file, too");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troika-bench: %s\n", error.what());
    return 1;
  }
}
