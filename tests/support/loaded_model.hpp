// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

#include "temp_folder.hpp"
#include "tiny_model.hpp"

// A small model, written to a folder of its own and opened from there.
struct LoadedModel {
  explicit LoadedModel(const TinyModel& model) {
    model.write(folder.path());
    config = troika::models::ModelConfig::load(folder.path());
    weights = troika::models::Weights::open(folder.path());
  }
  troika::test::TempFolder folder;
  troika::models::ModelConfig config;
  troika::models::Weights weights;
};
