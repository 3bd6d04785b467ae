// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "communication/support.hpp"

namespace troika::test {

// Values in the memory of the host. Tests of other memory have a function like on_host, whose result has a span() there,
// and values() that come from it.
template <Element E>
struct OnHost {
  std::vector<E> data;
  std::span<E> span() { return data; }
  std::span<const E> read() const { return data; }
  const std::vector<E>& values() const { return data; }
};
inline constexpr auto on_host = []<Element E>(std::vector<E> values) { return OnHost<E>{std::move(values)}; };

// Every operation once, on one rank, against what the test works out itself. Gives what differs. `place` puts values
// where the operations find them.
template <Element E, class C, class Place>
std::string check_operations(C& c, Place&& place, std::uint64_t seed, std::size_t count) {
  const int n = c.world_size(), me = c.rank();
  const auto ranks = static_cast<std::size_t>(n), mine = static_cast<std::size_t>(me);
  std::string wrong;
  const auto expect = [&](auto& got, const std::vector<E>& wanted, const std::string& what) {
    if (same_bits<E>(got.values(), wanted)) return;
    wrong += what + " of " + std::to_string(count) + " " + std::string(to_string(dtype_of<E>)) + " on rank " +
             std::to_string(me) + " of " + std::to_string(n) + "; ";
  };
  const auto empty = [&](std::size_t size) { return place(std::vector<E>(size)); };

  std::vector<std::vector<E>> in(ranks);
  for (int r = 0; r < n; ++r) in[static_cast<std::size_t>(r)] = elements<E>(seed, r, count);
  auto own = place(in[mine]);
  for (const Reduction reduction : {Reduction::sum, Reduction::max}) {
    std::vector<E> wanted(count), terms(ranks);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t r = 0; r < ranks; ++r) terms[r] = in[r][i];
      wanted[i] = reduced(terms, reduction);
    }
    const std::string name(to_string(reduction));
    auto out = empty(count);
    c.all_reduce(own.read(), out.span(), reduction);
    expect(out, wanted, "all_reduce " + name);
    auto in_place = place(in[mine]);
    c.all_reduce(in_place.span(), reduction);
    expect(in_place, wanted, "all_reduce in place " + name);

    const std::size_t part = count / ranks;
    const auto begin = wanted.begin() + static_cast<std::ptrdiff_t>(part * mine);
    const std::vector<E> wanted_part(begin, begin + static_cast<std::ptrdiff_t>(part));
    auto scattered = empty(part);
    c.reduce_scatter(own.read().first(part * ranks), scattered.span(), reduction);
    expect(scattered, wanted_part, "reduce_scatter " + name);

    // Rank r gets a share that grows with r; the last one the rest; rank 1 nothing.
    std::vector<std::size_t> counts(ranks, 0);
    std::size_t given = 0;
    for (std::size_t r = 0; r + 1 < ranks; ++r) given += counts[r] = r == 1 ? 0 : count * (r + 1) / (ranks * ranks + 1);
    counts.back() = count - given;
    const std::size_t skip = std::accumulate(counts.begin(), counts.begin() + me, std::size_t{0});
    auto uneven_part = empty(counts[mine]);
    c.reduce_scatter(own.read(), uneven_part.span(), counts, reduction);
    const auto uneven = wanted.begin() + static_cast<std::ptrdiff_t>(skip);
    expect(uneven_part, {uneven, uneven + static_cast<std::ptrdiff_t>(counts[mine])}, "uneven reduce_scatter " + name);

    auto gathered = empty(count);
    c.all_gather(uneven_part.read(), gathered.span(), counts);
    expect(gathered, wanted, "uneven all_gather " + name);
  }

  std::vector<E> all;
  for (const auto& part : in) all.insert(all.end(), part.begin(), part.end());
  auto out = empty(count * ranks);
  c.all_gather(own.read(), out.span());
  expect(out, all, "all_gather");

  for (int root = 0; root < n; ++root) {
    auto data = place(in[mine]);
    c.broadcast(data.span(), Root{root});
    expect(data, in[static_cast<std::size_t>(root)], "broadcast");
  }

  // Rank i sends (i * 7 + j * 3) % 5 * count / 8 elements to rank j: zeros among them.
  const auto sends = [&](int i, int j) { return static_cast<std::size_t>((i * 7 + j * 3) % 5) * count / 8; };
  std::vector<std::size_t> send_counts, recv_counts;
  std::vector<E> to_send, wanted;
  for (int peer = 0; peer < n; ++peer) {
    send_counts.push_back(sends(me, peer));
    recv_counts.push_back(sends(peer, me));
    for (std::size_t i = 0; i < sends(me, peer); ++i) to_send.push_back(element<E>(seed + 1 + mine, peer, i));
    for (std::size_t i = 0; i < sends(peer, me); ++i) {
      wanted.push_back(element<E>(seed + 1 + static_cast<std::uint64_t>(peer), me, i));
    }
  }
  auto sent = place(to_send), received = empty(wanted.size());
  c.all_to_all(sent.read(), send_counts, received.span(), recv_counts);
  expect(received, wanted, "all_to_all");

  // A ring of messages: the even ones send first.
  if (n > 1) {
    const int next = (me + 1) % n, previous = (me + n - 1) % n;
    auto message = empty(count);
    if (me % 2 == 0) c.send(own.read(), next);
    c.recv(message.span(), previous);
    if (me % 2 == 1) c.send(own.span(), next);
    expect(message, in[static_cast<std::size_t>(previous)], "ring");
  }
  c.barrier();
  return wrong;
}

}  // namespace troika::test
