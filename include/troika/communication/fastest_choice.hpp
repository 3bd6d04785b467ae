// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <troika/communication/transport.hpp>

namespace troika {

// By what GPUs exchange something.
enum class Way : std::uint8_t { peer, nccl, host };

constexpr std::string_view to_string(Way way) {
  constexpr std::string_view names[] = {"Peer", "NCCL", "memory of the host"};
  return names[static_cast<std::size_t>(way)];
}

// Which way each collective goes, by its size; messages are one of them. The size of a collective is that of its larger
// side, in bytes.
struct FastestChoice {
  static constexpr std::array operations = {Operation::all_reduce, Operation::all_gather, Operation::reduce_scatter,
                                            Operation::broadcast,  Operation::all_to_all, Operation::send};
  template <class T>
  using Table = std::array<std::array<T, 4>, operations.size()>;  // of each operation, at each size

  // Bytes, from small to large.
  std::array<std::size_t, 4> sizes{std::size_t{16} << 10, std::size_t{128} << 10, std::size_t{1} << 20,
                                   std::size_t{8} << 20};
  Table<Way> ways{};

  // All by one way.
  static FastestChoice only(Way way) {
    FastestChoice choice;
    for (auto& of_operation : choice.ways) of_operation.fill(way);
    return choice;
  }

  bool uses(Way way) const {
    return std::ranges::any_of(ways, [&](const auto& row) { return std::ranges::count(row, way) > 0; });
  }
  // The way at the nearest of the sizes, by the factor that lies between.
  Way way(Operation operation, std::size_t bytes) const {
    std::size_t nearest = 0;
    while (nearest + 1 < sizes.size() && bytes >= border(nearest)) ++nearest;
    return ways[row_of(operation)][nearest];
  }
  // "all_reduce Peer, NCCL from 256 KiB; broadcast NCCL"
  std::string text() const;

 private:
  static std::size_t row_of(Operation operation) {
    if (operation == Operation::recv) operation = Operation::send;
    if (operation == Operation::all_reduce_norm) operation = Operation::all_reduce;
    return static_cast<std::size_t>(std::ranges::find(operations, operation) - operations.begin());
  }
  // Where the next of the sizes is nearer.
  std::size_t border(std::size_t i) const;
};

}  // namespace troika
