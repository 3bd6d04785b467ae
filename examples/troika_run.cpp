// SPDX-License-Identifier: Apache-2.0
// ctest: --quick
//
// The main program: splits a model over the devices of this machine, streams and scores its answers, shows that the
// number of devices changes nothing but the time, and times a block of a large model.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <troika/models/encoder.hpp>
#include <troika/troika.hpp>
#include <troika/version.hpp>

#include "run/answers.hpp"
#include "run/block_timing.hpp"
#include "run/gpus.hpp"
#include "run/plan_view.hpp"

namespace models = troika::models;

namespace {

struct Arguments {
  std::string model = TROIKA_MODEL_DIR, prompt, trace, picture = "troika-split.svg", speculate, draft;
  DeviceOptions asked;
  std::vector<int> gpus;  // none: on cores
  int devices = 0;
  std::vector<double> weights;
  models::GenerateOptions generate;
  models::DecoderOptions decoder;
  bool invariant = false;
  bool plan = false, quick = false, verbose = false;

  bool on_gpus() const { return !gpus.empty(); }
  bool own_model() const { return model != TROIKA_MODEL_DIR; }
  troika::StaticAllocation allocation() const {
    return weights.empty() ? troika::StaticAllocation{} : troika::StaticAllocation{weights};
  }
  troika::Shares shares() const {
    return {weights.empty() ? std::vector<double>(static_cast<std::size_t>(devices), 1.0) : weights, invariant};
  }
};

// f(make), where make(n) gives n devices of the kind that was asked for.
template <class F>
auto with_devices(const Arguments& arguments, F&& f) {
#if defined(TROIKA_HAS_CUDA)
  if (arguments.on_gpus()) {
    return f([&](int count) {
      return troika::cuda_devices({.invariant = arguments.invariant},
                                  {arguments.gpus.begin(), arguments.gpus.begin() + count});
    });
  }
#endif
  return f([&](int count) { return troika::host_devices(core_groups(count), {.invariant = arguments.invariant}); });
}

void heading(const std::string& text) { std::printf("\n%s\n", text.c_str()); }

// Streams a few answers, then scores all unseen cases. True when more than 95 % are right.
template <class Make>
bool score(const OpenModel& model, const Arguments& arguments, const Make& make) {
  const auto cases = read_cases(arguments.model + "/unseen.tsv");
  heading("Some answers, as " + std::to_string(arguments.devices) + " devices draw them");
  std::vector<Case> samples;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (i == 0 || cases[i].task != cases[i - 1].task)
      samples.insert(samples.end(), {cases[i], cases[std::min(i + 1, cases.size() - 1)]});
  }
  const auto prompts_of = [](const std::vector<Case>& list) {
    std::vector<std::string> prompts;
    for (const auto& one : list) prompts.push_back(one.prompt);
    return prompts;
  };
  std::size_t current = samples.size();
  (void)answer(model, prompts_of(samples), make(arguments.devices), arguments.allocation(), arguments.decoder,
               arguments.generate, [&](std::size_t i, const std::string& text) {
                 if (i != current)
                   std::printf("%s  %s", current < samples.size() ? "\n" : "", samples[i].prompt.c_str());
                 current = i;
                 std::printf("%s", text.c_str());
                 std::fflush(stdout);
               });
  std::printf("\n");

  const auto result = answer(model, prompts_of(cases), make(arguments.devices), arguments.allocation(),
                             arguments.decoder, arguments.generate);
  std::map<std::string, std::pair<int, int>> tasks;  // right, all
  int right = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const bool hit = model.tokenizer.decode(result.tokens[i]) == cases[i].answer;
    auto& [hits, all] = tasks[cases[i].task];
    hits += hit, all += 1, right += hit;
  }
  heading("Score on " + std::to_string(cases.size()) + " cases that the training never saw");
  for (const auto& [task, counts] : tasks) {
    std::printf("  %-10s %4d of %4d  %5.1f %%\n", task.c_str(), counts.first, counts.second,
                100.0 * counts.first / counts.second);
  }
  const double percent = 100.0 * right / static_cast<double>(cases.size());
  std::printf("  %-10s %4d of %4zu  %5.1f %%\n", "all", right, cases.size(), percent);
  return percent > 95;
}

