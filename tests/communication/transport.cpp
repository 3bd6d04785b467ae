// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/transport.hpp>

#include <cstddef>
#include <memory>
#include <span>

#include <troika/communication/simulated.hpp>
#include <troika/communication/threads.hpp>

#include "support/catch.hpp"

using namespace troika;

namespace {

// The least that an endpoint is, and what is missing from each that must not pass.
struct Least {
  Least(Least&&) = default;
  Least& operator=(Least&&) = default;
  int rank() const { return 0; }
  int world_size() const { return 1; }
  int world_rank(int rank) const { return rank; }
  void agree(const Call&) {}
  void send(const Call&, std::span<const std::byte>, int) {}
  void recv(const Call&, std::span<std::byte>, int) {}
  Least split(const Call&, int, int) { return std::move(*this); }
};
static_assert(Endpoint<Least>);
static_assert(!HasAllReduce<Least> && !HasAllGather<Least> && !HasReduceScatter<Least> && !HasBroadcast<Least> &&
              !HasAllToAll<Least>);
static_assert(!HostMemory<Least>, "memory is not host memory unless the endpoint says so");

struct Copyable : Least {  // fine: what can be copied can be moved
  Copyable split(const Call&, int, int) { return std::move(*this); }
};
static_assert(Endpoint<Copyable>);

struct SplitsIntoSomethingElse : Least {};
static_assert(!Endpoint<SplitsIntoSomethingElse>);

struct CannotMove {
  CannotMove(CannotMove&&) = delete;
  int rank() const { return 0; }
  int world_size() const { return 1; }
  int world_rank(int rank) const { return rank; }
  void agree(const Call&) {}
  void send(const Call&, std::span<const std::byte>, int) {}
  void recv(const Call&, std::span<std::byte>, int) {}
  CannotMove split(const Call&, int, int);
};
static_assert(!Endpoint<CannotMove>);

struct NoAgreement {
  int rank() const { return 0; }
  int world_size() const { return 1; }
  int world_rank(int rank) const { return rank; }
  void send(const Call&, std::span<const std::byte>, int) {}
  void recv(const Call&, std::span<std::byte>, int) {}
  NoAgreement split(const Call&, int, int) { return *this; }
};
static_assert(!Endpoint<NoAgreement>);

struct ReceivesIntoConst {
  int rank() const { return 0; }
  int world_size() const { return 1; }
  int world_rank(int rank) const { return rank; }
  void agree(const Call&) {}
  void send(const Call&, std::span<const std::byte>, int) {}
  void recv(const Call&, std::span<float>, int) {}  // bytes and a DType, not a type of elements
  ReceivesIntoConst split(const Call&, int, int) { return *this; }
};
static_assert(!Endpoint<ReceivesIntoConst>);

static_assert(!Endpoint<int> && !Endpoint<void> && !Endpoint<Threads>);

struct ToLeast {
  template <Device D>
  Least connect(Rank<D>&) {
    return Least(std::move(*least));
  }
  std::shared_ptr<Least> least;
};
static_assert(Transport<ToLeast>);

struct ToNowhere {
  template <Device D>
  void connect(Rank<D>&) {}
};
static_assert(!Transport<ToNowhere>);

struct WithoutRank {
  Least connect();
};
static_assert(!Transport<WithoutRank>);

struct CannotBeCopied {
  CannotBeCopied(const CannotBeCopied&) = delete;
  template <Device D>
  Least connect(Rank<D>&);
};
static_assert(!Transport<CannotBeCopied>, "every rank gets a copy of the transport");

static_assert(!Transport<ThreadsEndpoint> && !Transport<int>);
static_assert(!HasAllReduce<SimulatedEndpoint> && !HasBroadcast<SimulatedEndpoint>,
              "the simulated transport proves the composition");

}  // namespace

TEST_CASE("The concepts of a transport accept the least and refuse what lacks a part", "[transport]") {
  SUCCEED("compiled");
}
