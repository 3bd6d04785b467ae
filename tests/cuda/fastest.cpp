// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/fastest.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <src/communication/fastest/exchange.hpp>
#include <troika/communication/communication.hpp>

#include "communication/operations.hpp"
#include "on_gpu.hpp"
#include "runtime/nccl_recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using recording::Recording;
using Fate = recorded_nccl::Fate;

namespace {

// What is said at the start.
struct Said {
  std::mutex mutex{};
  std::vector<std::string> warnings{}, lines{};

  Log log() {
    return Log([this](LogLevel level, std::string_view text) {
      std::lock_guard lock(mutex);
      (level == LogLevel::warning ? warnings : lines).emplace_back(text);
    });
  }
};

FastestOptions options(Said& said) { return {.log = said.log()}; }

void check_clean(const Recording& recorded) {
  CHECK(joined(recorded_nccl::violations()) == "");
  CHECK(recorded_nccl::alive() == 0);
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

// Collectives of sizes to both sides of all that were timed.
std::string many_sizes(Communication<Fastest, CudaDevice>& c, Rank<CudaDevice>& rank) {
  const auto place = on_gpu(rank), odd = on_gpu(rank, 1);
  std::string text;
  std::uint64_t seed = 0;
  for (const std::size_t count : std::array<std::size_t, 5>{0, 1, 17, 300, 5003})
    text += check_operations<float>(c, place, ++seed, count);
  text += compare_all_reduce_norm(c, rank, 7, 33) + compare_all_reduce_norm(c, rank, 40, 128);
  return text + check_operations<std::int8_t>(c, odd, 90, 700) + check_operations<bf16>(c, on_host, 91, 100);
}

}  // namespace

static_assert(Transport<Fastest, CudaDevice>);
static_assert(!Transport<Fastest, HostDevice>, "Fastest moves memory of GPUs");

TEST_CASE("Whatever is fastest gives what a naive loop gives, and says which way things go", "[fastest]") {
  const int ranks = GENERATE(1, 3);
  recorded_nccl::reset();
  Recording recorded({.gpus = ranks});
  Said said;
  for (const auto& text : run_ranks(gpus(ranks), [&](auto& rank) {
         Communication c{rank, Fastest(options(said))};
         return many_sizes(c, rank);
       }))
    CHECK(text == "");
  CHECK(said.warnings.empty());
  if (ranks == 1) {
    CHECK(recorded_nccl::calls("CommInitRankConfig") == 0);  // there is nothing to choose
  } else {
    REQUIRE(said.lines.size() == 1);
    CHECK_THAT(said.lines[0], ContainsSubstring("collectives of " + std::to_string(ranks) + " GPUs: all_reduce "));
  }
  check_clean(recorded);
}

TEST_CASE("A transport whose test gives something wrong on one rank is used by none", "[fastest]") {
  const auto [function, nth, what] =
      GENERATE(table<const char*, int, const char*>({{"AllReduce", 5, "all_reduce (sum) of 1003 bf16 gave rank"},
                                                     {"ReduceScatter", 5, "reduce_scatter (sum) of 37 f16 gave rank"},
                                                     {"Recv", 14, "gave rank"}}));
  CAPTURE(function);
  recorded_nccl::reset();
  recorded_nccl::plan(function, nth, Fate::lies);
  Recording recorded({.gpus = 2});
  Said said;
  for (const auto& text : run_ranks(gpus(2), [&](auto& rank) {
         Communication c{rank, Fastest(options(said))};
         c.barrier();
         if (recorded_nccl::alive() > 0) throw std::runtime_error("NCCL is still there");
         return many_sizes(c, rank);
       }))
    CHECK(text == "");
  REQUIRE(said.warnings.size() == 1);
  CHECK_THAT(said.warnings[0], ContainsSubstring("NCCL is not used: ") && ContainsSubstring(what));
  CHECK(said.lines == std::vector<std::string>{"collectives of 2 GPUs: Peer"});
  check_clean(recorded);
}

TEST_CASE("A transport that fails or hangs in its test is not used, and nobody is blamed for it later", "[fastest]") {
  const auto [function, fate] = GENERATE(table<const char*, Fate>(
      {{"GetUniqueId", Fate::fails}, {"AllGather", Fate::breaks}, {"Broadcast", Fate::hangs}}));
  CAPTURE(function);
  recorded_nccl::reset();
  recorded_nccl::plan(function, 1, fate);
  Recording recorded({.gpus = 2});
  Said said;
  auto wanted = options(said);
  wanted.connect_deadline = 6s;
  const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
    Communication c{rank, Fastest(wanted)};
    const std::string text = many_sizes(c, rank);
    if (rank.rank() == 1) throw std::runtime_error("no more rope");
    c.barrier();
    return text;
  });
  REQUIRE(said.warnings.size() == 1);
  CHECK_THAT(said.warnings[0], ContainsSubstring("NCCL is not used: "));
  CHECK(said.lines == std::vector<std::string>{"collectives of 2 GPUs: Peer"});
  CHECK(outcomes[1].what() == "no more rope");
  REQUIRE(outcomes[0].troika_error());
  CHECK(outcomes[0].troika_error()->rank() == 1);
  check_clean(recorded);
}