// True when 1 to 5 devices, or all numbers of invariant ones, draw the same tokens.
template <class Make>
bool compare_worlds(const OpenModel& model, const Arguments& arguments, const Make& make) {
  heading("The same tokens, whatever the number of devices");
  std::vector<std::string> prompts;
  const auto cases = read_cases(arguments.model + "/unseen.tsv");
  for (std::size_t i = 0; i < cases.size(); i += arguments.quick ? 20 : 8) prompts.push_back(cases[i].prompt);
  std::printf("  %7s  %7s  %6s  %s\n", "devices", "prompts", "tokens", "compared with 1 device");
  Answers first;
  bool same = true;
  for (const int devices : arguments.invariant ? std::vector{1, 2, 4, 8} : std::vector{1, 2, 3, 4, 5}) {
    if (arguments.on_gpus() && devices > arguments.devices) break;
    const auto result =
        answer(model, prompts, make(devices), troika::StaticAllocation{}, arguments.decoder, arguments.generate);
    if (devices == 1) first = result;
    const bool equal = result.ranks_agree && result.tokens == first.tokens;
    same &= equal;
    std::printf("  %7d  %7zu  %6zu  %s\n", devices, prompts.size(), result.count(), equal ? "the same" : "DIFFERENT");
  }
  return same;
}

template <class Make>
void show_large_block(const Arguments& arguments, const Make& make) {
  models::ModelConfig config;
  config.hidden_size = 4096, config.intermediate_size = 14336, config.layers = 1, config.vocab_size = 128256;
  config.heads = 32, config.kv_heads = 8, config.head_dim = 128;
  const int devices = arguments.on_gpus() ? arguments.devices : std::max(2, arguments.devices);
  heading("One block with the shapes of Llama-3-8B, bf16");
  const std::vector<std::int64_t> tokens =
      arguments.quick ? std::vector<std::int64_t>{1} : std::vector<std::int64_t>{1, 128};
  struct Row {
    std::string devices;
    std::vector<BlockTime> times;
  };
  std::vector<Row> rows;
  troika::HostReport report;
  std::string where = "GPUs";
  if (arguments.on_gpus()) {
    rows.push_back({"1 GPU", time_block(config, make(1), tokens)});
  } else {
    const auto cores = core_groups(1)[0];
    where = "on " + std::to_string(cores.size()) + " cores";
    rows.push_back(
        {"1, on 1 core", time_block(config, troika::host_devices(std::vector<std::vector<int>>{{cores[0]}}), tokens)});
    if (cores.size() > 1) rows.push_back({"1, " + where, time_block(config, make(1), tokens)});
    where = ", " + where;
  }
  if (devices > 1)
    rows.push_back({std::to_string(devices) + where, time_block(config, make(devices), tokens, &report)});
  std::printf("  %7s  %-14s  %12s  %9s  %13s\n", "tokens", "devices", "ms per block", "speed-up", "in all_reduce");
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    for (const auto& row : rows) {
      std::printf("  %7lld  %-14s  %12.1f  %8.2fx  %11.1f %%\n", static_cast<long long>(tokens[t]), row.devices.c_str(),
                  row.times[t].milliseconds, rows[0].times[t].milliseconds / row.times[t].milliseconds,
                  100 * row.times[t].all_reduce_share);
    }
  }
  std::printf("  The share in all_reduce counts the wait for slower ranks.\n");
  if (!arguments.on_gpus()) {
    std::printf(
        "  One token takes as long as reading the weights, from memory that all cores share: more of them help "
        "little.\n");
  }
  print_report(report, arguments.verbose);

  const troika::Shares shares{std::vector<double>(static_cast<std::size_t>(devices), 1.0)};
  const auto plan = models::ModelSplit::make(config, shares).rows(config);
  heading("Who holds what of it");
  print_plan({plan.begin() + 1, plan.end() - 1}, devices);
  if (!SplitPicture(plan, devices, "A Llama-3-8B block over " + std::to_string(devices) + " devices")
           .write(arguments.picture)) {
    throw troika::Error(troika::Fault::bad_file, "cannot write the picture to " + arguments.picture);
  }
  std::printf("  As a picture: %s\n", arguments.picture.c_str());
}

