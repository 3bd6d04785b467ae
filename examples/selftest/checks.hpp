// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/troika.hpp>

namespace selftest {

// What was compared, and what differed.
struct Outcome {
  std::int64_t compared = 0;
  std::vector<std::string> wrong{};
};

// Every collective once, on one rank, against what a loop on the host gives.
template <class T, class D, class C>
class Checks {
 public:
  Checks(troika::Rank<D>& rank, C& communication, std::size_t count, Outcome& outcome)
      : rank_(rank), c_(communication), count_(count), outcome_(outcome) {}

  void run() {
    for (const auto reduction : {troika::Reduction::sum, troika::Reduction::max}) {
      const std::string name = " (" + std::string(to_string(reduction)) + ")";
      auto in = mine(count_), out = empty(count_);
      c_.all_reduce(in.span(), out.span(), reduction);
      expect_reduced("all_reduce" + name, out, 0, reduction);
      expect_same_bits("all_reduce" + name, out);
      c_.all_reduce(in.span(), reduction);
      expect_reduced("all_reduce in place" + name, in, 0, reduction);

      auto whole = mine(count_ * ranks()), part = empty(count_);
      c_.reduce_scatter(whole.span(), part.span(), reduction);
      expect_reduced("reduce_scatter" + name, part, count_ * me(), reduction);

      const auto [counts, begin] = uneven();
      auto all = mine(count_), uneven_part = empty(counts[me()]);
      c_.reduce_scatter(all.span(), uneven_part.span(), counts, reduction);
      expect_reduced("uneven reduce_scatter" + name, uneven_part, begin, reduction);
    }
    {
      auto in = mine(count_), out = empty(count_ * ranks());
      c_.all_gather(in.span(), out.span());
      expect("all_gather", out, [&](std::size_t i) { return value(static_cast<int>(i / count_), i % count_); });
    }
    {
      const auto [counts, begin] = uneven();
      auto in = mine(counts[me()]), out = empty(count_);
      c_.all_gather(in.span(), out.span(), counts);
      expect("uneven all_gather", out, [&, sizes = counts](std::size_t i) {
        std::size_t r = 0;
        while (i >= sizes[r]) i -= sizes[r++];
        return value(static_cast<int>(r), i);
      });
    }
    for (int root = 0; root < c_.world_size(); ++root) {
      auto data = mine(count_);
      c_.broadcast(data.span(), troika::Root{root});
      expect("broadcast", data, [&](std::size_t i) { return value(root, i); });
    }
    {
      const std::vector<std::size_t> counts(ranks(), count_);
      auto in = mine(count_ * ranks()), out = empty(count_ * ranks());
      c_.all_to_all(in.span(), counts, out.span(), counts);
      expect("all_to_all", out,
             [&](std::size_t i) { return value(static_cast<int>(i / count_), me() * count_ + i % count_); });
    }
    if (ranks() > 1) {
      const int next = (c_.rank() + 1) % c_.world_size(), last = (c_.rank() + c_.world_size() - 1) % c_.world_size();
      auto sent = mine(count_), received = empty(count_);
      if (c_.rank() % 2 == 0) c_.send(sent.span(), next);
      c_.recv(received.span(), last);
      if (c_.rank() % 2 == 1) c_.send(sent.span(), next);
      expect("send and recv", received, [&](std::size_t i) { return value(last, i); });
    }
    c_.barrier();
  }

 private:
  using Tensor = troika::Tensor<T, D>;

  std::size_t ranks() const { return static_cast<std::size_t>(c_.world_size()); }
  std::size_t me() const { return static_cast<std::size_t>(c_.rank()); }

  // Element i of what a rank puts in: numbers of both signs and many sizes.
  static T value(int rank, std::size_t i) {
    std::uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(rank) * 0xd1342543de82ef95u;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 32;
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(x);
    else
      return T(static_cast<float>(static_cast<std::int32_t>(x)) * 0x1p-31f);
  }
  Tensor mine(std::size_t count) {
    std::vector<T> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = value(c_.rank(), i);
    Tensor tensor = empty(count);
    upload(rank_.stream(), troika::View<const T>(values.data(), tensor.shape()), tensor.view());
    return tensor;
  }
  Tensor empty(std::size_t count) { return {rank_.device(), troika::Shape{static_cast<std::int64_t>(count)}}; }
  // Shares that grow with the rank; rank 1 has none, the last the rest.
  std::pair<std::vector<std::size_t>, std::size_t> uneven() const {
    std::vector<std::size_t> counts(ranks(), 0);
    std::size_t given = 0, begin = 0;
    for (std::size_t r = 0; r + 1 < ranks(); ++r) {
      given += counts[r] = r == 1 ? 0 : count_ * (r + 1) / (ranks() * ranks() + 1);
      if (r < me()) begin = given;
    }
    counts.back() = count_ - given;
    return {counts, begin};
  }

