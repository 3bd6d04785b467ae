// SPDX-License-Identifier: Apache-2.0
// program FOLDER: the compiled half links, with all that it needs, and works.
#include <cstdio>

#include <troika/models/files/config.hpp>
#include <troika/models/text/tokenizer.hpp>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto config = troika::models::ModelConfig::load(argv[1]);
  const auto tokenizer = troika::models::Tokenizer::load(argv[1]);
  const auto ids = tokenizer.encode("12 + 34 =");
  std::printf("%zu tokens of %d\n", ids.size(), tokenizer.vocab_size());
  return tokenizer.decode(ids) == "12 + 34 =" ? 0 : 1;
}
