// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <troika/models/generate.hpp>
#include <troika/models/speculation.hpp>
#include <troika/models/text/stream_decoder.hpp>
#include <troika/models/text/tokenizer.hpp>
#include <troika/troika.hpp>

#include "gpus.hpp"
#include "machine.hpp"
#include "progress_bar.hpp"

// A Hugging Face folder or a GGUF file, opened once for all worlds.
struct OpenModel {
  explicit OpenModel(const std::string& path)
      : config(troika::models::ModelConfig::load(path)),
        weights(troika::models::Weights::open(path)),
        tokenizer(troika::models::Tokenizer::load(path)) {}
  troika::models::ModelConfig config;
  troika::models::Weights weights;
  troika::models::Tokenizer tokenizer;
};

struct Case {
  std::string task, prompt, answer;
};

// task <tab> prompt <tab> answer, a line each.
inline std::vector<Case> read_cases(const std::string& path) {
  std::ifstream file(path);
  std::vector<Case> cases;
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find('\t'), second = line.find('\t', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      throw troika::Error(troika::Fault::bad_file,
                          path + ": a line is task, prompt and answer with tabs between, not \"" + line + "\"");
    }
    cases.push_back({line.substr(0, first), line.substr(first + 1, second - first - 1), line.substr(second + 1)});
  }
  if (cases.empty()) throw troika::Error(troika::Fault::bad_file, path + " cannot be read or holds no cases");
  return cases;
}

struct Answers {
  std::vector<std::vector<std::int32_t>> tokens;       // one list a prompt, the same on every rank
  std::int64_t proposed = 0, accepted = 0, steps = 0;  // of speculation
  double seconds = 0;
  bool ranks_agree = true;
  troika::HostReport report;  // of the end, on rank 0

  std::size_t count() const {
    std::size_t total = 0;
    for (const auto& list : tokens) total += list.size();
    return total;
  }
};

// What guesses ahead: nothing, the text itself, or a smaller model.
struct Speculation {
  bool lookup = false;
  const OpenModel* draft = nullptr;
};

using Shown = std::function<void(std::size_t prompt, const std::string& text)>;

// Loads the model on the devices and answers each prompt by itself. `shown` gets the text as rank 0 draws it.
template <class D, class Allocation>
Answers answer(const OpenModel& model, const std::vector<std::string>& prompts, const std::vector<D>& devices,
               Allocation allocation, const troika::models::DecoderOptions& decoder_options,
               const troika::models::GenerateOptions& options, const Shown& shown = {}, troika::Trace* trace = nullptr,
               const Speculation& speculation = {}) {
  std::vector<std::vector<std::int32_t>> ids;
  for (const auto& prompt : prompts) ids.push_back(model.tokenizer.encode(prompt));

  using Clock = std::chrono::steady_clock;
  troika::TaskScheduler scheduler{devices, std::move(allocation), {.trace = trace}};
  ProgressBar bar("loading",
                  model.weights.total_bytes() + (speculation.draft ? speculation.draft->weights.total_bytes() : 0));
  const auto ranks = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, transport_of<D>};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    const troika::models::Decoder decoder(pipeline, model.config, model.weights, decoder_options,
                                          [&](std::uint64_t bytes) { bar.advance(bytes); });
    auto cache = decoder.make_cache(pipeline.device());
    Answers result;
    const auto answer_all = [&](auto proposer) {
      communication.barrier();
      const auto begin = Clock::now();
      for (std::size_t i = 0; i < ids.size(); ++i) {
        cache.truncate(0);
        troika::models::StreamDecoder text(model.tokenizer);
        auto answer =
            troika::models::speculate(pipeline, decoder, cache, ids[i], options, proposer, [&](std::int32_t token) {
              if (shown && rank.rank() == 0) shown(i, text.add(token));
            });
        result.tokens.push_back(std::move(answer.tokens));
        result.proposed += answer.proposed, result.accepted += answer.accepted, result.steps += answer.steps;
        if (shown && rank.rank() == 0) shown(i, text.finish());
      }
      result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    };
    if (const auto* draft = speculation.draft) {
      const std::int64_t context = std::min<std::int64_t>(decoder.context(), draft->config.max_position_embeddings);
      const troika::models::Decoder small(pipeline, draft->config, draft->weights, {.context = context},
                                          [&](std::uint64_t bytes) { bar.advance(bytes); });
      answer_all(troika::models::DraftModel(pipeline, small, options.sampling));
    } else if (speculation.lookup) {
      answer_all(troika::models::PromptLookup());
    } else {
      answer_all(troika::models::NoProposals());
    }
    if (rank.rank() == 0) result.report = report_of(devices);
    communication.barrier();  // until then nobody gives memory back
    return result;
  });
  Answers result = ranks[0];
  for (const auto& other : ranks) result.ranks_agree &= other.tokens == result.tokens;
  return result;
}
