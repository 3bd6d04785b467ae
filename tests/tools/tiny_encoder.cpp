// SPDX-License-Identifier: Apache-2.0

// tiny_encoder FOLDER: writes a BERT-like model with random weights, for programs that need a folder to read.

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "models_text/small_tokenizers.hpp"
#include "support/tiny_model.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tiny_encoder FOLDER\n");
    return 2;
  }
  std::filesystem::create_directories(argv[1]);
  TinyModel::make("bert").write(argv[1]);
  std::ofstream(std::filesystem::path(argv[1]) / "tokenizer.json") << troika::test::word_piece();
}
