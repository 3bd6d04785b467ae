// SPDX-License-Identifier: Apache-2.0
// What libFuzzer calls for a new input: one in four is changed as what it means (mutate_json.hpp, mutate_gguf.hpp), the
// others as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace troika::fuzz {

using Random = std::minstd_rand;
inline std::size_t below(Random& random, std::size_t count) { return count == 0 ? 0 : random() % count; }

inline std::string mutated_bytes(std::string_view text) {
  std::string bytes(text);
  bytes.resize(text.size() + 8);
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), text.size(), bytes.size()));
  return bytes;
}

// Writes `input` with one change, for which `lender` may lend a part. The size of it; 0 where there is none, or it would
// be longer than `max_size`.
std::size_t mutated_input(std::string_view input, std::string_view lender, std::uint8_t* out, std::size_t max_size,
                          Random& random);

}  // namespace troika::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  troika::fuzz::Random random(seed + 1);
  if (random() % 4 == 0) {
    const std::string input(reinterpret_cast<char*>(data), size);
    if (const auto result = troika::fuzz::mutated_input(input, input, data, max_size, random)) return result;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" std::size_t LLVMFuzzerCustomCrossOver(const std::uint8_t* one, std::size_t one_size,
                                                 const std::uint8_t* other, std::size_t other_size, std::uint8_t* out,
                                                 std::size_t max_size, unsigned seed) {
  troika::fuzz::Random random(seed + 1);
  if (random() % 4 != 0) return 0;  // asked for as often as the other
  return troika::fuzz::mutated_input({reinterpret_cast<const char*>(one), one_size},
                                     {reinterpret_cast<const char*>(other), other_size}, out, max_size, random);
}
