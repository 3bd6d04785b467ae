// SPDX-License-Identifier: Apache-2.0
// What the Python oracles of the models talk to.
//
//   tool_forward FOLDER|FILE.gguf [--worlds LIST] [--greedy N] [--score] [--fast] [--sequence-parallel] [--context N]
//
// LIST names the worlds, e.g. 1,2,4,1:3,1:3:1: a number is so many ranks with equal shares, numbers with colons are the
// shares of that many ranks. Reads prompts from standard input, token ids, one prompt a line, and prints for each world
// and prompt
//   logits WORLD PROMPT VALUES...      of the last token (decoders)
//   tokens WORLD PROMPT IDS...         N tokens, the most likely each time, past the end of the text too (decoders)
//   score WORLD PROMPT VALUE           with --score: the logarithm of the probability of each token but the first, summed
//   hidden WORLD PROMPT VALUES...      the last hidden state, token by token (encoders)
//   embedding WORLD PROMPT VALUES...   (encoders)
// It is an error when ranks do not have the same bits. Activations are rounded, as in programs, with --fast only.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <support/spmd.hpp>

#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>

namespace {

namespace models = troika::models;

struct Arguments {
  std::string folder;
  std::vector<std::string> worlds{"1"};
  std::int64_t greedy = 0, context = 0;
  bool sequence_parallel = false, score = false, fast = false;
};

struct Answer {
  std::vector<float> values, embedding;  // logits, or hidden state and embedding
  std::vector<std::int32_t> tokens;
  double score = 0;
  bool operator==(const Answer&) const = default;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

Arguments parse(const std::vector<std::string>& given) {
  Arguments arguments;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const auto value = [&] {
      if (i + 1 == given.size()) throw std::runtime_error(given[i] + " needs a value");
      return given[++i];
    };
    if (given[i] == "--worlds")
      arguments.worlds = split(value(), ',');
    else if (given[i] == "--greedy")
      arguments.greedy = std::stoll(value());
    else if (given[i] == "--context")
      arguments.context = std::stoll(value());
    else if (given[i] == "--score")
      arguments.score = true;
    else if (given[i] == "--fast")
      arguments.fast = true;
    else if (given[i] == "--sequence-parallel")
      arguments.sequence_parallel = true;
    else if (arguments.folder.empty() && given[i][0] != '-')
      arguments.folder = given[i];
    else
      throw std::runtime_error("unknown argument " + given[i]);
  }
  if (arguments.folder.empty()) throw std::runtime_error("no folder was named");
  return arguments;
}

std::vector<double> shares_of(const std::string& world) {
  if (world.find(':') == std::string::npos) return std::vector<double>(std::stoul(world), 1.0);
  std::vector<double> shares;
  for (const auto& part : split(world, ':')) shares.push_back(std::stod(part));
  return shares;
}

std::vector<std::vector<std::int32_t>> read_prompts(std::istream& in) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    prompts.emplace_back(std::istream_iterator<std::int32_t>(words), std::istream_iterator<std::int32_t>());
  }
  return prompts;
}

template <class Pipeline, class Prompts>
std::vector<Answer> decode(Pipeline& pipeline, const models::ModelConfig& config, const models::Weights& weights,
                           const Prompts& prompts, const Arguments& arguments) {
  const models::Decoder decoder(pipeline, config, weights,
                                {.context = arguments.context, .sequence_parallel = arguments.sequence_parallel});
  troika::Sampler sampler(pipeline.communication(), {});
  auto cache = decoder.make_cache(pipeline.device());
  std::vector<Answer> answers;
  for (const auto& prompt : prompts) {
    double score = 0;
    if (arguments.score) {
      cache.truncate(0);
      const auto rows = static_cast<std::int64_t>(prompt.size());
      const auto all = pipeline.run(decoder.forward(pipeline, prompt, cache, rows), troika::to<troika::Replicate>);
      const auto vocabulary = static_cast<std::size_t>(config.vocab_size);
      for (std::size_t i = 0; i + 1 < prompt.size(); ++i) {
        const auto row = all.values().subspan(i * vocabulary, vocabulary);
        const double most = static_cast<double>(*std::ranges::max_element(row));
        double sum = 0;
        for (const float value : row) sum += std::exp(static_cast<double>(value) - most);
        score += static_cast<double>(row[static_cast<std::size_t>(prompt[i + 1])]) - most - std::log(sum);
      }
    }
    cache.truncate(0);
    auto logits = decoder.forward(pipeline, prompt, cache);
    const auto whole = pipeline.run(logits, troika::to<troika::Replicate>);
    Answer answer{{whole.values().begin(), whole.values().end()}, {}, {}, score};
    for (std::int64_t i = 0; i < arguments.greedy; ++i) {
      if (i > 0) logits = decoder.forward(pipeline, std::span(&answer.tokens.back(), 1), cache);
      answer.tokens.push_back(sampler(logits, answer.tokens.size(), pipeline.stream()));
    }
    answers.push_back(std::move(answer));
  }
  return answers;
}

template <class Pipeline, class Prompts>
std::vector<Answer> encode(Pipeline& pipeline, const models::ModelConfig& config, const models::Weights& weights,
                           const Prompts& prompts) {
  const models::Encoder encoder(pipeline, config, weights);
  std::vector<Answer> answers;
  for (const auto& prompt : prompts) {
    const auto hidden = encoder.forward(pipeline, prompt);
    answers.push_back({{hidden.values().begin(), hidden.values().end()}, encoder.embed(pipeline, prompt), {}, 0});
  }
  return answers;
}

void print(const char* what, const std::string& world, std::size_t prompt, const auto& values) {
  std::string line = std::string(what) + ' ' + world + ' ' + std::to_string(prompt);
  char text[32];
  for (const auto value : values) {
    std::snprintf(text, sizeof text, " %.9g", static_cast<double>(value));
    line += text;
  }
  std::cout << line << '\n';
}

void run(const Arguments& arguments) {
  const auto config = models::ModelConfig::load(arguments.folder);
  const auto weights = models::Weights::open(arguments.folder);
  const auto prompts = read_prompts(std::cin);
  for (const auto& world : arguments.worlds) {
    const auto shares = shares_of(world);
    const auto ranks = spmd(static_cast<int>(shares.size()), troika::StaticAllocation{shares},
                            [&](auto& pipeline) {
                              return config.is_decoder() ? decode(pipeline, config, weights, prompts, arguments)
                                                         : encode(pipeline, config, weights, prompts);
                            },
                            {.precision = arguments.fast ? troika::Precision::fast : troika::Precision::exact});
    for (const auto& rank : ranks) {
      if (rank != ranks[0]) throw std::runtime_error("the ranks of world " + world + " differ");
    }
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const auto& answer = ranks[0][i];
      print(config.is_decoder() ? "logits" : "hidden", world, i, answer.values);
      if (config.is_decoder()) print("tokens", world, i, answer.tokens);
      if (arguments.score) print("score", world, i, std::vector{answer.score});
      if (!config.is_decoder()) print("embedding", world, i, answer.embedding);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    std::cerr << "tool_forward: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
