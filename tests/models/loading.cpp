// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <device/quantised.hpp>
#include <models_files/gguf_bytes.hpp>
#include <support/catch.hpp>
#include <support/spmd.hpp>
#include <support/temp_folder.hpp>
#include <troika/models/loading.hpp>
#include <troika/models/split.hpp>

using namespace troika;
using namespace troika::models;
using namespace troika::test;

namespace {

std::string bytes_of(const std::vector<std::byte>& blocks) {
  return {reinterpret_cast<const char*>(blocks.data()), blocks.size()};
}

}  // namespace

TEST_CASE("each rank loads whole blocks of a quantised matrix, as the file has them") {
  constexpr std::uint64_t rows = 6, columns = 5 * 256;
  const auto down = random_blocks(WeightType::q4_k, rows * columns, 1),
             up = random_blocks(WeightType::q6_k, rows * columns, 2);
  const auto output = random_blocks(WeightType::q8_0, rows * 64, 3);
  const TempFolder folder;
  GgufBytes file;
  file.string("general.architecture", "llama");
  for (const auto& [key, value] : {std::pair("block_count", 1u),
                                   {"context_length", 8u},
                                   {"embedding_length", 6u},
                                   {"feed_forward_length", 1280u},
                                   {"attention.head_count", 1u}}) {
    file.u32(std::string("llama.") + key, value);
  }
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.tensor("token_embd.weight", {6, 5}, 0, std::string(120, '\0'));
  file.tensor("blk.0.ffn_down.weight", {columns, rows}, 12, bytes_of(down))
      .tensor("blk.0.ffn_up.weight", {columns, rows}, 14, bytes_of(up))
      .tensor("blk.0.attn_output.weight", {64, rows}, 8, bytes_of(output));
  const auto weights = Weights::open(folder.write("m.gguf", file.file()));

  const auto blocks = SplitBlocks::of(weights);
  CHECK(blocks.mlp_down == 256);
  CHECK(blocks.attention_output == 32);

  for (const int world : test_worlds) {
    for (const bool even : {true, false}) {
      INFO(world << " ranks, even " << even);
      std::size_t read = 0;
      const auto ranks =
          spmd(world, even ? StaticAllocation{} : StaticAllocation{uneven_weights(world)}, [&](auto& pipeline) {
            std::uint64_t bytes = 0;
            Loader load(pipeline, weights, [&](std::uint64_t more) { bytes += more; });
            const auto across = pipeline.partition(columns, blocks.mlp_down), along = pipeline.partition(rows);
            const auto row = load.row("model.layers.0.mlp.down_proj", rows, across);
            const auto column = load.column("model.layers.0.mlp.up_proj", along, columns);
            const auto bytes_of_weight = [](const auto& layer) {
              return std::vector<std::byte>(layer.weight().data(), layer.weight().data() + layer.weight().bytes());
            };
            return std::tuple(across, along, bytes_of_weight(row), bytes_of_weight(column), bytes);
          });
      for (int rank = 0; rank < world; ++rank) {
        const auto& [across, along, row, column, bytes] = ranks[static_cast<std::size_t>(rank)];
        std::vector<std::byte> row_part, column_part;
        for (std::size_t r = 0; r < rows; ++r) {
          const auto begin = down.begin() + static_cast<std::ptrdiff_t>(r * 5 * 144);
          row_part.insert(row_part.end(), begin + across[rank].begin / 256 * 144, begin + across[rank].end / 256 * 144);
        }
        column_part.assign(up.begin() + along[rank].begin * 5 * 210, up.begin() + along[rank].end * 5 * 210);
        CHECK(row == row_part);
        CHECK(column == column_part);
        CHECK(bytes == row.size() + column.size());
        read += row.size() + column.size();
      }
      CHECK(read == down.size() + up.size());
    }
  }
}
