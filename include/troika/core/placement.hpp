// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <string>

namespace troika {

// Where the elements of a tensor are, as types: the vocabulary of PyTorch's DTensor, checked by the compiler.

struct Replicate {};  // every rank holds all of it, the same bits
struct Partial {};    // every rank holds a full-sized term; the tensor is their sum
template <int Dim>
struct Shard {};  // every rank holds its range of dimension Dim

template <class P>
inline constexpr bool is_shard = false;
template <int Dim>
inline constexpr bool is_shard<Shard<Dim>> = true;

template <class P>
inline constexpr int shard_dim = -1;
template <int Dim>
inline constexpr int shard_dim<Shard<Dim>> = Dim;

template <class P>
concept Placement = std::same_as<P, Replicate> || std::same_as<P, Partial> || is_shard<P>;

template <Placement P>
std::string placement_name() {
  if constexpr (std::same_as<P, Replicate>)
    return "Replicate";
  else if constexpr (std::same_as<P, Partial>)
    return "Partial";
  else
    return "Shard<" + std::to_string(shard_dim<P>) + ">";
}

}  // namespace troika
