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

// x.hidden += post(y summed over the ranks), x.normed = next(x.hidden): to<P>, post, residual and next. Where the
// transport has it (HasAllReduceNorm) one operation, else the last two are, with the same bits. Without a `next`
// x.normed is of no use after this.
template <class Pipeline, HoldsWholeTokens P, Device D>
void add_to(Pipeline& pipeline, Normed<P, D>& x, DTensor<float, Partial, D> y, const Norm<D>& post,
            const Norm<D>& next) {
  auto& stream = pipeline.stream();
  const auto* const rms = next.rms();
  if constexpr (std::same_as<P, Replicate> &&
                std::remove_cvref_t<decltype(pipeline.communication())>::has_all_reduce_norm) {
    if (rms && post.empty()) {
      auto sum = std::move(y).release();
      pipeline.communication().all_reduce_norm(sum.span(), x.hidden.local().span(), rms->weight(), rms->eps());
      x.normed = DTensor<float, P, D>(std::move(sum));
      return;
    }
  }
  auto sum = pipeline.run(std::move(y), to<P>, post, SameReplicas{!post.empty()});
  const Span span(pipeline.track(), "residual");
  if (rms) {
    add_rms_norm(stream, std::as_const(sum).local(), x.hidden.local(), rms->weight(), rms->eps(), sum.local());
    x.normed = std::move(sum);
  } else {
    add(stream, std::as_const(x.hidden).local(), std::as_const(sum).local(), x.hidden.local());
    if (!next.empty()) x.normed = next(std::as_const(x.hidden), stream);
  }
}

}  // namespace troika
