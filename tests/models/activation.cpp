// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <string>

#include <support/catch.hpp>
#include <support/spmd.hpp>
#include <support/temp_folder.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>

namespace {

// What loading says of a model whose config.json asks for another activation; empty when it loads.
template <template <class> class Model>
std::string loading(const std::string& type, const std::string& from, const std::string& to) {
  const auto tiny = TinyModel::make(type);
  const troika::test::TempFolder folder;
  tiny.write(folder.path());
  auto text = tiny.config();
  const auto at = text.find("\"hidden_act\":\"" + from);
  REQUIRE(at != std::string::npos);
  text.replace(text.find(from, at), from.size(), to);
  std::ofstream(folder.path() / "config.json") << text;
  const auto config = troika::models::ModelConfig::load(folder.path());
  const auto weights = troika::models::Weights::open(folder.path());
  try {
    (void)spmd(2, [&](auto& pipeline) {
      const Model<troika::HostDevice> model(pipeline, config, weights);
      return model.config().layers;
    });
  } catch (const troika::Error& error) {
    CHECK(error.fault() == troika::Fault::unsupported);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a model with an activation that is not built is refused, not computed with another") {
  using Catch::Matchers::ContainsSubstring;
  CHECK(loading<troika::models::Decoder>("llama", "silu", "silu") == "");
  CHECK(loading<troika::models::Decoder>("llama", "silu", "gelu") == "");
  CHECK(loading<troika::models::Encoder>("bert", "gelu", "gelu_new") == "");
  CHECK_THAT(loading<troika::models::Encoder>("bert", "gelu", "silu"), ContainsSubstring("hidden_act silu"));
}
