// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <troika/serving/model_host.hpp>
#include <troika/serving/model_store.hpp>

#include "text_request.hpp"

namespace troika::serving {

// The endpoints that tell about models, JSON in and out. Refusal for what is asked wrongly.
StoredModel find_model(const ModelStore& store, const std::string& name);
// What the model cannot do is refused, and what can is named.
void check_writes(const StoredModel& model, const std::string& wanted);
void check_embeds(const ModelStore& store, const StoredModel& model);
Json list_models(const ModelStore& store);
Json show_model(const ModelStore& store, const std::string& body);
Json loaded_models(const ModelHost& host);
void copy_model(const ModelStore& store, const std::string& body);
void delete_model(const ModelStore& store, ModelHost& host, const std::string& body);
Json openai_models(const ModelStore& store);
Json openai_model(const ModelStore& store, const std::string& id);

}  // namespace troika::serving
