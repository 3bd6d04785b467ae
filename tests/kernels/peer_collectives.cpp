// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <stdexcept>

#include <kernels/peer_collectives.cuh>
#include <kernels/peer_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

enum class Collective { one_shot, two_shot, two_shot_in_place, reduce_scatter, all_gather, without_exit };

constexpr std::uint64_t patience = 60'000;  // beyond what any schedule needs where all ranks come

// What may happen between two collectives: the input gets the values of the next one, and the staging is used for
// others.
template <class T>
void produce(const T* values, T* in, std::int64_t count, T* staging, std::int64_t staged) {
  for (std::int64_t i = threadIdx.x; i < count; i += 32) in[i] = values[i];
  for (std::int64_t i = threadIdx.x; i < staged; i += 32) staging[i] = T(-1.0f);
}

// A planted bug: a kernel that ends while others still read its rank's input.
template <class T>
void all_reduce_without_exit(cuda::Peers<T> p, T* out, std::int64_t count) {
  const std::uint32_t met = cuda::meetings_so_far(p);
  if (!cuda::meet_at_entry(p, met + 1)) return;
  cuda::for_each_pack<4>(count,
                         [&]<int n>(std::int64_t i) { cuda::store_pack(cuda::reduce_over_ranks<n>(p, i), out + i); });
  if (threadIdx.x == 0) p.signals[p.rank]->meetings[blockIdx.x] = met + 1;
}

// Some rounds of a collective over ranks that are streams of one machine; the kernel of the next round writes to the
// input as soon as it may.
template <class T>
struct Group {
  Group(Collective which, int ranks, std::int64_t elements, std::uint32_t first_meeting = 0)
      : collective(which), world(ranks), count(elements) {
    for (int r = 0; r <= most; ++r) parts.begin[r] = std::min(count, r * ((count + world - 1) / world));
    signals.resize(static_cast<std::size_t>(world));
    for (auto& signal : signals) {
      for (auto& row : signal.arrived) std::fill(std::begin(row), std::end(row), first_meeting);
      std::fill(std::begin(signal.meetings), std::end(signal.meetings), first_meeting);
      signal.late = 0;
    }
    for (int r = 0; r < world; ++r) {
      in.emplace_back(size_of_in(r));
      staging.emplace_back(static_cast<std::size_t>(cuda::two_shot_part<T>(count, world)));
      for (int round = 0; round < rounds; ++round) {
        std::vector<T> some;
        for (const float value : numbers(size_of_in(r), static_cast<std::uint64_t>(100 * round + r), -8, 8))
          some.emplace_back(value);
        values.emplace_back(std::move(some));
        out.emplace_back(size_of_out(r));
      }
    }
  }
  static constexpr int rounds = 3, most = cuda::most_peers;

  std::size_t part(int r) const { return static_cast<std::size_t>(parts.begin[r + 1] - parts.begin[r]); }
  std::size_t size_of_in(int r) const {
    return collective == Collective::all_gather ? part(r) : static_cast<std::size_t>(count);
  }
  std::size_t size_of_out(int r) const {
    return collective == Collective::reduce_scatter ? part(r) : static_cast<std::size_t>(count);
  }
  std::size_t at(int r, int round) const { return static_cast<std::size_t>(r * rounds + round); }

  void launch(Machine& machine, int r, int round) {
    cuda::Peers<T> peers{r, world, patience, nullptr, {}, {}, {}};
    for (int i = 0; i < world; ++i) {
      const auto index = static_cast<std::size_t>(i);
      peers.in[i] = in[index].data();
      peers.staging[i] = staging[index].data();
      peers.signals[i] = &signals[index];
    }
    const auto stream = machine.stream(r);
    auto* const mine = in[static_cast<std::size_t>(r)].data();
    T* const to = out[at(r, round)].data();
    const int blocks = count > 100 ? 2 : 1;
    T* const own_staging = staging[static_cast<std::size_t>(r)].data();
    cuda::launch(produce<T>, dim3{}, 32, stream, static_cast<const T*>(values[at(r, round)].data()), mine,
                 static_cast<std::int64_t>(size_of_in(r)), own_staging, cuda::two_shot_part<T>(count, world));
    switch (collective) {
      case Collective::one_shot: return cuda::all_reduce_one_shot(peers, to, count, blocks, stream);
      case Collective::two_shot: return cuda::all_reduce_two_shot(peers, to, count, blocks, stream);
      case Collective::two_shot_in_place:
        cuda::all_reduce_two_shot(peers, mine, count, blocks, stream);
        return cuda::launch(produce<T>, dim3{}, 32, stream, static_cast<const T*>(mine), to, count, own_staging,
                            std::int64_t{0});
      case Collective::reduce_scatter: return cuda::reduce_scatter(peers, to, parts, blocks, stream);
      case Collective::all_gather: return cuda::all_gather(peers, to, parts, blocks, stream);
      case Collective::without_exit:
        return cuda::launch(all_reduce_without_exit<T>, dim3(static_cast<unsigned>(blocks)), cuda::peer_threads, stream,
                            peers, to, count);
    }
  }

