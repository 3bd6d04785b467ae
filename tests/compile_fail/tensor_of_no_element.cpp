// SPDX-License-Identifier: Apache-2.0
// expect: (template constraint failure|constraints not satisfied)
#include "program.hpp"

DTensor<double, Replicate, HostDevice> wrong;
