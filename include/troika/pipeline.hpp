// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/communication/transport.hpp>
#include <troika/core/lane.hpp>
#include <troika/core/partition.hpp>
#include <troika/observe/trace.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

// The stage that moves a tensor to placement P: the only place in a pipeline where bytes move between ranks.
//   to<Replicate>             to<Shard<0>>              split by the pipeline's shares
//   to<Shard<0>>(partition)   split as the caller says
template <Placement P>
struct To {
  using placement = P;
  struct By {
    using placement = P;
    Partition partition;
  };
  By operator()(Partition partition) const requires is_shard<P> { return {std::move(partition)}; }
};
template <Placement P>
inline constexpr To<P> to{};

// The stage after which all copies of a Replicate tensor are the same bits, also where ranks of a mixed scheduler
// computed them each for itself: all take rank 0's. Among devices of one kind they are, and nothing moves. For what is
// added to the hidden state, or decides.
struct SameReplicas {
  bool needed = true;  // false: nothing was computed since the copies were the same
};
inline constexpr SameReplicas same_replicas{};

// y = x + stages(x): the stages must end on the placement they began with.
template <class... Stages>
struct Residual {
  std::tuple<Stages...> stages;
};
// Lvalue stages are referred to, not copied: layers own memory.
template <class... Stages>
Residual<Stages...> residual(Stages&&... stages) {
  return {std::tuple<Stages...>(std::forward<Stages>(stages)...)};
}

namespace detail {
template <class T>
inline constexpr bool is_to = false;
template <Placement P>
inline constexpr bool is_to<To<P>> = true;
template <class T>
inline constexpr bool is_to_by = requires(T by) {
  requires std::same_as<T, typename To<typename T::placement>::By>;
};
template <class T>
inline constexpr bool is_residual = false;
template <class... S>
inline constexpr bool is_residual<Residual<S...>> = true;

template <class Stage>
constexpr std::string_view stage_name() {
  if constexpr (requires {
                  { std::remove_cvref_t<Stage>::name } -> std::convertible_to<std::string_view>;
                }) {
    return std::remove_cvref_t<Stage>::name;
  } else {
    return "stage";
  }
}

// What a fold of misplaced stages gives: it ends the error messages after the first.
struct Misplaced {};
}  // namespace detail

// Composes the three components on one rank. A stage is any callable that takes a tensor in one placement, and the
// stream, and gives one in another. run() folds the stages from left to right; a stage that does not accept the
// placement before it does not compile. One thread a rank; all ranks construct and run the same pipelines in the same
// order.
template <class TaskScheduler, class DataSync, class Communication>
class Pipeline {
 public:
  using Device = typename Communication::Device;
  using Stream = typename Device::Stream;
  static constexpr bool mixed = TaskScheduler::mixed;  // ranks have devices of several kinds

  // Collective: the ranks agree on the shares that rank 0's scheduler states now.
  Pipeline(TaskScheduler& scheduler, DataSync& sync, Communication& communication)
      : scheduler_(&scheduler),
        sync_(&sync),
        communication_(&communication),
        stream_(communication.device()),
        shares_{std::vector<double>(static_cast<std::size_t>(communication.world_size()), 1.0)} {
    if (Trace* trace = scheduler.trace()) track_ = &trace->track(communication.world_rank(), Lane::compute);
    if constexpr (requires { device().options().invariant; }) shares_.invariant = device().options().invariant;
    rebalance();
  }

  int rank() const { return communication_->rank(); }
  int world_size() const { return communication_->world_size(); }
  Device& device() { return stream_.device(); }
  Stream& stream() { return stream_; }
  TaskScheduler& scheduler() { return *scheduler_; }
  DataSync& sync() { return *sync_; }
  Communication& communication() { return *communication_; }
  Trace::Track* track() const { return track_; }

  // Collective: asks the allocation again, for the partitions made from here on. Layers keep the split they were made
  // with.
  void rebalance() {
    auto wanted = scheduler_->shares();
    if (wanted.size() != shares_.weights.size()) return;  // a sub-group of the devices splits evenly
    wanted.push_back(shares_.invariant);
    communication_->broadcast(std::span(reinterpret_cast<std::uint8_t*>(wanted.data()), wanted.size() * sizeof(double)),
                              Root{0});
    expects((wanted.back() != 0) == shares_.invariant, "all devices of a pipeline are invariant, or none is");
    wanted.pop_back();
    shares_.weights = std::move(wanted);
  }
  const Shares& shares() const { return shares_; }
  // How this pipeline splits `extent` indices in whole blocks of `align`; the same on every rank.
  Partition partition(std::int64_t extent, std::int64_t align = 1) const { return shares_.partition(extent, align); }

  // A tensor that every rank holds, from values in host memory that are the same on every rank.
  template <class T>
  auto replicate(View<T> host) {
    using Value = std::remove_const_t<T>;
    Tensor<Value, Device> local(stream_.device(), host.shape());
    upload(stream_, View<const Value>(host), local.view());
    return DTensor<Value, Replicate, Device>(std::move(local));
  }

  // The value of the last stage. An rvalue x is handed to the first stage, an lvalue is only read.
  template <class X, class... Stages>
  auto run(X&& x, Stages&&... stages) {
    static_assert(sizeof...(Stages) > 0, "a pipeline needs at least one stage");
    return fold(std::forward<X>(x), std::forward<Stages>(stages)...);
  }

