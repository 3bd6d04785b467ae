// SPDX-License-Identifier: Apache-2.0
#include "library.hpp"

#include <dlfcn.h>

#include <string>
#include <type_traits>
#include <vector>

#include <troika/core/error.hpp>

namespace troika::nccl {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(Fault::unsupported, what, {-1, "connect", 0}); }

void* open(const std::string& path) {
  if (path.empty() && dlsym(RTLD_DEFAULT, "ncclGetVersion")) return RTLD_DEFAULT;
  std::string tried;
  for (const std::string& name :
       path.empty() ? std::vector<std::string>{"libnccl.so.2", TROIKA_NCCL_LIBRARY} : std::vector<std::string>{path}) {
    if (name.empty()) continue;
    if (void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    tried += (tried.empty() ? "" : "; ") + std::string(dlerror());
  }
  refuse("NCCL is missing: " + tried);
}

}  // namespace

std::string version_name(int code) {
  return std::to_string(code / 10000) + "." + std::to_string(code / 100 % 100) + "." + std::to_string(code % 100);
}

Library load(const std::string& path) {
  void* const handle = open(path);
  Library library;
  const auto look_up = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (!function) refuse(std::string("this NCCL has no ") + name + "; troika needs 2." + std::to_string(NCCL_MINOR));
  };
  look_up(library.GetVersion, "ncclGetVersion");
  int version = 0;
  // Newer ones of the same major version take the structs of older ones.
  if (library.GetVersion(&version) != ncclSuccess || version < NCCL_VERSION_CODE || version / 10000 != NCCL_MAJOR) {
    refuse("NCCL is " + version_name(version) + ", but troika was compiled with " + version_name(NCCL_VERSION_CODE) +
           ", and works with that or a later " + std::to_string(NCCL_MAJOR) + ".x");
  }
#define TROIKA_NCCL_LOOK_UP(name) look_up(library.name, "nccl" #name);
  TROIKA_NCCL_FUNCTIONS(TROIKA_NCCL_LOOK_UP)
#undef TROIKA_NCCL_LOOK_UP
  return library;
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

}  // namespace troika::nccl
