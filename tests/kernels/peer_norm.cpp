// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/norm_truth.hpp>
#include <kernels/peer_norm.cuh>
#include <kernels/peer_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

struct Case {
  bool two_shot;
  int world;
  std::int64_t rows, d;
  int blocks = 1;
};

// What may happen between two sums: the input gets the values of the next, and the staging is used for others.
void produce(const float* values, float* in, float* staging, std::int64_t count) {
  for (std::int64_t i = threadIdx.x; i < count; i += 32) {
    in[i] = values[i];
    staging[i] = -1;
  }
}

// Some rounds over ranks that are streams of one machine. The residual goes on from round to round.
class Ranks {
 public:
  static constexpr int rounds = 2;
  explicit Ranks(const Case& c) : case_(c), count_(static_cast<std::size_t>(c.rows * c.d)) {
    const auto all = static_cast<std::size_t>(case_.world);
    signals_.resize(all, cuda::Signal{});
    for (std::size_t r = 0; r < all; ++r) {
      in_.emplace_back(count_);
      staging_.emplace_back(count_);
      residual_.emplace_back(numbers(count_, 50));
      weight_.emplace_back(numbers(static_cast<std::size_t>(case_.d), 60));
      for (int round = 0; round < rounds; ++round) {
        values_.emplace_back(numbers(count_, 10 * static_cast<std::uint64_t>(round) + r));
        y_.emplace_back(count_);
      }
    }
  }

  void launch(Machine& machine, std::size_t r, int round) {
    cuda::Peers<float> peers{static_cast<int>(r), case_.world, patience, nullptr, {}, {}, {}};
    for (std::size_t i = 0; i < signals_.size(); ++i) {
      peers.in[i] = in_[i].data();
      peers.staging[i] = staging_[i].data();
      peers.signals[i] = &signals_[i];
    }
    const auto stream = machine.stream(static_cast<int>(r));
    const float* const values = values_[at(r, round)].data();
    cuda::launch(produce, dim3{}, 32, stream, values, in_[r].data(), staging_[r].data(), case_.rows * case_.d);
    const auto kernel = case_.two_shot ? cuda::all_reduce_norm_two_shot : cuda::all_reduce_norm_one_shot;
    kernel(peers, arguments(r, round), case_.blocks, stream);
  }

  bool right(Machine& machine) {
    for (std::size_t r = 0; r < signals_.size(); ++r) {
      for (int round = 0; round < rounds; ++round) launch(machine, r, round);
    }
    machine.run();
    auto residual = numbers(count_, 50);
    bool all = true;
    for (int round = 0; round < rounds; ++round) {
      const auto sum = sums(round);
      const auto y = norm_of(sum, residual);
      for (std::size_t i = 0; i < count_; ++i) residual[i] += sum[i];
      for (std::size_t r = 0; r < signals_.size(); ++r)
        all = all && y_[at(r, round)].intact() && same(y_[at(r, round)], y);
    }
    for (std::size_t r = 0; r < signals_.size(); ++r) {
      all = all && residual_[r].intact() && same(residual_[r], residual) && in_[r].intact() && staging_[r].intact() &&
            signals_[r].late == 0;
    }
    return all;
  }

  std::vector<cuda::Signal>& signals() { return signals_; }

 private:
  static constexpr std::uint64_t patience = 60'000;

