// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/spmd.hpp>

using troika::DTensor;
using troika::HostDevice;
using troika::Partial;
using troika::Partition;
using troika::Placement;
using troika::Replicate;
using troika::Shape;
using troika::Shard;
using troika::Tensor;

namespace {

// The whole tensor that all placements below describe: element i is i.
std::vector<float> whole(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.count()));
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

// The elements of `values` whose index along dim is in range, by looking at every index.
std::vector<float> naive_slice(const std::vector<float>& values, const Shape& shape, int dim, troika::Range range) {
  std::vector<float> slice;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i) / shape.inner(dim) % shape[dim];
    if (index >= range.begin && index < range.end) slice.push_back(values[i]);
  }
  return slice;
}

template <Placement P>
DTensor<float, P, HostDevice> place(HostDevice& device, const Shape& shape, const Partition& split, int rank,
                                    int world) {
  auto values = whole(shape);
  if constexpr (troika::is_shard<P>) {
    constexpr int dim = troika::shard_dim<P>;
    const auto slice = naive_slice(values, shape, dim, split[rank]);
    Tensor<float, HostDevice> local(device, shape.with(dim, split[rank].size()));
    std::copy(slice.begin(), slice.end(), local.data());
    return {std::move(local), split, rank};
  } else {
    if constexpr (std::same_as<P, Partial>) {  // terms that are not alike and add up
      for (std::size_t i = 0; i < values.size(); ++i) {
        const auto skew = static_cast<float>(i % 13);
        const auto others = static_cast<float>(world * (world - 1) / 2);
        values[i] = rank == 0 ? values[i] - skew * others : skew * static_cast<float>(rank);
      }
    }
    Tensor<float, HostDevice> local(device, shape);
    std::copy(values.begin(), values.end(), local.data());
    return DTensor<float, P, HostDevice>(std::move(local));
  }
}

template <Placement P>
Partition split_of(const Shape& shape, int world, bool uneven) {
  if constexpr (troika::is_shard<P>) {
    const auto extent = shape[troika::shard_dim<P>];
    return uneven ? Partition::weighted(extent, uneven_weights(world)) : Partition::even(extent, world);
  } else {
    return {};
  }
}

// What every rank holds after `redistribute`, compared with the naive slices of the whole.
template <Placement From, Placement To>
bool moves(int world, const Shape& shape, bool uneven) {
  const auto from = split_of<From>(shape, world, uneven), to = split_of<To>(shape, world, !uneven);
  const auto locals = spmd(world, [&](auto& pipeline) {
    auto x = place<From>(pipeline.device(), shape, from, pipeline.rank(), world);
    const auto y = pipeline.sync().template redistribute<To>(std::move(x), pipeline.stream(),
                                                             troika::is_shard<To> ? &to : nullptr);
    if (y.shape() != shape) return std::vector<float>{-1};
    const auto span = y.local().span();
    return std::vector<float>(span.begin(), span.end());
  });
  const auto values = whole(shape);
  std::vector<float> sum(values.size(), 0.0f);
  for (int rank = 0; rank < world; ++rank) {
    const auto& local = locals[static_cast<std::size_t>(rank)];
    if constexpr (troika::is_shard<To>) {
      if (local != naive_slice(values, shape, troika::shard_dim<To>, to[rank])) return false;
    } else if constexpr (std::same_as<To, Replicate>) {
      if (local != values) return false;
    } else {
      if (local.size() != values.size()) return false;
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += local[i];
    }
  }
  return !std::same_as<To, Partial> || sum == values;
}

template <Placement From, Placement... To>
void check_moves(int world, const Shape& shape, bool uneven) {
  (
      [&] {
        INFO(troika::placement_name<From>() << " -> " << troika::placement_name<To>() << " of " << shape.to_string()
                                            << " on " << world << " ranks" << (uneven ? ", uneven" : ""));
        CHECK(moves<From, To>(world, shape, uneven));
      }(),
      ...);
}

}  // namespace

