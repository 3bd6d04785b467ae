// SPDX-License-Identifier: Apache-2.0
// troika-stress: a load of requests on several groups of devices with one model each, and how allocations compare under
// it; or on a server, through OpenAI's API.
// ctest: --requests 40 --slow 0:2 --repeats 1
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <troika/models/files/config.hpp>
#include <troika/scheduling/named_allocation.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/replicas.hpp>
#include <troika/troika.hpp>

#include "run/machine.hpp"
#include "run/progress_bar.hpp"
#include "stress/http_engine.hpp"
#include "stress/load.hpp"
#include "stress/report.hpp"

namespace {

struct Arguments {
  std::string model = TROIKA_MODEL_DIR, url, svg, json;
  int groups = 2, devices = 1;  // devices of each group
  std::vector<std::string> allocations{"random", "round-robin", "static", "dynamic"},
      mix{"40:16/16", "30:48/24", "20:96/32", "10:160/48"};
  std::vector<std::string> slow;
  stress::Plan plan;
  int repeats = 3;
  stress::Budget budget_ms{.response = 1000};
  std::int64_t waiting = 512;
};

struct Slow {
  int group = 0;
  double factor = 1;
};

std::vector<Slow> parse_slow(const std::vector<std::string>& texts, int groups) {
  std::vector<Slow> all;
  for (const auto& text : texts) {
    Slow slow;
    int used = 0;
    const bool whole = std::sscanf(text.c_str(), "%d:%lf%n", &slow.group, &slow.factor, &used) == 2 &&
                       used == static_cast<int>(text.size());
    if (!whole || slow.group < 0 || slow.group >= groups || !(slow.factor >= 1 && slow.factor <= 100)) {
      throw troika::Error(troika::Fault::invalid_argument,
                          "--slow takes GROUP:FACTOR, a group from 0 to " + std::to_string(groups - 1) +
                              " and a factor from 1 to 100, such as 0:2, not \"" + text + "\"");
    }
    all.push_back(slow);
  }
  return all;
}

// The groups of one run, with the cores dealt out anew.
std::vector<std::unique_ptr<troika::serving::Engine>> make_groups(const Arguments& arguments,
                                                                  const std::vector<Slow>& slow) {
  auto devices = troika::host_devices(core_groups(arguments.groups * arguments.devices));
  std::vector<std::unique_ptr<troika::serving::Engine>> engines;
  for (int group = 0; group < arguments.groups; ++group) {
    const auto first = devices.begin() + group * arguments.devices;
    troika::serving::EngineOptions options{.most_waiting = arguments.waiting};
    for (const auto& one : slow) {
      if (one.group == group)
        options.before_step = [brake = std::make_shared<stress::Brake>(one.factor)](int device, std::uint64_t step) {
          (*brake)(device, step);
        };
    }
    engines.push_back(troika::serving::make_engine({first, first + arguments.devices}, arguments.model, options));
  }
  return engines;
}

std::vector<stress::Outcome> load(const std::string& allocation, const Arguments& arguments,
                                  const std::vector<Slow>& slow, const stress::Plan& plan, std::int32_t vocabulary,
                                  ProgressBar& bar) {
  if (!arguments.url.empty()) {
    stress::HttpEngine server(arguments.url, arguments.model);
    return stress::Load(server, plan, vocabulary, [&] { bar.advance(1); }).run();
  }
  troika::serving::Replicas replicas(make_groups(arguments, slow), troika::NamedAllocation(allocation, plan.seed));
  return stress::Load(replicas, plan, vocabulary, [&] { bar.advance(1); }).run();
}

template <class Write>
void save(const std::string& path, const char* what, Write write) {
  if (path.empty()) return;
  std::ofstream file(path);
  write(file);
  if (!file.flush()) throw troika::Error(troika::Fault::bad_file, "cannot write " + path);
  std::printf("\n%s in %s.\n", what, path.c_str());
}

int run(Arguments arguments) {
  // A server's vocabulary is not known, but there is hardly one without so many tokens.
  const std::int32_t vocabulary =
      arguments.url.empty() ? static_cast<std::int32_t>(troika::models::ModelConfig::load(arguments.model).vocab_size)
                            : 256;
  if (!arguments.url.empty()) arguments.allocations = {arguments.url};
  for (const auto& text : arguments.mix) arguments.plan.mix.push_back(stress::Scenario::parse(text));
  const auto slow = parse_slow(arguments.slow, arguments.groups);
  const auto where = arguments.url.empty() ? std::to_string(arguments.groups) + " groups of " +
                                                 std::to_string(arguments.devices) + " devices"
                                           : arguments.url;
  std::printf("%s on %s; %lld requests, %s\n", arguments.model.c_str(), where.c_str(),
              static_cast<long long>(arguments.plan.requests),
              arguments.plan.rate > 0 ? (std::to_string(arguments.plan.rate) + " a second").c_str()
                                      : (std::to_string(arguments.plan.concurrency) + " at a time").c_str());
  for (const auto& one : slow) std::printf("group %d is held back to %.2f of its speed\n", one.group, 1 / one.factor);

  // The allocations take turns, so that what else the machine does meets all of them.
  std::map<std::string, std::vector<stress::Outcome>> outcomes;
  {
    ProgressBar bar(
        "load", static_cast<std::uint64_t>(arguments.repeats * arguments.plan.requests) * arguments.allocations.size());
    for (int repeat = 0; repeat < arguments.repeats; ++repeat) {
      auto plan = arguments.plan;
      plan.seed += static_cast<std::uint64_t>(repeat);
      for (const auto& name : arguments.allocations) {
        auto some = load(name, arguments, slow, plan, vocabulary, bar);
        auto& all = outcomes[name];
        double later = 0;  // one after the other in time
        for (const auto& o : all) later = std::max(later, o.end);
        for (auto& o : some) {
          for (double* time : {&o.begin, &o.first_token, &o.end}) *time += later;
        }
        all.insert(all.end(), some.begin(), some.end());
      }
    }
  }
  const stress::Budget budget{arguments.budget_ms.response * 1e-3, arguments.budget_ms.first_token * 1e-3,
                              arguments.budget_ms.per_token * 1e-3};
  std::vector<stress::Summary> summaries;
  for (const auto& name : arguments.allocations) summaries.push_back(stress::Summary::of(name, outcomes[name], budget));
  std::printf("\n");
  stress::print_table(summaries);
  save(arguments.svg, "The picture is",
       [&](std::ostream& out) { stress::write_svg(out, summaries, "Requests answered within a time"); });
  save(arguments.json, "The figures are", [&](std::ostream& out) { stress::write_json(out, summaries); });
  std::printf(
      "\nNext: --rate 50 sends by the clock, whether or not answers come back; --slow 0:2 holds a group back; --svg "
      "FILE draws;\n"
      "--url http://127.0.0.1:11434 --model NAME puts the load on a server.\n");
  for (const auto& s : summaries) {
    if (s.failed() > 0) return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app{"Puts a load on groups of devices and compares how allocations deal with it."};
  auto* const model = app.add_option("--model", arguments.model,
                                     "decoder: Hugging Face folder or GGUF file; with --url the name of a model there")
                          ->capture_default_str();
  app.add_option("--url", arguments.url,
                 "a server with OpenAI's /v1/completions instead, such as http://127.0.0.1:11434")
      ->needs(model);
  app.add_option("--groups", arguments.groups, "groups of devices, each with the whole model")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--devices", arguments.devices, "devices of each group")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--allocations", arguments.allocations, "which to compare")
      ->delimiter(',')
      ->check(CLI::IsMember({"random", "round-robin", "static", "dynamic"}))
      ->capture_default_str();
  app.add_option("--mix", arguments.mix, "scenarios: WEIGHT:PROMPT/ANSWER, the last two in tokens")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--requests", arguments.plan.requests, "requests of each run")
      ->check(CLI::Range(1, 10000000))
      ->capture_default_str();
  app.add_option("--concurrency", arguments.plan.concurrency, "clients that each wait for their answer (closed loop)")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--rate", arguments.plan.rate, "requests a second (open loop) instead")->check(CLI::Range(0.0, 1e6));
  app.add_option("--slow", arguments.slow, "GROUP:FACTOR holds a group back")->delimiter(',');
  app.add_option("--waiting", arguments.waiting, "requests that may wait in a group; more are refused")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--budget", arguments.budget_ms.response, "milliseconds in which an answer is of use; 0: any")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--first-token-budget", arguments.budget_ms.first_token, "the same to its first token")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--token-budget", arguments.budget_ms.per_token, "the same for each further token")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--repeats", arguments.repeats, "runs of each allocation, in turn")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seed", arguments.plan.seed, "of the requests and of what is random")->capture_default_str();
  app.add_option("--svg", arguments.svg, "file for a picture of the response times");
  app.add_option("--json", arguments.json, "file for all figures");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "troika-stress: %s\n", error.what());
    return 1;
  }
}
