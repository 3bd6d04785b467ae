// SPDX-License-Identifier: Apache-2.0

// Decoder and encoder on groups of cores, compiled once.
#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>

namespace troika::models {

TROIKA_DECODER_INSTANCES(template)
TROIKA_ENCODER_INSTANCES(template)

}  // namespace troika::models
