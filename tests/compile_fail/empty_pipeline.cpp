// SPDX-License-Identifier: Apache-2.0
// expect: a pipeline needs at least one stage
#include "program.hpp"

void wrong(Pipe& pipeline, const Tokens<Replicate>& x) { pipeline.run(x); }
