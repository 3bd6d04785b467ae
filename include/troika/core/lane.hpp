// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace troika {

// What a device does at the same time: work in different lanes may overlap.
enum class Lane { compute, communication };

}  // namespace troika
