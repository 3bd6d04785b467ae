// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <type_traits>
#include <utility>

#include <troika/layers/norm.hpp>
#include <troika/observe/trace.hpp>
#include <troika/pipeline.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

// What goes from layer to layer of a block that has its norms before them: the hidden state, which each layer adds to,
// and what the norm of the next layer made of it.
template <HoldsWholeTokens P, Device D>
struct Normed {
  DTensor<float, P, D> hidden, normed;
};

namespace detail {
// x.hidden += sum, x.normed = next(x.hidden).
template <class Pipeline, HoldsWholeTokens P, Device D>
void add_sum(Pipeline& pipeline, Normed<P, D>& x, DTensor<float, P, D> sum, const Norm<D>& next) {
  auto& stream = pipeline.stream();
  const Span span(pipeline.track(), "residual");
  if (const auto* const rms = next.rms()) {
    add_rms_norm(stream, std::as_const(sum).local(), x.hidden.local(), rms->weight(), rms->eps(), sum.local());
    x.normed = std::move(sum);
  } else {
    add(stream, std::as_const(x.hidden).local(), std::as_const(sum).local(), x.hidden.local());
    if (!next.empty()) x.normed = next(std::as_const(x.hidden), stream);
  }
}
// Whether sum, residual and norm are one operation.
template <class Pipeline, HoldsWholeTokens P>
inline constexpr bool adds_in_one = std::same_as<P, Replicate>&&
    std::remove_cvref_t<decltype(std::declval<Pipeline&>().communication())>::has_all_reduce_norm;
}  // namespace detail

// x.hidden += post(y summed over the ranks), x.normed = next(x.hidden): to<P>, post, residual and next. Where the
// transport has it (HasAllReduceNorm) one operation, else the last two are, with the same bits. Without a `next`
// x.normed is of no use after this.
template <class Pipeline, HoldsWholeTokens P, Device D>
void add_to(Pipeline& pipeline, Normed<P, D>& x, DTensor<float, Partial, D> y, const Norm<D>& post,
            const Norm<D>& next) {
  if constexpr (detail::adds_in_one<Pipeline, P>) {
    if (const auto* const rms = next.rms(); rms && post.empty()) {
      auto sum = std::move(y).release();
      pipeline.communication().all_reduce_norm(sum.span(), x.hidden.local().span(), rms->weight(), rms->eps());
      x.normed = DTensor<float, P, D>(std::move(sum));
      return;
    }
  }
  detail::add_sum(pipeline, x, pipeline.run(std::move(y), to<P>, post, SameReplicas{!post.empty()}), next);
}

// The same for y = last(from), where the device may have rows of it summed while it computes others.
template <class Pipeline, HoldsWholeTokens P, Placement From, Device D, class Last>
void add_to(Pipeline& pipeline, Normed<P, D>& x, DTensor<float, From, D> from, const Last& last, const Norm<D>& post,
            const Norm<D>& next) {
  if constexpr (requires { last.then(pipeline, from, to<P>); }) {
    if constexpr (detail::adds_in_one<Pipeline, P>) {
      if (const auto* const rms = next.rms(); rms && post.empty()) {
        x.normed = DTensor<float, P, D>(last.summed(pipeline, from, [&](View<float> y, Range rows) {
          const auto hidden = x.hidden.local().rows(rows.begin, rows.end);
          pipeline.communication().all_reduce_norm(y.span(), hidden.span(), rms->weight(), rms->eps());
        }));
        return;
      }
    }
    detail::add_sum(pipeline, x, pipeline.run(std::move(from), last, to<P>, post, SameReplicas{!post.empty()}), next);
  } else {
    add_to(pipeline, x, pipeline.run(std::move(from), last), post, next);
  }
}

}  // namespace troika
