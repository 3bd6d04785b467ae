// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nccl.h>

#include <string>
#include <vector>

// NCCL as far as a program can tell: communicators that do not block, collectives in the order of streams over memory
// of the recording CUDA runtime. What a real one answers with hangs or wrong sums is written down: ranks that call
// different things, calls while one is in progress, of a dead communicator, from the wrong device.
namespace troika::recorded_nccl {

enum class Fate {
  fails,   // the call returns an error
  stalls,  // the call is in progress for ever
  hangs,   // the call is fine, but the device does not get through it; of ncclCommAbort: it does not return for 2 s
  lies,    // the call is fine, but the first byte that it gives this rank is another
  breaks,  // the call is fine, but then an asynchronous error is reported
};

// The n-th call of a function from now on, counted from 1 over all ranks, goes wrong: "AllReduce", 2.
void plan(const std::string& function, int nth, Fate fate);
// Forgets plans and violations; the next communicators are of this version.
void reset(int version = NCCL_VERSION_CODE);

int calls(const std::string& function);  // since reset
std::vector<std::string> violations();
int alive();  // communicators that were neither destroyed nor aborted

}  // namespace troika::recorded_nccl
