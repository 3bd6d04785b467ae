// SPDX-License-Identifier: Apache-2.0
// A GGUF file of any bytes is read, or refused with an Error, by everything that reads such files; whatever it lists
// can be read, and a tokenizer that it makes can be used.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <troika/core/error.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>
#include <troika/models/text/chat.hpp>
#include <troika/models/text/tokenizer.hpp>

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
    std::vector<std::byte> copy(bytes.size());
    if (tensor.shape.dims() >= 2) file.copy_rows(tensor, {0, tensor.shape[0]}, copy);
    if (tensor.shape.dims() == 2) file.copy_columns(tensor, {0, tensor.shape[1]}, copy);
    std::vector<float> values(static_cast<std::size_t>(tensor.shape.count()));
    file.read<float>(tensor, values);
  }
  if (total > size) std::abort();
  const auto& metadata = file.metadata();
  for (std::size_t i = 0; i < metadata.size(); ++i) {
    const auto entry = metadata[i];
    if (!metadata.contains(entry.key)) std::abort();
    tolerated([&] { (void)metadata.integer(entry.key, -1000, 1000); });
    tolerated([&] { (void)metadata.number(entry.key, -1, 1); });
    tolerated([&] { (void)metadata.boolean(entry.key, false); });
    tolerated([&] { (void)metadata.string(entry.key); });
    tolerated([&] { (void)metadata.strings(entry.key); });
    tolerated([&] { (void)metadata.integers(entry.key, 0, 7); });
    tolerated([&] { (void)metadata.floats(entry.key); });
  }
}

void read_weights(const std::string& path) {
  const auto weights = Weights::open(path);
  for (const auto& name : weights.names()) {
    const auto& info = weights.info(name);
    tolerated([&] {
      std::vector<float> values(static_cast<std::size_t>(info.type ? info.shape.count() : 0));
      weights.read<float>(name, values);
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int fd = ::memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  tolerated([&] {
    read_file(path, size);  // what this refuses, the others refuse too
    tolerated([&] { (void)ModelConfig::load(path); });
    tolerated([&] { read_weights(path); });
    tolerated([&] { (void)ChatTemplate::load(path).render(std::vector<ChatMessage>{{"user", "a"}}); });
    use_tokenizer(path);
  });
  return 0;
}
