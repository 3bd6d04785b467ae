// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <troika/communication/device_endpoint.hpp>
#include <troika/communication/device_engine.hpp>
#include <troika/communication/fastest_choice.hpp>
#include <troika/communication/fastest_times.hpp>
#include <troika/communication/peer.hpp>
#include <troika/communication/staged_engine.hpp>
#include <troika/communication/transport.hpp>
#include <troika/observe/log.hpp>
#if defined(TROIKA_HAS_NCCL)
#include <troika/communication/nccl.hpp>
#endif

namespace troika {

struct FastestOptions {
  std::chrono::nanoseconds connect_deadline = std::chrono::seconds(60);  // until all ranks have come
  Log log{};  // what was chosen (info), and what was found broken (warning); told by the first rank
  // Known already: nothing is tested or timed then.
  std::optional<FastestChoice> choice{};
  // What was timed by whoever connected the same GPUs before, and for whoever does next; null: it is timed anew.
  std::shared_ptr<FastestTimes> times{};
};

// Connects GPUs by Peer and by NCCL, as far as they are there, tests both with small collectives against what the host
// works out, times them, and lets each collective go the way that the first rank found faster at its size. What does
// not pass the test on a rank is used by none; what is nowhere faster is closed. Groups that are split from this one go
// the same ways, untested.
struct FastestEngine {
  using Options = FastestOptions;

  template <Endpoint Host>
  static std::unique_ptr<DeviceEngine> connect(Host& host, const Call& call, DeviceSite site, Options& options) {
    Engines engines;
    if (site.world_size == 1) options.choice = FastestChoice::only(Way::peer);
    if (options.choice) {
      for (const Way way : {Way::peer, Way::nccl})
        if (options.choice->uses(way)) engines[index(way)] = connect(way, host, call, site);
    } else {
      std::array<Trial, 2> trials;
      for (const Way way : {Way::peer, Way::nccl})
        engines[index(way)] = try_out(way, host, call, site, options.times.get(), trials[index(way)]);
      options.choice = choose(options.log, trials, site);
      for (const Way way : {Way::peer, Way::nccl})
        if (!options.choice->uses(way)) engines[index(way)].reset();
    }
    if (options.choice->uses(Way::host))
      engines[index(Way::host)] = std::make_unique<StagedEngine<Host>>(host.split(call, 0, host.rank()), site);
    return join(std::move(engines), std::move(site), *options.choice);
  }

  // What one rank has found of one way.
  struct Trial {
    bool sound = false, missing = false;  // missing: there is no such way here, and nothing is broken
    std::array<char, 240> trouble{};      // if it is not sound
    FastestChoice::Table<float> seconds{};

    void refuse(const std::exception& error);
  };
  using Engines = std::array<std::unique_ptr<DeviceEngine>, 3>;

 private:
  static std::size_t index(Way way) { return static_cast<std::size_t>(way); }

  template <Endpoint Host>
  static std::unique_ptr<DeviceEngine> connect(Way way, Host& host, const Call& call, const DeviceSite& site) {
    if (way == Way::peer) return PeerEngine::connect(host, call, site, {});
    // NCCL says it with an error that does not tell it from others.
    if (site.stream.device().options().virtual_ranks > 1)
      throw Error(Fault::unsupported, "several ranks share a GPU, which NCCL does not do");
#if defined(TROIKA_HAS_NCCL)
    return NcclEngine::connect(host, call, site, {});
#else
    throw Error(Fault::unsupported, "troika was built without NCCL");
#endif
  }

  // Null on all ranks where one of them finds something wrong, whatever that is; `trial` is then that rank's, else the
  // first one's.
  template <Endpoint Host>
  static std::unique_ptr<DeviceEngine> try_out(Way way, Host& host, const Call& call, DeviceSite site,
                                               FastestTimes* times, Trial& trial) {
    CudaStream stream = site.stream;
    World& world = *site.world;
    const int me = site.world_rank();
    site.board = DeviceBoard::of(me, world);  // what fails here must not end what comes after
    std::unique_ptr<DeviceEngine> engine;
    Trial own;
    try {
      Host by = host.split(call, 0, host.rank());  // whoever throws leaves it, and nobody waits for him
      engine = connect(way, by, call, site);
      const auto gpus = gather_on_host(by, call, stream.device().gpu());
      const auto known = times ? times->find(way, gpus) : std::nullopt;
      measure(
          *engine, call, known, [&](bool goes_on) { return gather_on_host(by, call, char{goes_on})[0] != 0; }, own);
      if (times && own.sound && host.rank() == 0) times->keep(way, gpus, own.seconds);
    } catch (const std::exception& error) {
      own.refuse(error);
    }
    settle(stream);  // on all ranks before one of them gives memory back that others may still write to
    const auto all = gather_on_host(host, call, own);
    trial = *std::ranges::min_element(all, {}, [](const Trial& t) { return t.sound ? 2 : t.missing ? 0 : 1; });
    if (trial.sound) return engine;
    engine.reset();
    world.forgive(me);
    return nullptr;
  }

  // Every collective once with small odd sizes, then the time of each, as far as a fraction of a second goes, unless the
  // first rank has `known` ones. Leaves in `trial` what is wrong, or the times. `meet`: all ranks meet, and go on if the
  // first of them does.
  static void measure(DeviceEngine& engine, const Call& call, const std::optional<FastestTimes::Seconds>& known,
                      const std::function<bool(bool)>& meet, Trial& trial);
  static void settle(CudaStream& stream) noexcept;
  // What all ranks go by, and a line about it in the log.
  static FastestChoice choose(const Log& log, const std::array<Trial, 2>& trials, const DeviceSite& site);
  static std::unique_ptr<DeviceEngine> join(Engines engines, DeviceSite site, const FastestChoice& choice);
};

// GPUs by whatever is fastest here: Peer, NCCL or memory of the host. Which sums go which way may differ from run to
// run, and with it their last bits: whoever needs the same bits every time names a transport.
using Fastest = DeviceTransport<FastestEngine>;

}  // namespace troika
