// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <troika/device/weight.hpp>
#include <troika/layers/linear.hpp>

namespace troika {

// down(act(gate(x)) * up(x))
template <Device D>
struct GatedMlp {
  GatedColumnParallelLinear<D> gate_up;
  RowParallelLinear<D> down;
};

namespace detail {
struct SameAlready {
  void operator()(const auto&) const {}
};
}  // namespace detail

// A mixture of experts (arXiv 2101.03961): a router gives each token to a few of many gated MLPs and weighs their
// answers. Replicate -> Partial.
//
// Every rank holds its part of the inner features of every expert, not some of the experts whole. Both need one
// reduction, and none before it, as each rank has all of the hidden state and the small router. But which experts the
// tokens of a step ask for is chance: with whole experts, the rank that holds most of them is waited for, whereas a
// part of each is the same work on every rank, whatever is asked for.
template <Device D>
class Experts {
 public:
  static constexpr std::string_view name = "experts";

  Experts() = default;
  // router: (experts, in), whole on every rank. Each token goes to `used` experts; with `normalized` their weights add
  // up to 1, and otherwise all experts' do.
  Experts(Weight<D> router, std::vector<GatedMlp<D>> experts, std::int64_t used, bool normalized)
      : router_(std::move(router)), experts_(std::move(experts)), used_(used), normalized_(normalized) {
    const auto count = static_cast<std::int64_t>(experts_.size());
    expects(router_.shape().dims() == 2 && router_.shape()[0] == count, [&] {
      return "a router of " + router_.shape().to_string() + " for " + std::to_string(count) + " experts";
    });
    expects(used_ >= 1 && used_ <= count, [&] {
      return "each token takes 1 to " + std::to_string(count) + " experts, not " + std::to_string(used_);
    });
  }

  // make_same(DTensor<float, Replicate, D>&) is called with the scores of the experts where ranks might round them
  // differently: all have to choose the same.
  template <class S, class MakeSame = detail::SameAlready>
  DTensor<float, Partial, D> operator()(const DTensor<float, Replicate, D>& x, S& stream,
                                        MakeSame make_same = {}) const {
    auto& device = stream.device();
    const std::int64_t tokens = x.shape()[0], width = x.shape()[1];
    DTensor<float, Replicate, D> scores(Tensor<float, D>(device, {tokens, router_.shape()[0]}));
    Tensor<float, D> weights(device, {tokens, used_});
    Tensor<std::int32_t, D> chosen(device, {tokens, used_}), rows(device, {tokens});
    router_.visit([&](auto w) { linear(stream, x.local(), w, scores.local()); });
    make_same(scores);
    choose_experts(stream, std::as_const(scores).local(), normalized_, chosen.view(), weights.view());

    // One sum for each piece of the inner features: they are branches of the tree over all ranks.
    const auto pieces = experts_[0].down.pieces();
    Tensor<float, D> sums(device, {pieces, tokens, width});
    fill_zero(stream, sums.view());
    Tensor<float, D> share(device, {tokens});
    const auto chosen_here = read_back(stream, chosen.view());
    const auto weights_here = read_back(stream, weights.view());
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      // In the order of the tokens: which tokens are in a batch changes no bit of another's sum.
      const auto asks = [&](std::size_t i) { return chosen_here.span()[i] == static_cast<std::int32_t>(e); };
      const auto all = chosen_here.span().size();
      std::int64_t count = 0;
      for (std::size_t i = 0; i < all; ++i) count += asks(i);
      if (count == 0) continue;
      fill_on_host(stream, rows.view().rows(0, count), [&](std::span<std::int32_t> to) {
        for (std::size_t i = 0, at = 0; i < all; ++i)
          if (asks(i)) to[at++] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) / used_);
      });
      fill_on_host(stream, share.view().rows(0, count), [&](std::span<float> to) {
        for (std::size_t i = 0, at = 0; i < all; ++i)
          if (asks(i)) to[at++] = weights_here.span()[i];
      });
      const auto some = std::as_const(rows).view().rows(0, count).span();
      Tensor<float, D> input(device, {count, width});
      gather_rows(stream, x.local(), some, input.view());
      const auto& expert = experts_[e];
      const auto inner = expert.gate_up(DTensor<float, Replicate, D>(std::move(input)), stream);
      const auto output = expert.down.products_of(inner.local(), stream);
      for (std::int64_t i = 0; i < pieces; ++i) {
        add_rows(stream, output.view().rows(i, i + 1).reshaped({count, width}), some,
                 std::as_const(share).view().rows(0, count).span(),
                 sums.view().rows(i, i + 1).reshaped({tokens, width}));
      }
    }
    if (pieces == 1) return DTensor<float, Partial, D>(std::move(sums).reshaped({tokens, width}));
    Tensor<float, D> sum(device, {tokens, width});
    add_products(stream, std::as_const(sums).view(), sum.view());
    return DTensor<float, Partial, D>(std::move(sum));
  }

 private:
  Weight<D> router_;
  std::vector<GatedMlp<D>> experts_;
  std::int64_t used_ = 1;
  bool normalized_ = true;
};

}  // namespace troika
