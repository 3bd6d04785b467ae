// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include <troika/communication/rank.hpp>
#include <troika/communication/staged.hpp>
#include <troika/communication/threads_endpoint.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

// Ranks that are threads of this process and read each other's memory.
//
// Small messages are copied to a staging buffer of the sender and cost one barrier. Large ones are read in place: of an
// all_reduce each rank reduces its part over the inputs of all and writes it to the outputs of all, between two
// barriers. A rank that waits spins for some microseconds, if there is a core for every rank, and then sleeps. send()
// is a rendezvous: it returns when the peer has taken the message. Memory of a GPU goes through memory of the host.
struct Threads {
  ThreadsOptions options{};

  template <Device D>
  auto connect(Rank<D>& rank) {
    auto endpoint = ThreadsEndpoint::connect(rank.rank(), rank.shared_world(), options);
    if constexpr (HasOwnMemory<D>)
      return StagedEndpoint<ThreadsEndpoint, D>(std::move(endpoint), rank.stream());
    else
      return endpoint;
  }
};

static_assert(Endpoint<ThreadsEndpoint>);
static_assert(Transport<Threads, HostDevice>);
static_assert(CountsWaits<ThreadsEndpoint>);
static_assert(HasAllReduce<ThreadsEndpoint> && HasAllGather<ThreadsEndpoint> && HasReduceScatter<ThreadsEndpoint> &&
              HasBroadcast<ThreadsEndpoint> && HasAllToAll<ThreadsEndpoint>);

}  // namespace troika
