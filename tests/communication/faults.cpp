// SPDX-License-Identifier: Apache-2.0

// Random programs of collectives in which one rank stops, throws, leaves, diverges or is slow. Every run must end, no
// rank may see a wrong number, and every survivor must be told who and where. A failing check prints the seed:
// TROIKA_FAULT_SEED=<seed> replays that run alone. TROIKA_FAULT_RUNS sets how many are made.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "communication/fault_plan.hpp"
#include "communication/support.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;

namespace {

// What one rank went through.
struct Report {
  bool wrong_numbers = false, touched_output = false;
  std::string operation;  // the last call
  std::uint64_t sequence = 0;
  bool diverged = false, ended = false;
};

// One step as the guilty rank calls it when it diverges.
Step another(Step step, int ranks) {
  switch (step.seed % 4) {
    case 0:
      if (step.what == Step::What::broadcast && ranks > 1) {
        step.root = (step.root + 1) % ranks;
        break;
      }
      if (step.what == Step::What::all_reduce || step.what == Step::What::reduce_scatter) {
        step.reduction = step.reduction == Reduction::sum ? Reduction::max : Reduction::sum;
        break;
      }
      [[fallthrough]];
    case 1:
      if (step.what != Step::What::barrier && step.what != Step::What::group && step.what != Step::What::ring) {
        step.dtype = step.dtype == DType::f32 ? DType::i32 : DType::f32;
        break;
      }
      [[fallthrough]];
    case 2:
      if (step.what != Step::What::barrier && step.what != Step::What::group && step.what != Step::What::ring) {
        step.count += 1 + step.seed % 3;
        break;
      }
      [[fallthrough]];
    default:
      step.what = step.what == Step::What::all_reduce ? Step::What::broadcast : Step::What::all_reduce;
      step.count += 1000;
  }
  return step;
}

template <Element E, class C>
class Runner {
 public:
  Runner(C& c, Report& report, std::vector<std::uint64_t>& messages) : c_(c), report_(report), messages_(messages) {}