TEST_CASE("GPUs that do not reach each other go by NCCL, those that are shared by Peer, and else by the host",
          "[fastest]") {
  const bool nccl = GENERATE(true, false), peers = GENERATE(true, false);
  recorded_nccl::reset();
  Recording recorded({.gpus = 2, .without_peers = peers ? 0 : 1});
  Said said;
  auto devices = gpus(2);
  if (!nccl) {
    devices = {CudaDevice(0, {.virtual_ranks = 2}, 0, 0), CudaDevice(1, {.virtual_ranks = 2}, 1, 0)};
    if (peers) devices[1] = CudaDevice(1, {.virtual_ranks = 2}, 0, 1);
  }
  for (const auto& text : run_ranks(std::move(devices), [&](auto& rank) {
         Communication c{rank, Fastest(options(said))};
         auto pair = c.split(0, -c.rank());
         return many_sizes(c, rank) + many_sizes(pair, rank);
       }))
    CHECK(text == "");
  CHECK(said.warnings.empty());
  REQUIRE(said.lines.size() == 1);
  const std::string no_nccl = "; NCCL is not used: several ranks share a GPU";
  const std::string no_peers = "; Peer is not used: connect: GPU 0 does not reach the memory of GPU 1";
  if (!peers) CHECK_THAT(said.lines[0], ContainsSubstring(no_peers));
  if (!nccl) CHECK_THAT(said.lines[0], ContainsSubstring(no_nccl));
  const std::string way = peers ? (nccl ? "all_reduce " : "Peer;") : nccl ? "NCCL;" : "memory of the host;";
  CHECK_THAT(said.lines[0], ContainsSubstring("collectives of 2 GPUs: " + way));
  check_clean(recorded);
}

TEST_CASE("Each collective goes the way that was chosen for its size, also in groups that are split", "[fastest]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 4});
  auto choice = FastestChoice::only(Way::peer);
  choice.sizes = {64, 256, 1024, 4096};
  choice.ways[0][3] = choice.ways[1][0] = choice.ways[5][2] = Way::nccl;
  CHECK(choice.text() ==
        "all_reduce Peer, NCCL from 2 KiB; all_gather NCCL, Peer from 128 bytes; reduce_scatter Peer; broadcast Peer; "
        "all_to_all Peer; send Peer, NCCL from 512 bytes, Peer from 2 KiB");
  std::vector<std::string> wrong(4);
  run_ranks(gpus(4), [&](auto& rank) {
    Communication whole{rank, Fastest({.choice = choice})};
    auto half = whole.split(rank.rank() % 2, 0);
    auto data = on_gpu(rank)(std::vector<float>(2000)), more = on_gpu(rank)(std::vector<float>(2000));
    const auto expect = [&](const char* function, int calls) {
      whole.barrier();
      if (recorded_nccl::calls(function) != calls) wrong[static_cast<std::size_t>(rank.rank())] += function;
      whole.barrier();
    };
    whole.all_reduce(data.span().first(511));
    expect("AllReduce", 0);
    whole.all_reduce(data.span().first(512));
    expect("AllReduce", 4);
    half.all_reduce(data.span());
    expect("AllReduce", 8);
    whole.all_gather(data.span().first(7), more.span().first(28));
    expect("AllGather", 4);
    whole.all_gather(data.span().first(8), more.span().first(32));
    expect("AllGather", 4);
    for (const std::size_t count : std::array<std::size_t, 4>{127, 128, 511, 512}) {
      if (half.rank() == 0)
        half.send(data.span().first(count), 1);
      else
        half.recv(data.span().first(count), 0);
    }
    expect("Send", 4);
    expect("Recv", 4);
  });
  CHECK(joined(wrong) == "\n\n\n\n");
  check_clean(recorded);
}

TEST_CASE("What was timed is not timed again on the same GPUs, but tested it is", "[fastest]") {
  recorded_nccl::reset();
  Recording recorded({.gpus = 3});
  const auto times = std::make_shared<FastestTimes>();
  Said said;
  // How many broadcasts each rank tried by NCCL.
  const auto connect = [&](std::vector<int> numbers) {
    const int before = recorded_nccl::calls("Broadcast");
    run_ranks(cuda_devices({}, numbers), [&](auto& rank) {
      Communication c{rank, Fastest({.log = said.log(), .times = times})};
      c.barrier();
    });
    return (recorded_nccl::calls("Broadcast") - before) / static_cast<int>(numbers.size());
  };
  const int first = connect({0, 1}), again = connect({0, 1}), swapped = connect({1, 0}), third = connect({1, 0});
  CHECK(again < first);
  CHECK(again > 0);
  CHECK(swapped > again);  // another order of ranks is another ring
  CHECK(third == again);
  CHECK(connect({0, 2}) > again);
  CHECK(connect({0, 1, 2}) > again);
  CHECK(connect({0, 1}) == again);
  REQUIRE(said.lines.size() == 7);
  CHECK(said.lines[1] == said.lines[0]);
  CHECK(said.lines[3] == said.lines[2]);
  CHECK(said.lines[6] == said.lines[0]);
  CHECK(said.warnings.empty());
  check_clean(recorded);
}