 private:
  // A stage may do what comes before it or after it together with itself: next.gathered(pipeline, x) where x comes to it by
  // to<Replicate>, stage.then(pipeline, x, next).
  template <class X, class Stage, class Next, class... Rest>
  requires(std::same_as<std::remove_cvref_t<Stage>, To<Replicate>>&& requires(
      Pipeline& pipeline, X&& x, const std::remove_reference_t<Next>& next) {
    next.gathered(pipeline, x);
  }) auto fold(X&& x, Stage&&, Next&& next, Rest&&... rest) {
    return fold_on(next.gathered(*this, x), std::forward<Rest>(rest)...);
  }
  template <class X, class Stage, class Next, class... Rest>
  requires requires(Pipeline& pipeline, X&& x, const std::remove_reference_t<Stage>& stage, Next&& next) {
    stage.then(pipeline, x, next);
  }
  auto fold(X&& x, Stage&& stage, Next&& next, Rest&&... rest) {
    return fold_on(stage.then(*this, x, next), std::forward<Rest>(rest)...);
  }
  template <class X, class... Rest>
  auto fold_on(X&& x, Rest&&... rest) {
    if constexpr (sizeof...(Rest) == 0)
      return std::forward<X>(x);
    else
      return fold(std::forward<X>(x), std::forward<Rest>(rest)...);
  }
  template <class X, class Stage, class... Rest>
  auto fold(X&& x, Stage&& stage, Rest&&... rest) {
    using Result = decltype(apply(std::forward<X>(x), stage));
    if constexpr (std::same_as<Result, detail::Misplaced>) {
      static_assert(!std::same_as<Result, detail::Misplaced>,
                    "this stage does not accept this placement: put troika::to<...> before it");
      return detail::Misplaced{};
    } else if constexpr (sizeof...(Rest) == 0) {
      return apply(std::forward<X>(x), stage);
    } else {
      return fold(apply(std::forward<X>(x), stage), std::forward<Rest>(rest)...);
    }
  }

  template <class X, class Stage>
  auto apply(X&& x, Stage& stage) {
    using Plain = std::remove_const_t<Stage>;
    if constexpr (detail::is_to<Plain>) {
      using To = typename Plain::placement;
      if constexpr (is_shard<To>) {
        expects(shard_dim<To> < x.shape().dims(), [&] {
          return "a tensor of shape " + x.shape().to_string() + " has no dimension for " + placement_name<To>();
        });
        return move_to<To>(std::forward<X>(x), partition(x.shape()[shard_dim<To>]));
      } else {
        return sync_->template redistribute<To>(owned(std::forward<X>(x)), stream_);
      }
    } else if constexpr (detail::is_to_by<Plain>) {
      return move_to<typename Plain::placement>(std::forward<X>(x), stage.partition);
    } else if constexpr (detail::is_residual<Plain>) {
      return apply_residual(std::forward<X>(x), stage);
    } else if constexpr (std::same_as<Plain, SameReplicas>) {
      auto y = owned(std::forward<X>(x));
      if (stage.needed) MakeSame{this}(y);
      return y;
    } else if constexpr (mixed && std::invocable<Stage&, X&&, Stream&, MakeSame>) {
      const Span span(track_, detail::stage_name<Stage>());
      return stage(std::forward<X>(x), stream_, MakeSame{this});
    } else if constexpr (std::invocable<Stage&, X&&, Stream&>) {
      const Span span(track_, detail::stage_name<Stage>());
      return stage(std::forward<X>(x), stream_);
    } else if constexpr (std::invocable<Stage&, X&&>) {
      const Span span(track_, detail::stage_name<Stage>());
      return stage(std::forward<X>(x));
    } else {
      return detail::Misplaced{};
    }
  }

  // All take rank 0's copy where copies may differ. A stage that decides by what it computed takes this as an argument.
  struct MakeSame {
    Pipeline* pipeline;
    template <Element T, Placement P>
    void operator()(DTensor<T, P, Device>& x) const {
      if constexpr (mixed && std::same_as<P, Replicate>) pipeline->communication_->broadcast(x.local().span(), Root{0});
    }
  };

  template <Placement To, class X>
  auto move_to(X&& x, const Partition& target) {
    return sync_->template redistribute<To>(owned(std::forward<X>(x)), stream_, &target);
  }

  template <class X, class... Stages>
  auto apply_residual(X&& x, const Residual<Stages...>& residual) {
    auto y = std::apply([&](auto&... stages) { return fold(std::as_const(x), stages...); }, residual.stages);
    if constexpr (std::same_as<decltype(y), detail::Misplaced>) {
      return y;
    } else {
      static_assert(std::same_as<decltype(y), std::remove_cvref_t<X>>,
                    "the stages of a residual must end on the placement they began with: put troika::to<...> last");
      const Span span(track_, "residual");
      add(stream_, std::as_const(x).local(), std::as_const(y).local(), y.local());
      return y;
    }
  }

  // A redistribution consumes its tensor; one that the caller keeps is copied first.
  template <Element T, Placement P>
  DTensor<T, P, Device> owned(DTensor<T, P, Device>&& x) {
    return std::move(x);
  }
  template <Element T, Placement P>
  DTensor<T, P, Device> owned(const DTensor<T, P, Device>& x) {
    Tensor<T, Device> local(stream_.device(), x.local().shape());
    copy(stream_, x.local(), local.view());
    if constexpr (is_shard<P>)
      return DTensor<T, P, Device>(std::move(local), x.partition(), rank());
    else
      return DTensor<T, P, Device>(std::move(local));
  }

  TaskScheduler* scheduler_;
  DataSync* sync_;
  Communication* communication_;
  Stream stream_;
  Shares shares_;
  Trace::Track* track_ = nullptr;
};

}  // namespace troika
