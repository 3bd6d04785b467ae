// SPDX-License-Identifier: Apache-2.0
//
//   rank 0  cuda:0  ##############################
//   rank 1  host:0  ##            each has as much of the model as it is fast
//   rank 2  host:1  ##
//
// One model over the GPUs and the cores of a machine together. The program is that of one kind of device; the ranks of
// each kind are compiled for it. Without a GPU the cores do everything.
//   usage: mixed_devices [FOLDER [PROMPT]]
#include <cstdio>
#include <string>
#include <vector>

#include <troika/device/cuda/cuda.hpp>
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

  const bool any = troika::cuda_device_count() > 0;
  if (!any) std::printf("This machine has no GPU, or no driver for it: its cores work alone.\n");
  const auto gpus = any ? troika::cuda_devices() : std::vector<troika::CudaDevice>();
  troika::TaskScheduler scheduler{troika::mixed_devices(gpus, troika::host_devices(2)), troika::DynamicAllocation{}};
  troika::measure_speeds(scheduler);

  const auto shares = scheduler.shares();
  for (int i = 0; i < scheduler.device_count(); ++i)
    std::printf("rank %d  %-8s %5.1f %%\n", i, scheduler.device(i).name().c_str(),
                100 * shares[static_cast<std::size_t>(i)]);

  std::printf("\n%s", prompt.c_str());
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
  std::printf("\n");
  for (const auto& drawn : tokens)
    if (drawn != tokens[0] || drawn.empty()) return 1;
}
