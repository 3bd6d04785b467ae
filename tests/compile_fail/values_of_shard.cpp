// SPDX-License-Identifier: Apache-2.0
// expect: only a Replicate tensor can be read: put troika::to<troika::Replicate> before it
// errors: 1
#include "program.hpp"

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x) { return pipeline.run(x, to<Shard<0>>).values()[0]; }
