// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <troika/serving/model_store.hpp>

namespace troika::serving {

// The body of a request to /api or /v1 with the system message and options that its model comes with, where it has none
// of its own. Models of Ollama's store alone have any; a body that cannot be read stays as it is, for its reader to
// refuse.
std::string with_model_defaults(const ModelStore& store, const std::string& target, const std::string& body);

}  // namespace troika::serving