  template <class Wanted>
  void expect(const std::string& what, Tensor& got, Wanted&& wanted) {
    const auto host = read_back(rank_.stream(), std::as_const(got).view());
    const auto values = host.span();
    compare(what, values, [&](std::size_t i) {
      const T right = wanted(i);
      return std::memcmp(&right, &values[i], sizeof right) == 0;
    });
  }
  // Whole numbers and maxima exactly; sums of floats as closely as any order of additions comes, in any precision from
  // that of T up.
  void expect_reduced(const std::string& what, Tensor& got, std::size_t first, troika::Reduction reduction) {
    const auto host = read_back(rank_.stream(), std::as_const(got).view());
    const auto values = host.span();
    compare(what, values, [&](std::size_t i) {
      double sum = 0, size = 0;
      T largest = value(0, first + i);
      for (int r = 0; r < c_.world_size(); ++r) {
        const T term = value(r, first + i);
        sum += static_cast<double>(static_cast<float>(term));
        size += std::abs(static_cast<double>(static_cast<float>(term)));
        if (static_cast<float>(term) > static_cast<float>(largest)) largest = term;
      }
      if constexpr (std::is_integral_v<T>) {
        std::int64_t whole = 0, top = value(0, first + i);
        for (int r = 0; r < c_.world_size(); ++r) {
          whole += value(r, first + i);
          top = std::max<std::int64_t>(top, value(r, first + i));
        }
        return values[i] == static_cast<T>(reduction == troika::Reduction::sum ? whole : top);
      } else {
        const double result = static_cast<double>(static_cast<float>(values[i]));
        if (reduction == troika::Reduction::max) return result == static_cast<double>(static_cast<float>(largest));
        const double unit = sizeof(T) == 4 ? 0x1p-23 : troika::dtype_of<T> == troika::DType::f16 ? 0x1p-10 : 0x1p-7;
        return std::abs(result - sum) <= unit * size * static_cast<double>(ranks());
      }
    });
  }
  void expect_same_bits(const std::string& what, Tensor& got) {
    const auto host = read_back(rank_.stream(), std::as_const(got).view());
    std::uint32_t hash = 2166136261u;
    for (const std::byte byte : std::as_bytes(host.span()))
      hash = (hash ^ static_cast<std::uint32_t>(byte)) * 16777619u;
    const auto own = static_cast<std::int32_t>(hash);
    std::vector<std::int32_t> all(ranks());
    c_.all_gather(std::span<const std::int32_t>(&own, 1), std::span<std::int32_t>(all));
    compare(what + ", the same bits on all ranks", std::span<const std::int32_t>(all),
            [&](std::size_t i) { return all[i] == all[0]; });
  }
  template <class V, class Right>
  void compare(const std::string& what, std::span<V> values, Right&& right) {
    outcome_.compared += static_cast<std::int64_t>(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (right(i)) continue;
      outcome_.wrong.push_back(what + " of " + std::to_string(count_) + " " +
                               std::string(to_string(troika::dtype_of<T>)) + ": element " + std::to_string(i) +
                               " of rank " + std::to_string(c_.rank()) + " of " + std::to_string(c_.world_size()));
      return;
    }
  }

  troika::Rank<D>& rank_;
  C& c_;
  std::size_t count_;
  Outcome& outcome_;
};

template <class D, class C>
Outcome check_everything(troika::Rank<D>& rank, C& c, std::span<const std::size_t> counts) {
  Outcome outcome;
  for (const std::size_t count : counts) {
    Checks<float, D, C>(rank, c, count, outcome).run();
    Checks<troika::f16, D, C>(rank, c, count, outcome).run();
    Checks<troika::bf16, D, C>(rank, c, count, outcome).run();
    Checks<std::int32_t, D, C>(rank, c, count, outcome).run();
    Checks<std::int8_t, D, C>(rank, c, count, outcome).run();
    Checks<std::uint8_t, D, C>(rank, c, count, outcome).run();
  }
  return outcome;
}

}  // namespace selftest