  std::size_t at(std::size_t r, int round) const { return r * rounds + static_cast<std::size_t>(round); }
  cuda::NormArguments arguments(std::size_t r, int round) {
    return {nullptr, residual_[r].data(), weight_[r].data(), nullptr, y_[at(r, round)].data(), case_.rows, case_.d,
            1e-5f};
  }
  std::vector<float> sums(int round) {
    std::vector<float> result(count_);
    std::vector<std::vector<float>> terms;
    for (std::size_t r = 0; r < signals_.size(); ++r) terms.push_back(values_[at(r, round)].values());
    for (std::size_t i = 0; i < count_; ++i) {
      std::vector<float> of_ranks;
      for (const auto& term : terms) of_ranks.push_back(term[i]);
      result[i] = truth::sum_over_ranks(of_ranks);
    }
    return result;
  }
  // The kernel without peers has the same bits, and its own truth.
  std::vector<float> norm_of(const std::vector<float>& sum, const std::vector<float>& residual) {
    Memory<float> x(sum), copy(residual), y(count_);
    Machine machine;
    cuda::rms_norm({x.data(), copy.data(), weight_[0].data(), nullptr, y.data(), case_.rows, case_.d, 1e-5f},
                   machine.stream(0));
    machine.run();
    const auto d = static_cast<std::size_t>(case_.d);
    const auto weight = weight_[0].values(), result = y.values();
    for (std::size_t row = 0; row < static_cast<std::size_t>(case_.rows); ++row) {
      const auto expected = truth::norm(false, std::span(sum).subspan(row * d, d),
                                        std::span(residual).subspan(row * d, d), weight, {}, 1e-5);
      const std::vector<float> got(result.begin() + static_cast<std::ptrdiff_t>(row * d),
                                   result.begin() + static_cast<std::ptrdiff_t>((row + 1) * d));
      CHECK(wrong(got, expected, 2e-6) == 0);
    }
    return result;
  }
  static bool same(Memory<float>& memory, const std::vector<float>& expected) {
    const auto values = memory.values();
    return values.size() == expected.size() &&
           std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)) == 0;
  }

  Case case_;
  std::size_t count_;
  std::vector<cuda::Signal> signals_;
  std::vector<Memory<float>> in_, staging_, residual_, weight_, values_, y_;
};

}  // namespace

TEST_CASE("a sum over peers with residual and norm has the bits of the three one after the other") {
  for (const bool two_shot : {false, true}) {
    for (const int world : {1, 2, 3, 4, 8}) {
      for (const auto& [rows, d, blocks] :
           {std::tuple{1, 3, 1}, {5, 4, 2}, {4, 31, 1}, {3, 2080, 2}, {7, 36, 3}, {2, 1, 4}}) {
        for (const auto& schedule : schedules()) {
          if (d > 100 && schedule.order != Schedule::Order::random) continue;
          CAPTURE(two_shot, world, rows, d, static_cast<int>(schedule.order));
          Machine machine(schedule);
          CHECK(Ranks({two_shot, world, rows, d, blocks}).right(machine));
        }
      }
    }
  }
}

TEST_CASE("a sum over peers with residual and norm needs each of its barriers") {
  for (const bool two_shot : {false, true}) {
    CAPTURE(two_shot);
    CHECK(misses_every_barrier([&](Machine& machine) { return Ranks({two_shot, 3, 3, 700}).right(machine); }));
  }
}

TEST_CASE("a sum over peers with residual and norm names a rank that does not come") {
  for (const bool two_shot : {false, true}) {
    for (const auto& schedule : schedules()) {
      Machine machine(schedule);
      Ranks ranks({two_shot, 3, 2, 40});
      for (const std::size_t r : {0u, 2u}) {
        for (int round = 0; round < Ranks::rounds; ++round) ranks.launch(machine, r, round);
      }
      machine.run();
      for (const std::size_t r : {0u, 2u}) CHECK(ranks.signals()[r].late == 2);
    }
  }
}

TEST_CASE("a sum over peers with residual and norm refuses what cannot work") {
  Machine machine;
  Memory<float> buffer(std::size_t{8}), odd(std::size_t{8}, 1);
  cuda::Signal signal{};
  const cuda::Peers<float> peers{0, 1, 1000, nullptr, {buffer.data()}, {buffer.data()}, {&signal}};
  const auto refuses = [&](cuda::NormArguments a, int blocks = 1) {
    CHECK_THROWS_AS(cuda::all_reduce_norm_one_shot(peers, a, blocks, machine.stream(0)), Error);
    CHECK_THROWS_AS(cuda::all_reduce_norm_two_shot(peers, a, blocks, machine.stream(0)), Error);
  };
  float* const at = buffer.data();
  refuses({nullptr, odd.data(), at, nullptr, at, 1, 8, 0});
  refuses({nullptr, at, odd.data(), nullptr, at, 1, 8, 0});
  refuses({nullptr, at, at, nullptr, odd.data(), 1, 8, 0});
  refuses({nullptr, at, at, at, at, 1, 8, 0});
  refuses({nullptr, at, at, nullptr, at, 1, 0, 0});
  refuses({nullptr, at, at, nullptr, at, 1, 8, 0}, 65);
}