template <class Make>
void run_own_decoder(const OpenModel& model, const Arguments& arguments, const Make& make, troika::Trace* trace) {
  const std::string prompt = arguments.prompt.empty() ? "Once upon a time" : arguments.prompt;
  heading("The answer, on " + std::to_string(arguments.devices) + " devices");
  std::printf("%s", prompt.c_str());
  std::optional<OpenModel> draft;
  if (!arguments.draft.empty()) {
    draft.emplace(arguments.draft);
    models::check_same_vocabulary(model.tokenizer, draft->tokenizer);
  }
  const Speculation speculation{arguments.speculate == "lookup", draft ? &*draft : nullptr};
  const auto result = answer(
      model, {prompt}, make(arguments.devices), arguments.allocation(), arguments.decoder, arguments.generate,
      [](std::size_t, const std::string& text) { std::printf("%s", text.c_str()), std::fflush(stdout); }, trace,
      speculation);
  std::printf("\n\n%zu tokens in %.1f ms, prompt included\n", result.count(), 1e3 * result.seconds);
  print_report(result.report, arguments.verbose);
  if (speculation.lookup || speculation.draft) {
    std::printf(
        "%lld of %lld guesses were right (%.0f %%); %lld passes after that of the prompt\n",
        static_cast<long long>(result.accepted), static_cast<long long>(result.proposed),
        100.0 * static_cast<double>(result.accepted) / static_cast<double>(std::max<std::int64_t>(result.proposed, 1)),
        static_cast<long long>(result.steps));
  }
}

template <class Make>
void run_encoder(const OpenModel& model, const Arguments& arguments, const Make& make, troika::Trace* trace) {
  const std::string text = arguments.prompt.empty() ? "A troika is drawn by three horses." : arguments.prompt;
  const auto devices = make(arguments.devices);
  troika::HostReport report;
  troika::TaskScheduler scheduler{devices, arguments.allocation(), {.trace = trace}};
  ProgressBar bar("loading", model.weights.total_bytes());
  const auto vectors = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, transport_of<typename decltype(devices)::value_type>};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    const models::Encoder encoder(pipeline, model.config, model.weights,
                                  [&](std::uint64_t bytes) { bar.advance(bytes); });
    auto vector = encoder.embed(pipeline, model.tokenizer.encode(text));
    if (rank.rank() == 0) report = report_of(devices);
    communication.barrier();  // until then nobody gives memory back
    return vector;
  });
  heading("The embedding of \"" + text + "\"");
  std::printf("  %zu numbers:", vectors[0].size());
  for (std::size_t i = 0; i < std::min<std::size_t>(8, vectors[0].size()); ++i) std::printf(" %.5f", vectors[0][i]);
  std::printf(" ...\n");
  print_report(report, arguments.verbose);
}

// 0 where the answers are what they should be.
template <class Make>
int run_on(const OpenModel& model, const Arguments& arguments, const Make& make) {
  troika::Trace trace;
  troika::Trace* const traced = arguments.trace.empty() ? nullptr : &trace;
  bool right = true;
  if (!model.config.is_decoder()) {
    run_encoder(model, arguments, make, traced);
  } else if (arguments.own_model() || !arguments.prompt.empty() || !arguments.speculate.empty() ||
             !arguments.draft.empty()) {
    run_own_decoder(model, arguments, make, traced);
  } else {
    right = score(model, arguments, make);
    right &= compare_worlds(model, arguments, make);
    if (traced)
      (void)answer(model, {"12 + 345 ="}, make(arguments.devices), arguments.allocation(), arguments.decoder,
                   arguments.generate, {}, traced);
    show_large_block(arguments, make);
    std::printf(
        "\nNext: --prompt \"999 + 1 =\", --devices 5, --weights 1,3, --plan, --trace trace.json, --model FOLDER or "
        "FILE.gguf of your own;\n"
        "cmake --build build/cpu makes the programs that show one step each (all-reduce, linear, mlp, block, ...) "
        "beside this one,\n"
        "troika-convert and troika-stress; ./dev serve answers clients of Ollama and OpenAI; ./dev bench makes "
        "troika-bench, which\n"
        "measures a model on this machine.\n");
  }
  if (traced) {
    std::ofstream file(arguments.trace);
    trace.write(file);
    if (!file.flush()) throw troika::Error(troika::Fault::bad_file, "cannot write the trace to " + arguments.trace);
    std::printf("\nThe trace is in %s; open it at ui.perfetto.dev\n", arguments.trace.c_str());
  }
  if (!right) std::fprintf(stderr, "troika-run: the answers are not what they should be\n");
  return right ? 0 : 1;
}

