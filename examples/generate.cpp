// SPDX-License-Identifier: Apache-2.0
//
//   prompt --> tokenizer --> [ rank 0 | rank 1 | rank 2 ] --> sampler --> tokenizer --> answer
//
// A trained model from a Hugging Face folder, split over three devices. The sampler sees candidates of each rank's part
// of the vocabulary, never all of it.
//   usage: generate [FOLDER [PROMPT]]
#include <cstdio>
#include <string>

#include <troika/models/generate.hpp>
#include <troika/models/text/stream_decoder.hpp>
#include <troika/models/text/tokenizer.hpp>
#include <troika/troika.hpp>

int main(int argc, char** argv) {
  namespace models = troika::models;
  const std::string folder = argc > 1 ? argv[1] : TROIKA_MODEL_DIR;
  const std::string prompt = argc > 2 ? argv[2] : "123 + 456 =";

  const auto config = models::ModelConfig::load(folder);
  const auto weights = models::Weights::open(folder);
  const auto tokenizer = models::Tokenizer::load(folder);
  const auto ids = tokenizer.encode(prompt);

  troika::TaskScheduler scheduler{troika::host_devices(3), troika::StaticAllocation{}};
  std::printf("%s", prompt.c_str());
  const auto tokens = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};

    const models::Decoder decoder(pipeline, config, weights);
    auto cache = decoder.make_cache(pipeline.device());
    models::StreamDecoder text(tokenizer);
    return models::generate(pipeline, decoder, cache, ids, {.max_tokens = 64}, [&](std::int32_t token) {
      if (rank.rank() == 0) std::printf("%s", text.add(token).c_str()), std::fflush(stdout);
    });
  });
  std::printf("\n\nNext: troika-run, which scores this model and splits a larger block; or your own folder here.\n");
  return tokens[0] == tokens[1] && tokens[1] == tokens[2] && !tokens[0].empty() ? 0 : 1;
}
