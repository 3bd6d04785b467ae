// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/models/files/gguf.hpp>
#include <troika/models/files/safetensors.hpp>
#include <troika/models/files/tensor_info.hpp>

namespace troika::models {

struct ModelConfig;
struct StoredTensor;  // src/models/files/tensor_slices.hpp

// All weights of a model under the names of Hugging Face, from a folder (`model.safetensors`, or the files that
// `model.safetensors.index.json` names) or from a GGUF file and the parts beside it. Rows that GGUF files keep in
// another order (q and k of Llama models) come back in that of Hugging Face. Decoders have the names of Llama, encoders
// those of BERT: matrices that a file has in one tensor (qkv, gate and up, all experts of a layer) are found one by
// one, and those of GPT-2 as (out, in). Every rank may hold a reference to the same one and read its own part of each
// tensor.
class Weights {
 public:
  static Weights open(const std::filesystem::path& path);

  const std::filesystem::path& folder() const { return path_; }  // or the GGUF file
  std::vector<std::string> names() const;                        // sorted
  bool contains(std::string_view name) const { return index_.find(name) != index_.end(); }
  const TensorInfo& info(std::string_view name) const;
  // Info, after checking that the tensor has this shape: Error{bad_file} names both shapes.
  const TensorInfo& expect(std::string_view name, const Shape& shape) const;
  std::uint64_t total_bytes() const;

  // The tensor as the file has it; Error{unsupported} where its rows are in another order there.
  std::span<const std::byte> bytes(std::string_view name) const;
  // As those of SafetensorsFile and GgufFile.
  void copy_rows(std::string_view name, Range rows, std::span<std::byte> out) const;
  void copy_columns(std::string_view name, Range columns, std::span<std::byte> out) const;
  template <Element T>
  void read(std::string_view name, std::span<T> out) const;
  template <Element T>
  void read_rows(std::string_view name, Range rows, std::span<T> out) const;
  template <Element T>
  void read_columns(std::string_view name, Range columns, std::span<T> out) const;

 private:
  struct Entry {  // pointers into the lists below, which never change after open()
    const TensorInfo* tensor = nullptr;
    const MappedFile* file = nullptr;
    const std::byte* data = nullptr;
    std::int64_t head_rows = 0, transposed = 0;  // see StoredTensor
  };
  const Entry& entry(std::string_view name) const;
  StoredTensor stored(std::string_view name) const;
  // Adds the tensor under its name, or the parts that it has.
  void add(TensorInfo info, Entry entry, const ModelConfig& config);
  void open_folder();
  void open_gguf();

  std::filesystem::path path_;
  std::vector<SafetensorsFile> safetensors_;
  std::vector<GgufFile> gguf_;
  std::deque<TensorInfo> renamed_;  // those whose names or shapes are not as the file has them
  std::map<std::string, Entry, std::less<>> index_;
};

}  // namespace troika::models