  void run(const Step& step) {
    const int n = c_.world_size(), me = c_.rank();
    const auto ranks = static_cast<std::size_t>(n), mine = static_cast<std::size_t>(me);
    const auto of = [&](int rank, std::size_t count) { return elements<E>(step.seed, rank, count); };
    const auto sum = [&](std::size_t count) {
      std::vector<E> result(count), terms(ranks);
      for (std::size_t i = 0; i < count; ++i) {
        for (int r = 0; r < n; ++r) terms[static_cast<std::size_t>(r)] = element<E>(step.seed, r, i);
        result[i] = reduced(terms, step.reduction);
      }
      return result;
    };
    switch (step.what) {
      case Step::What::all_reduce: {
        const auto in = of(me, step.count);
        call(
            "all_reduce", step.count, [&](auto out) { c_.all_reduce(std::span<const E>(in), out, step.reduction); },
            [&] { return sum(step.count); });
        break;
      }
      case Step::What::all_gather: {
        const auto in = of(me, step.count);
        call(
            "all_gather", step.count * ranks, [&](auto out) { c_.all_gather(std::span<const E>(in), out); },
            [&] {
              std::vector<E> all;
              for (int r = 0; r < n; ++r)
                for (const E& e : of(r, step.count)) all.push_back(e);
              return all;
            });
        break;
      }
      case Step::What::uneven_gather: {
        std::vector<std::size_t> counts;
        std::size_t total = 0;
        for (std::size_t r = 0; r < ranks; ++r) total += counts.emplace_back((r * 3 + step.seed) % 4 * step.count);
        const auto in = of(me, counts[mine]);
        call(
            "all_gather", total, [&](auto out) { c_.all_gather(std::span<const E>(in), out, counts); },
            [&] {
              std::vector<E> all;
              for (int r = 0; r < n; ++r)
                for (const E& e : of(r, counts[static_cast<std::size_t>(r)])) all.push_back(e);
              return all;
            });
        break;
      }
      case Step::What::reduce_scatter: {
        const auto in = of(me, step.count * ranks);
        call(
            "reduce_scatter", step.count,
            [&](auto out) { c_.reduce_scatter(std::span<const E>(in), out, step.reduction); },
            [&] {
              const auto all = sum(step.count * ranks);
              const auto begin = all.begin() + static_cast<std::ptrdiff_t>(step.count * mine);
              return std::vector<E>(begin, begin + static_cast<std::ptrdiff_t>(step.count));
            });
        break;
      }
      case Step::What::broadcast: {
        const auto in = of(me, step.count);
        call(
            "broadcast", step.count, [&](auto out) { c_.broadcast(out, Root{step.root}); },
            [&] { return of(step.root, step.count); }, in);
        break;
      }
      case Step::What::all_to_all: {
        const std::vector<std::size_t> counts(ranks, step.count);
        const auto in = of(me, step.count * ranks);
        call(
            "all_to_all", step.count * ranks,
            [&](auto out) { c_.all_to_all(std::span<const E>(in), counts, out, counts); },
            [&] {
              std::vector<E> all;
              for (int r = 0; r < n; ++r) {
                const auto from = of(r, step.count * ranks);
                for (std::size_t i = 0; i < step.count; ++i) all.push_back(from[mine * step.count + i]);
              }
              return all;
            });
        break;
      }
      case Step::What::barrier:
        call(
            "barrier", 0, [&](auto) { c_.barrier(); }, [] { return std::vector<E>(); });
        break;
      case Step::What::ring: {
        const int next = (me + 1) % n, previous = (me + n - 1) % n;
        const auto in = of(me, step.count);
        const auto send = [&] {
          report_.operation = "send";
          report_.sequence = ++messages_[static_cast<std::size_t>(next)];
          c_.send(std::span<const E>(in), next);
        };
        if (me % 2 == 0) send();
        std::vector<E> out(step.count);
        report_.operation = "recv";
        report_.sequence = ++messages_[ranks + static_cast<std::size_t>(previous)];
        c_.recv(std::span(out), previous);
        report_.wrong_numbers |= !same_bits(out, of(previous, step.count));
        if (me % 2 == 1) send();
        break;
      }
      case Step::What::group: {
        report_.operation = "split";
        report_.sequence = c_.sequence() + 1;
        auto group = c_.split(me % 2, me);
        std::vector<std::uint64_t> messages(2 * static_cast<std::size_t>(group.world_size()));
        Runner inner(group, report_, messages);
        Step part = step;
        part.what = Step::What::all_reduce;
        inner.run(part);
        part.what = Step::What::broadcast;
        part.root = group.world_size() - 1;
        inner.run(part);
        break;
      }
    }
  }

 private:
  template <class F, class Wanted>
  void call(const char* operation, std::size_t count, F&& f, Wanted&& wanted, std::vector<E> out = {}) {
    if (out.empty()) out.assign(count, element<E>(77, 0, 0));
    const auto before = out;
    report_.operation = operation;
    report_.sequence = c_.sequence() + 1;
    try {
      f(std::span<E>(out));
    } catch (const Error& error) {
      if (error.fault() == Fault::mismatch && !same_bits(out, before)) report_.touched_output = true;
      throw;
    }
    if (!same_bits(out, wanted())) report_.wrong_numbers = true;
  }

