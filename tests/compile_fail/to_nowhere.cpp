// SPDX-License-Identifier: Apache-2.0
// expect: (template constraint failure|constraints not satisfied|use of invalid variable template)
// errors: 1
#include "program.hpp"

struct Somewhere {};

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x) { return pipeline.run(x, to<Somewhere>); }