TEST_CASE("every placement moves to every other and the tensor stays the same") {
  for (const int world : test_worlds) {
    for (const bool uneven : {false, true}) {
      const Shape shape{7, 5, 6};
      check_moves<Replicate, Replicate, Partial, Shard<0>, Shard<1>, Shard<2>>(world, shape, uneven);
      check_moves<Partial, Replicate, Partial, Shard<0>, Shard<1>, Shard<2>>(world, shape, uneven);
      check_moves<Shard<0>, Replicate, Partial, Shard<0>, Shard<1>, Shard<2>>(world, shape, uneven);
      check_moves<Shard<1>, Replicate, Partial, Shard<0>, Shard<1>, Shard<2>>(world, shape, uneven);
      check_moves<Shard<2>, Replicate, Partial, Shard<0>, Shard<1>, Shard<2>>(world, shape, uneven);
    }
  }
}

TEST_CASE("tensors with fewer rows than ranks, and none at all, move too") {
  for (const int world : {3, 8}) {
    check_moves<Partial, Replicate, Shard<0>, Shard<1>>(world, {2, 3}, false);
    check_moves<Shard<0>, Replicate, Shard<1>>(world, {2, 3}, true);
    check_moves<Shard<1>, Replicate, Shard<0>>(world, {1, 17}, false);
    check_moves<Partial, Replicate, Shard<0>>(world, {0, 4}, false);
  }
}

TEST_CASE("a partition that does not fit is refused on every rank") {
  const auto messages = spmd(3, [](auto& pipeline) {
    const auto wrong = Partition::even(6, 3);
    auto x = place<Replicate>(pipeline.device(), {7, 2}, {}, pipeline.rank(), 3);
    try {
      (void)pipeline.sync().template redistribute<Shard<0>>(std::move(x), pipeline.stream(), &wrong);
    } catch (const troika::Error& error) {
      return std::string(error.what());
    }
    return std::string();
  });
  for (const auto& message : messages)
    CHECK_THAT(message, Catch::Matchers::ContainsSubstring("does not split 7 indices over 3"));
}

TEST_CASE("replicas that agree pass, and verify names the rank that differs") {
  for (const int world : test_worlds) {
    const int culprit = world - 1;
    const auto results = spmd(world, [&](auto& pipeline) {
      auto x = place<Replicate>(pipeline.device(), {9, 31}, {}, pipeline.rank(), world);
      pipeline.sync().verify(x, pipeline.stream(), "weights");
      if (pipeline.rank() == culprit) x.local()[200] = std::nextafter(x.local()[200], 1e9f);  // one bit
      try {
        pipeline.sync().verify(x, pipeline.stream(), "weights");
      } catch (const troika::Error& error) {
        return error.fault() == troika::Fault::mismatch ? error.rank() : -3;
      }
      return -2;
    });
    for (const int rank : results) CHECK(rank == (world == 1 ? -2 : culprit));
  }
}

TEST_CASE("an update reaches every rank as a new version") {
  for (const int world : test_worlds) {
    const auto results = spmd(world, [&](auto& pipeline) {
      troika::Replicated<float, HostDevice> weights("weights", {pipeline.device(), {4, 4}});
      std::vector<float> next(16, static_cast<float>(pipeline.rank()));  // only the root's count
      const troika::Root root{world / 2};
      pipeline.sync().update(weights, troika::View<const float>(next.data(), {4, 4}), root, pipeline.stream());
      pipeline.sync().verify(weights, pipeline.stream());
      const auto snapshot = weights.read();
      return std::pair(snapshot->version, snapshot->values.data()[15]);
    });
    for (const auto& [version, value] : results) {
      CHECK(version == 2);
      CHECK(value == static_cast<float>(world / 2));
    }
  }
}

TEST_CASE("readers on other threads never see half of an update") {
  const int world = 2;
  const auto torn = spmd(world, [&](auto& pipeline) {
    Tensor<float, HostDevice> start(pipeline.device(), {1000});
    std::fill(start.span().begin(), start.span().end(), 1.0f);
    troika::Replicated<float, HostDevice> weights("weights", std::move(start));
    std::atomic<bool> done{false};
    std::atomic<int> bad{0};
    std::thread reader([&] {
      while (!done.load()) {
        const auto snapshot = weights.read();
        for (const float value : snapshot->values.span()) bad += value != static_cast<float>(snapshot->version);
      }
    });
    for (int version = 2; version < 200; ++version) {
      std::vector<float> next(1000, static_cast<float>(version));
      pipeline.sync().update(weights, troika::View<const float>(next.data(), {1000}), troika::Root{0},
                             pipeline.stream());
    }
    done = true;
    reader.join();
    return bad.load();
  });
  CHECK(torn == std::vector<int>{0, 0});
}