  C& c_;
  Report& report_;
  std::vector<std::uint64_t>& messages_;  // sent to each peer, then received from each
};

// A rank of the plan. `stall` is what a rank does that hangs or is slow outside of the transport.
template <class R, class T, class Stall>
void follow(const Plan& plan, R& rank, T transport, CommunicationOptions options, Report& report, Stall&& stall) {
  Communication c{rank, transport, options};
  std::vector<std::uint64_t> messages(2 * static_cast<std::size_t>(c.world_size()));
  for (std::size_t i = 0; i <= plan.steps.size(); ++i) {
    Step step = i < plan.steps.size() ? plan.steps[i] : Step{};  // a barrier at the end, which every rank needs
    if (c.rank() == plan.guilty && i == plan.at) {
      if (plan.kind == Kind::throws_outside) throw std::runtime_error("as planned");
      if (plan.kind == Kind::leaves) return;
      if (plan.kind == Kind::diverges) {
        step = another(step, plan.ranks);
        report.diverged = true;
      }
      stall();
    }
    if (step.dtype == DType::f32)
      Runner<float, decltype(c)>(c, report, messages).run(step);
    else
      Runner<std::int32_t, decltype(c)>(c, report, messages).run(step);
  }
  report.ended = true;
}

// Empty if the run went as it should. `happened`: whether the rank met its fault.
std::string judge(const Plan& plan, const std::vector<Outcome<bool>>& outcomes, const std::vector<Report>& reports,
                  bool happened) {
  std::string text;
  const bool ring = plan.at < plan.steps.size() && plan.steps[plan.at].what == Step::What::ring;
  // Of two ranks that differ, nobody can say which one is wrong: rank 0 counts as right. A rank that calls a collective
  // where its neighbours exchange messages may meet others that are already in their next collective.
  const bool diverged = plan.kind == Kind::diverges || plan.kind == Kind::diverges_inside;
  for (int r = 0; r < plan.ranks; ++r) {
    const auto& outcome = outcomes[static_cast<std::size_t>(r)];
    const auto& report = reports[static_cast<std::size_t>(r)];
    const auto complain = [&](const std::string& what) {
      text += plan.describe() + "\n  rank " + std::to_string(r) + " " + what + "; last call " + report.operation +
              " #" + std::to_string(report.sequence) + "; threw: " + outcome.what() + "\n";
    };
    if (report.wrong_numbers) complain("saw wrong numbers");
    if (report.touched_output) complain("had its output written in spite of the mismatch");
    if (!happened) {
      if (!report.ended) complain("did not end well though nothing happened");
      continue;
    }
    if (r == plan.guilty && !diverged && plan.kind != Kind::slow) continue;
    const auto error = outcome.troika_error();
    if (report.ended || !error) {
      complain("was not told");
      continue;
    }
    const bool direct = [&] {
      switch (plan.kind) {
        case Kind::stop:
        case Kind::slow: return error->fault() == Fault::timeout;
        case Kind::diverges:
        case Kind::diverges_inside: return error->fault() == Fault::mismatch;
        default: return error->fault() == Fault::peer_failed;
      }
    }();
    // Who is in another group learns it from those who leave.
    if (!direct && !(plan.has_groups && error->fault() == Fault::peer_failed)) complain("was told the wrong fault");
    const int blamed = diverged && plan.ranks == 2 ? 1 : plan.guilty;
    if (error->rank() != blamed && !(diverged && (ring || plan.has_groups))) complain("was told the wrong rank");
    if (error->operation() != report.operation || error->sequence() != report.sequence) {
      complain("was told " + error->operation() + " #" + std::to_string(error->sequence()));
    }
  }
  return text;
}

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(thread_sanitizer) || __has_feature(address_sanitizer);
#else
constexpr bool sanitized = false;
#endif

std::string run_simulated(std::uint64_t seed, std::uint64_t* history = nullptr) {
  constexpr Kind kinds[] = {Kind::none,           Kind::stop,      Kind::stop,     Kind::throws_inside,
                            Kind::throws_outside, Kind::leaves,    Kind::diverges, Kind::diverges_inside,
                            Kind::slow,           Kind::a_bit_slow};
  const Plan plan = make_plan(seed, kinds);
  SimulatedOptions options{.seed = seed};
  const auto inject = [&](SimulatedFailure::Kind kind, double seconds = 0) {
    options.failures.push_back({kind, plan.guilty, plan.inside, seconds});
  };
  if (plan.kind == Kind::stop) inject(SimulatedFailure::Kind::stop);
  if (plan.kind == Kind::throws_inside) inject(SimulatedFailure::Kind::throws);
  if (plan.kind == Kind::diverges_inside) inject(SimulatedFailure::Kind::diverge);
  if (plan.kind == Kind::slow) inject(SimulatedFailure::Kind::slow, 1000);
  if (plan.kind == Kind::a_bit_slow) inject(SimulatedFailure::Kind::slow, 1);
  SimulatedFabric fabric(options);
  std::vector<Report> reports(static_cast<std::size_t>(plan.ranks));
  const auto outcomes = try_ranks(plan.ranks, [&](auto& rank) {
    auto& report = reports[static_cast<std::size_t>(rank.rank())];
    follow(plan, rank, Simulated{fabric}, {.deadline = std::chrono::seconds(30)}, report, [] {});
  });
  const auto& guilty = outcomes[static_cast<std::size_t>(plan.guilty)];
  bool happened = false;
  switch (plan.kind) {
    case Kind::none:
    case Kind::a_bit_slow: break;
    case Kind::slow: happened = fabric.now(plan.guilty) >= 1000; break;
    case Kind::diverges: happened = true; break;
    case Kind::leaves: happened = true; break;
    default: happened = guilty.error != nullptr;
  }
  if (history) *history = fabric.history();
  return judge(plan, outcomes, reports, happened);
}

std::string run_threads(std::uint64_t seed) {
  constexpr Kind kinds[] = {Kind::none,     Kind::throws_outside, Kind::leaves,   Kind::diverges, Kind::throws_outside,
                            Kind::diverges, Kind::leaves,         Kind::diverges, Kind::diverges, Kind::stop};
  Plan plan = make_plan(seed, kinds);
  // Once in a while with messages that are read in place.
  Threads transport;
  if (seed % 2) transport.options = {.staged_bytes = 0, .spins = 100};
  const bool stops = plan.kind == Kind::stop;
  const auto deadline = std::chrono::milliseconds(stops ? (sanitized ? 1000 : 250) : 60'000);
  std::vector<Report> reports(static_cast<std::size_t>(plan.ranks));
  std::atomic<int> survivors{plan.ranks - 1};
  const auto outcomes = try_ranks(plan.ranks, [&](auto& rank) {
    struct Leaving {
      std::atomic<int>* survivors;
      ~Leaving() {
        if (survivors) --*survivors;
      }
    } leaving{rank.rank() == plan.guilty ? nullptr : &survivors};
    follow(plan, rank, transport, {.deadline = deadline}, reports[static_cast<std::size_t>(rank.rank())], [&] {
      if (!stops) return;
      while (survivors > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  });
  return judge(plan, outcomes, reports, plan.kind != Kind::none);
}

template <class F>
void run_seeds(std::uint64_t runs, F&& run) {
  if (const auto seed = number_from("TROIKA_FAULT_SEED", UINT64_MAX); seed != UINT64_MAX) {
    CHECK(run(seed) == "");
    return;
  }
  std::string failed;
  for (std::uint64_t seed = 0; seed < runs && failed.empty(); ++seed) failed = run(seed);
  CHECK(failed == "");
}

}  // namespace

TEST_CASE("10,000 seeded faults on Simulated: nothing hangs, no wrong number, each survivor is told who and where",
          "[faults]") {
  run_seeds(number_from("TROIKA_FAULT_RUNS", sanitized ? 500 : 10'000),
            [](std::uint64_t seed) { return run_simulated(seed); });
}

TEST_CASE("A seed replays the same interleaving", "[faults]") {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    std::uint64_t first = 0, second = 0;
    run_simulated(seed, &first);
    run_simulated(seed, &second);
    CHECK(first == second);
  }
}

TEST_CASE("Hundreds of seeded faults on Threads", "[faults]") {
  run_seeds(std::min<std::uint64_t>(number_from("TROIKA_FAULT_RUNS", 300), sanitized ? 60 : 3000), run_threads);
}
