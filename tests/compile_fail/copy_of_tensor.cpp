// SPDX-License-Identifier: Apache-2.0
// Owners move only: a copy of a tensor is never an accident.
// expect: (use of|uses|call to [a-z-]*)[ ]?(deleted function|deleted.*constructor)
#include "program.hpp"

auto wrong(const Tokens<Replicate>& x) { return Tokens<Replicate>(x); }
