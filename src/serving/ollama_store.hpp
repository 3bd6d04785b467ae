// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

#include <troika/observe/log.hpp>
#include <troika/serving/model_store.hpp>

namespace troika::serving {

// The store that Ollama itself keeps its models in: manifests/HOST/NAMESPACE/NAME/TAG is JSON that names the parts of a
// model by their digests, and blobs/sha256-DIGEST has each.
bool is_ollama_store(const std::filesystem::path& folder);
std::vector<std::filesystem::path> ollama_manifests(const std::filesystem::path& store);

// What a manifest says of its model: its name, the file, and what goes with it. What is not heeded is said in the log.
// Error names the manifest and what is wrong with it.
StoredModel read_ollama_manifest(const std::filesystem::path& store, const std::filesystem::path& manifest,
                                 const Log& log);

}  // namespace troika::serving
