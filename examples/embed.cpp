// SPDX-License-Identifier: Apache-2.0
//
//   sentence --> tokenizer --> [ rank 0 | rank 1 ] --> mean --> vector      near vectors: near meanings
//
// Sentence embeddings with a BERT-like encoder split over two devices, and how alike the sentences are.
//   usage: embed FOLDER [SENTENCE...]     FOLDER: for instance all-MiniLM-L6-v2, as downloaded from Hugging Face
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include <troika/models/encoder.hpp>
#include <troika/models/text/tokenizer.hpp>
#include <troika/troika.hpp>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::printf("SKIPPED: this example needs the folder of a BERT-like encoder: embed FOLDER [SENTENCE...]\n");
    return 0;
  }
  namespace models = troika::models;
  const std::string folder = argv[1];
  std::vector<std::string> sentences(argv + 2, argv + argc);
  if (sentences.empty())
    sentences = {"A troika is drawn by three horses.", "Three horses pull the sleigh.",
                 "The invoice is due on Friday."};

  const auto config = models::ModelConfig::load(folder);
  const auto weights = models::Weights::open(folder);
  const auto tokenizer = models::Tokenizer::load(folder);

  troika::TaskScheduler scheduler{troika::host_devices(2), troika::StaticAllocation{}};
  const auto vectors = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    const models::Encoder model(pipeline, config, weights);
    std::vector<std::vector<float>> result;
    for (const auto& sentence : sentences) result.push_back(model.embed(pipeline, tokenizer.encode(sentence)));
    return result;
  })[0];

  for (std::size_t i = 0; i < vectors.size(); ++i) {
    for (const auto& other : vectors) {
      const auto dot = [](auto& a, auto& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); };
      std::printf("%6.3f ", dot(vectors[i], other) / std::sqrt(dot(vectors[i], vectors[i]) * dot(other, other)));
    }
    std::printf("  %s\n", sentences[i].c_str());
  }
  std::printf("\nEach row: how alike a sentence is to the first, the second, ... (1 is the same).\n");
}