int run(const Arguments& arguments) {
  const OpenModel model(arguments.model);
  std::printf("troika %d.%d.%d: a %s model of %.1f MB, split over %d devices\n", troika::version.major,
              troika::version.minor, troika::version.patch, std::string(to_string(model.config.architecture)).c_str(),
              static_cast<double>(model.weights.total_bytes()) / 1e6, arguments.devices);
  print_plan(models::ModelSplit::make(model.config, arguments.shares()).rows(model.config), arguments.devices);
  if ((arguments.plan || arguments.verbose) && !arguments.on_gpus()) print_machine(core_groups(arguments.devices));
  if (arguments.plan) return 0;
  return with_devices(arguments, [&](const auto& make) { return run_on(model, arguments, make); });
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  arguments.generate.max_tokens = 64;
  CLI::App app{"Splits a transformer over the devices of this machine."};
  app.add_option("--model", arguments.model,
                 "Hugging Face folder or GGUF file of Llama, Mistral, Qwen, Gemma, Phi-3, GPT-2, BERT or Nomic-BERT")
      ->capture_default_str();
  app.add_option("--prompt", arguments.prompt, "text to continue, or to embed");
  add_device_options(app, arguments.asked);
  app.add_option("--weights", arguments.weights, "share of each device, such as 1,3")->delimiter(',');
  app.add_option("--max-tokens", arguments.generate.max_tokens, "tokens to draw at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--context", arguments.decoder.context,
                 "tokens that the KV cache holds (default: what the model takes, at most 4096)");
  std::map<std::string, troika::KvType> kv_types;
  for (const auto type : troika::kv_types) kv_types.emplace(to_string(type), type);
  app.add_option_function<std::string>(
         "--kv-type", [&](const std::string& name) { arguments.decoder.kv_type = kv_types.at(name); },
         "how the KV cache is stored (default: f32); q8 is 8 bits")
      ->check(CLI::IsMember({"f32", "bf16", "f16", "q8"}));
  app.add_option("--temperature", arguments.generate.sampling.temperature, "0: always the most likely token")
      ->capture_default_str();
  app.add_option("--top-k", arguments.generate.sampling.top_k, "draw from the k most likely; 0: all")
      ->capture_default_str();
  app.add_option("--min-p", arguments.generate.sampling.min_p,
                 "draw from those with this part of the most likely one's probability")
      ->capture_default_str();
  app.add_option("--repeat-penalty", arguments.generate.sampling.repeat_penalty,
                 "divides the logits of the last 64 tokens of the text; 1: none")
      ->capture_default_str();
  app.add_option("--top-p", arguments.generate.sampling.top_p,
                 "draw from the most likely that make up this probability")
      ->capture_default_str();
  app.add_option("--seed", arguments.generate.sampling.seed, "of the draw")->capture_default_str();
  auto* const lookup =
      app.add_option("--speculate", arguments.speculate, "guess tokens ahead; lookup: from what the text repeats")
          ->check(CLI::IsMember({"lookup"}));
  app.add_option("--draft", arguments.draft, "guess tokens ahead with this smaller model of the same vocabulary")
      ->excludes(lookup);
  app.add_flag("--invariant", arguments.invariant,
               "the same bits on 1, 2, 4 and 8 devices, whatever else is in a pass");
  app.add_flag("--sequence-parallel", arguments.decoder.sequence_parallel,
               "split the tokens of the prompt between the products");
  app.add_option("--trace", arguments.trace, "write a trace for ui.perfetto.dev");
  app.add_option("--picture", arguments.picture, "where the picture of the split goes")
      ->capture_default_str()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_flag("--plan", arguments.plan, "only print who holds what, and on which cores");
  app.add_flag("--verbose", arguments.verbose,
               "print which cores the devices have, and what the system gave of what was asked");
  app.add_flag("--quick", arguments.quick, "fewer cases and a shorter timing");
  CLI11_PARSE(app, argc, argv);
  try {
    arguments.gpus = gpus_to_use(arguments.asked);
    arguments.devices = arguments.on_gpus() ? static_cast<int>(arguments.gpus.size()) : arguments.asked.devices;
    if (!arguments.weights.empty()) {
      const auto count = static_cast<int>(arguments.weights.size());
      troika::expects(arguments.devices == 0 || arguments.devices == count, [&] {
        return "--weights states " + std::to_string(count) + " shares for " + std::to_string(arguments.devices) +
               " devices";
      });
      arguments.devices = count;
    }
    if (arguments.devices == 0) arguments.devices = std::clamp(static_cast<int>(core_groups(1)[0].size()), 2, 16);
    return run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troika-run: %s\n", error.what());
    return 1;
  }
}
