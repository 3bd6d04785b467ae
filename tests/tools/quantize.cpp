// SPDX-License-Identifier: Apache-2.0
// What the Python oracle of quantisation talks to.
//
//   tool_quantize TYPE < FLOATS > BLOCKS
//
// Numbers as f32 in this machine's byte order.

#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <troika/core/quantize.hpp>

int main(int argc, char** argv) {
  for (const auto type : troika::quantizable) {
    if (argc != 2 || troika::to_string(type) != argv[1]) continue;
    const std::string bytes((std::istreambuf_iterator<char>(std::cin)), {});
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
    std::vector<std::byte> blocks(troika::row_bytes(type, static_cast<std::int64_t>(values.size())));
    troika::quantize(type, values, blocks.data());
    std::cout.write(reinterpret_cast<const char*>(blocks.data()), static_cast<std::streamsize>(blocks.size()));
    return 0;
  }
  std::cerr << "usage: tool_quantize TYPE < FLOATS > BLOCKS\n";
  return 2;
}
