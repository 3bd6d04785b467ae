// SPDX-License-Identifier: Apache-2.0
// What the Python oracle of quantised blocks talks to.
//
//   tool_dequantize TYPE < BLOCKS > FLOATS
//
// The blocks on standard input, as f32 in this machine's byte order.

#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <troika/core/dequantize.hpp>

int main(int argc, char** argv) {
  for (std::size_t i = 0; argc == 2 && i < troika::weight_layouts.size(); ++i) {
    const auto& layout = troika::weight_layouts[i];
    if (layout.name != argv[1]) continue;
    const std::string blocks((std::istreambuf_iterator<char>(std::cin)), {});
    std::vector<float> values(blocks.size() / layout.bytes * static_cast<std::size_t>(layout.block));
    troika::dequantize(static_cast<troika::WeightType>(i), reinterpret_cast<const std::byte*>(blocks.data()), values);
    std::cout.write(reinterpret_cast<const char*>(values.data()),
                    static_cast<std::streamsize>(values.size() * sizeof(float)));
    return 0;
  }
  std::cerr << "usage: tool_dequantize TYPE < BLOCKS > FLOATS\n";
  return 2;
}
