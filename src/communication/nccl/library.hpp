// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nccl.h>

#include <string>

namespace troika::nccl {

// The functions of NCCL that troika calls. They are looked up when the first communicator is made, not linked: a program
// starts where there is no NCCL, and one that never makes a communicator does not load its 200 MB. Whoever has linked
// NCCL into the program gets that one; two copies in a process would not know of each other.
struct Library {
#define TROIKA_NCCL_FUNCTIONS(f)                                                                                     \
  f(GetVersion) f(GetUniqueId) f(CommInitRankConfig) f(CommFinalize) f(CommDestroy) f(CommAbort) f(GetErrorString)   \
      f(GetLastError) f(CommGetAsyncError) f(AllReduce) f(AllGather) f(ReduceScatter) f(Broadcast) f(Reduce) f(Send) \
          f(Recv) f(GroupStart) f(GroupEnd)
#define TROIKA_NCCL_POINTER(name) decltype(&::nccl##name) name = nullptr;
  TROIKA_NCCL_FUNCTIONS(TROIKA_NCCL_POINTER)
#undef TROIKA_NCCL_POINTER
};

// Throws Fault::unsupported where a function is missing, or where the version is not one that does what the nccl.h says
// that troika was compiled with. `path` empty: what is linked into the program, else what the system finds as
// libnccl.so.2, else what was found when troika was built.
Library load(const std::string& path = {});

// load() once; what it throws, it throws every time.
const Library& library();

// "2.28.9"
std::string version_name(int code);

}  // namespace troika::nccl