  bool right(Machine& machine) {
    for (int r = 0; r < world; ++r) {
      for (int round = 0; round < rounds; ++round) launch(machine, r, round);
    }
    machine.run();
    bool all = true;
    for (int r = 0; r < world; ++r) {
      for (int round = 0; round < rounds; ++round) {
        auto& memory = out[at(r, round)];
        all = all && memory.intact() && same(memory.values(), expected(r, round));
      }
      auto& mine = in[static_cast<std::size_t>(r)];
      all = all && mine.intact() && staging[static_cast<std::size_t>(r)].intact() &&
            signals[static_cast<std::size_t>(r)].late == 0;
    }
    return all;
  }

  static bool same(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
  }
  std::vector<T> expected(int r, int round) {
    std::vector<T> result;
    if (collective == Collective::all_gather) {
      for (int i = 0; i < world; ++i) {
        const auto piece = values[at(i, round)].values();
        result.insert(result.end(), piece.begin(), piece.end());
      }
      return result;
    }
    std::vector<std::vector<T>> terms;
    for (int i = 0; i < world; ++i) terms.push_back(values[at(i, round)].values());
    const bool scattered = collective == Collective::reduce_scatter;
    const auto first = scattered ? static_cast<std::size_t>(parts.begin[r]) : 0, size = size_of_out(r);
    for (std::size_t i = first; i < first + size; ++i) {
      std::vector<float> of_ranks;
      for (const auto& term : terms) of_ranks.push_back(static_cast<float>(term[i]));
      result.emplace_back(truth::sum_over_ranks(of_ranks));
    }
    return result;
  }

  Collective collective;
  int world;
  std::int64_t count;
  cuda::PeerParts parts{};
  std::vector<cuda::Signal> signals;
  std::vector<Memory<T>> in, staging, values, out;
};

constexpr Collective all_collectives[] = {Collective::one_shot, Collective::two_shot, Collective::two_shot_in_place,
                                          Collective::reduce_scatter, Collective::all_gather};

template <class T>
void check_sizes(std::initializer_list<std::int64_t> sizes) {
  for (const auto collective : all_collectives) {
    for (const int world : {1, 2, 3, 4, 5, 8}) {
      for (const auto count : sizes) {
        for (const auto& schedule : schedules()) {
          if (count > 100 && schedule.order != Schedule::Order::random) continue;
          CAPTURE(static_cast<int>(collective), world, count, static_cast<int>(schedule.order), sizeof(T));
          Machine machine(schedule);
          Group<T> group(collective, world, count);
          CHECK(group.right(machine));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("collectives over peers give every rank the bits of the tree, at every size, round after round") {
  check_sizes<float>({0, 1, 7, 2083});
  check_sizes<bf16>({17, 4099});
  check_sizes<f16>({64});
}

TEST_CASE("meetings are counted past 2^32") {
  for (const auto collective : all_collectives) {
    Machine machine;
    Group<float> group(collective, 3, 50, 0xfffffffcu);
    CHECK(group.right(machine));
  }
}

TEST_CASE("collectives over peers need each of their barriers") {
  for (const auto collective : all_collectives) {
    CAPTURE(static_cast<int>(collective));
    CHECK(misses_every_barrier([&](Machine& machine) { return Group<float>(collective, 3, 1500).right(machine); }));
  }
}

TEST_CASE("a planted bug is seen: a collective without the meeting at its exit") {
  bool seen = false;
  for (const auto& schedule : schedules()) {
    Machine machine(schedule);
    try {
      seen = seen || !Group<float>(Collective::without_exit, 3, 500).right(machine);
    } catch (const std::runtime_error&) {
      seen = true;
    }
  }
  CHECK(seen);
}

TEST_CASE("a rank that does not come is named, and the kernels of the others end") {
  for (const auto collective : all_collectives) {
    for (const auto& schedule : schedules()) {
      Machine machine(schedule);
      Group<float> group(collective, 4, 100);
      for (int r = 0; r < 4; ++r) {
        for (int round = 0; round < 2; ++round) {
          if (r != 2) group.launch(machine, r, round);
        }
      }
      machine.run();
      for (const std::size_t r : {0u, 1u, 3u}) CHECK(group.signals[r].late == 3);
    }
  }
}

TEST_CASE("peers refuse what cannot work") {
  Machine machine;
  Memory<float> buffer(std::size_t{8}), odd(std::size_t{8}, 1);
  cuda::Signal signal{};
  cuda::Peers<float> peers{0, 1, patience, nullptr, {buffer.data()}, {buffer.data()}, {&signal}};
  CHECK_THROWS_AS(cuda::all_reduce_one_shot(peers, odd.data(), 8, 1, machine.stream(0)), Error);
  CHECK_THROWS_AS(cuda::all_reduce_one_shot(peers, buffer.data(), 8, 65, machine.stream(0)), Error);
  peers.world = 9;
  CHECK_THROWS_AS(cuda::all_reduce_one_shot(peers, buffer.data(), 8, 1, machine.stream(0)), Error);
}
