// SPDX-License-Identifier: Apache-2.0
// Every rank would add the whole product: the sum would be world_size times too large.
// expect: this stage does not accept this placement: put troika::to<...> before it
// errors: 1
#include "program.hpp"

auto wrong(Pipe& pipeline, const Tokens<Replicate>& x, Down& down) { return pipeline.run(x, down, to<Replicate>); }
