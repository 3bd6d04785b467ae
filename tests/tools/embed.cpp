// SPDX-License-Identifier: Apache-2.0
// What the Python oracle of the real encoder talks to.
//
//   tool_embed FOLDER RANKS...
//
// Reads texts from standard input, each a line of hex, and prints for each number of ranks and text
//   ids RANKS TEXT IDS...
//   embedding RANKS TEXT VALUES...
// It is an error when ranks do not have the same bits.

#include <cstdint>
#include <cstdio>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <support/spmd.hpp>

#include <troika/models/encoder.hpp>
#include <troika/models/text/tokenizer.hpp>

namespace {

std::string from_hex(const std::string& hex) {
  std::string text;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return text;
}

void run(const std::string& folder, const std::vector<std::string>& worlds) {
  const auto config = troika::models::ModelConfig::load(folder);
  const auto weights = troika::models::Weights::open(folder);
  const auto tokenizer = troika::models::Tokenizer::load(folder);
  std::vector<std::vector<std::int32_t>> texts;
  for (std::string line; std::getline(std::cin, line);) texts.push_back(tokenizer.encode(from_hex(line)));
  for (const auto& world : worlds) {
    const auto ranks = spmd(std::stoi(world), [&](auto& pipeline) {
      const troika::models::Encoder encoder(pipeline, config, weights);
      std::vector<std::vector<float>> embeddings;
      for (const auto& ids : texts) embeddings.push_back(encoder.embed(pipeline, ids));
      return embeddings;
    });
    for (const auto& rank : ranks) {
      if (rank != ranks[0]) throw std::runtime_error("the ranks of world " + world + " differ");
    }
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::printf("ids %s %zu", world.c_str(), i);
      for (const auto id : texts[i]) std::printf(" %d", id);
      std::printf("\nembedding %s %zu", world.c_str(), i);
      for (const auto value : ranks[0][i]) std::printf(" %.9g", static_cast<double>(value));
      std::printf("\n");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tool_embed FOLDER RANKS...\n";
    return 2;
  }
  try {
    run(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "tool_embed: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