TEST_CASE("A rank that throws at the start, or after it, is named by the others", "[fastest]") {
  const bool starts = GENERATE(true, false);
  recorded_nccl::reset();
  Recording recorded({.gpus = 2});
  Said said;
  const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
    if (rank.rank() == 1 && !starts) throw std::runtime_error("no more rope");
    Communication c{rank, Fastest(options(said))};
    if (rank.rank() == 1) throw std::runtime_error("no more rope");
    auto data = on_gpu(rank)(std::vector<float>(100));
    for (;;) c.all_reduce(data.span());
  });
  REQUIRE(outcomes[0].troika_error());
  CHECK(outcomes[0].troika_error()->rank() == 1);
  check_clean(recorded);
}

namespace {

// An engine of which one collective does nothing.
class Lazy final : public DeviceEngine {
 public:
  Lazy(std::unique_ptr<DeviceEngine> engine, Operation operation, bool uneven)
      : engine_(std::move(engine)), operation_(operation), uneven_(uneven) {}

  const DeviceSite& site() const override { return engine_->site(); }
  void check(const Call& call) override { engine_->check(call); }
  void all_reduce(const Call& call, const std::byte* in, std::byte* out) override {
    if (does(call)) engine_->all_reduce(call, in, out);
  }
  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> c) override {
    if (does(call)) engine_->all_gather(call, in, out, c);
  }
  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> c) override {
    if (does(call)) engine_->reduce_scatter(call, in, out, c);
  }
  void broadcast(const Call& call, std::byte* data) override {
    if (does(call)) engine_->broadcast(call, data);
  }
  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> sent, std::byte* out,
                  std::span<const std::size_t> received, std::size_t largest) override {
    if (does(call)) engine_->all_to_all(call, in, sent, out, received, largest);
  }
  void send(const Call& call, std::span<const std::byte> data, int peer) override {
    if (does(call)) engine_->send(call, data, peer);
  }
  void recv(const Call& call, std::span<std::byte> buffer, int peer) override {
    if (does(call)) engine_->recv(call, buffer, peer);
  }

 private:
  bool does(const Call& call) const {
    return call.signature.operation != operation_ || uneven_ != (call.signature.layout != 0);
  }

  std::unique_ptr<DeviceEngine> engine_;
  Operation operation_;
  bool uneven_;
};

}  // namespace

TEST_CASE("The test of an engine finds a collective that does nothing", "[fastest]") {
  const auto plan =
      GENERATE(table<Operation, bool, const char*>({{Operation::barrier, false, ""},
                                                    {Operation::all_reduce, false, "all_reduce (sum) of 1 f32"},
                                                    {Operation::all_gather, false, "all_gather (sum) of 1 f32"},
                                                    {Operation::reduce_scatter, false, "reduce_scatter (sum) of 1 f32"},
                                                    {Operation::broadcast, false, "broadcast (sum) of 1 f32"},
                                                    {Operation::all_to_all, false, "all_to_all (sum) of 1 f32"},
                                                    {Operation::send, false, "send (sum) of 1 f32"},
                                                    {Operation::reduce_scatter, true, "uneven reduce_scatter of"},
                                                    {Operation::all_gather, true, "uneven all_gather of"}}));
  Recording recorded({.gpus = 2});
  const auto found = run_ranks(gpus(2), [&](auto& rank) {
    auto host = Threads{}.connect(static_cast<Rank<CudaDevice>&>(rank));
    const Call call{{.operation = Operation::split}, 0, 30s};
    const DeviceSite site{rank.rank(),  2, {0, 1}, rank.shared_world(), DeviceBoard::of(rank.rank(), rank.world()),
                          rank.stream()};
    Lazy lazy(PeerEngine::connect(host, call, site, {}), std::get<0>(plan), std::get<1>(plan));
    return fastest::self_test(lazy, 10s);
  });
  const std::string named = std::get<2>(plan);
  // A root, or who has no part of something, may find nothing.
  if (named.empty())
    CHECK(found[0] + found[1] == "");
  else
    CHECK_THAT(found[0] + found[1], ContainsSubstring(named));
  CHECK(joined(recorded.live()) == "");
}
