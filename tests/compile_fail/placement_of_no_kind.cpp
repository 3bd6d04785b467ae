// SPDX-License-Identifier: Apache-2.0
// expect: (template constraint failure|constraints not satisfied|no matching function)
#include <troika/core/placement.hpp>

struct Somewhere {};

int main() { return static_cast<int>(troika::placement_name<Somewhere>().size()); }
