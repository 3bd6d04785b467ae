// SPDX-License-Identifier: Apache-2.0
// A GGUF file of any bytes is read, or refused with an Error, by everything that reads such files; whatever it lists
// can be read, and a tokenizer that it makes can be used.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>
#include <troika/models/text/chat.hpp>
#include <troika/models/text/tokenizer.hpp>

#include "bounded.hpp"
#include "file_in_memory.hpp"
#include "models/files/gguf_header.hpp"
#include "mutate_gguf.hpp"

namespace {

using namespace troika;
using namespace troika::models;

template <class F>
void tolerated(F f) {
  try {
    f();
  } catch (const Error&) {
  }
}

enum class Read { integer, number, boolean, string, strings, integers, floats };

Read fitting(const GgufMetadata::Entry& entry) {
  switch (entry.type) {
    case GgufType::string: return entry.is_array ? Read::strings : Read::string;
    case GgufType::boolean: return Read::boolean;
    case GgufType::f32:
    case GgufType::f64: return entry.is_array ? Read::floats : Read::number;
    default: return entry.is_array ? Read::integers : Read::integer;
  }
}

void read_entry(const GgufMetadata& metadata, std::string_view key, Read read) {
  switch (read) {
    case Read::integer: (void)metadata.integer(key, -1000, 1000); break;
    case Read::number: (void)metadata.number(key, -1, 1); break;
    case Read::boolean: (void)metadata.boolean(key, false); break;
    case Read::string: (void)metadata.string(key); break;
    case Read::strings: (void)metadata.strings(key); break;
    case Read::integers: (void)metadata.integers(key, 0, 7); break;
    case Read::floats: (void)metadata.floats(key); break;
  }
}

void read_file(const std::string& path, std::size_t size) {
  const auto file = GgufFile::open(path);
  std::uint64_t total = 0;
  for (const auto& tensor : file.tensors()) {
    total += tensor.size_bytes();
    if (file.find(tensor.name) != &tensor) std::abort();
    if (!tensor.type) continue;
    const auto bytes = file.bytes(tensor);
    const auto rows = tensor.shape.count() / tensor.shape[tensor.shape.dims() - 1];
    if (bytes.size() != static_cast<std::size_t>(rows) * row_bytes(*tensor.type, tensor.shape[tensor.shape.dims() - 1]))
      std::abort();
    fuzz::Buffer<std::byte> copy(bytes.size());
    if (tensor.shape.dims() >= 2) file.copy_rows(tensor, {0, tensor.shape[0]}, copy);
    if (tensor.shape.dims() == 2) file.copy_columns(tensor, {0, tensor.shape[1]}, copy);
    fuzz::Buffer<float> values(static_cast<std::size_t>(tensor.shape.count()));
    file.read<float>(tensor, std::span(values.begin(), values.end()));
  }
  if (total > size) std::abort();
  const auto& metadata = file.metadata();
  for (std::size_t i = 0; i < metadata.size(); ++i) {
    const auto entry = metadata[i];
    if (!metadata.contains(entry.key)) std::abort();
    // What it is, and one more that it may not be: a refusal takes longer than all else.
    tolerated([&] { read_entry(metadata, entry.key, fitting(entry)); });
    tolerated([&] { read_entry(metadata, entry.key, static_cast<Read>((size + i) % 7)); });
  }
}

void read_weights(const std::string& path) {
  const auto weights = Weights::open(path);
  for (const auto& name : weights.names()) {
    const auto& info = weights.info(name);
    tolerated([&] {
      fuzz::Buffer<float> values(static_cast<std::size_t>(info.type ? info.shape.count() : 0));
      weights.read<float>(name, std::span(values.begin(), values.end()));
    });
  }
}

void use_tokenizer(const std::string& path) {
  const auto tokenizer = Tokenizer::load(path);
  for (const char* text : {"a b  ab\n1", "\xe2\x96\x81 \xc3\xa4<s>aaaa"}) {
    const auto ids = tokenizer.encode(text);
    for (const auto id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
    }
    (void)tokenizer.decode(ids);
  }
}

void read_bytes(std::span<const std::byte> bytes) {
  // Most files are refused: without a file, which takes longer than they do. All that read files refuse the same.
  GgufHeader(bytes, "header");
  const auto& path = fuzz::file_of(bytes);
  read_file(path, bytes.size());
  tolerated([&] { (void)ModelConfig::load(path); });
  tolerated([&] { read_weights(path); });
  tolerated([&] { (void)ChatTemplate::load(path).render(std::vector<ChatMessage>{{"user", "a"}}); });
  use_tokenizer(path);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return fuzz::bounded(size, [&] { tolerated([&] { read_bytes(std::as_bytes(std::span(data, size))); }); });
}
