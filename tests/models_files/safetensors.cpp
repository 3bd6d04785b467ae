// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/safetensors.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>
#include <troika/models/files/weights.hpp>

using namespace troika;
using namespace troika::models;
using Catch::Matchers::ContainsSubstring;
using troika::test::TempFolder;

namespace {

std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xff);
  return bytes;
}

std::string file_of(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// What open() says about these bytes: the fault and the message, or "" when it accepts them.
struct Verdict {
  std::string message;
  Fault fault = Fault::invalid_argument;
};
Verdict open_bytes(const TempFolder& folder, const std::string& bytes) {
  const auto path = folder.write("model.safetensors", bytes);
  try {
    SafetensorsFile::open(path);
    return {};
  } catch (const Error& error) {
    return {error.what(), error.fault()};
  }
}

// Pages of files that this process holds in memory.
std::size_t resident_file_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    if (word == "RssFile:") {
      std::size_t kib = 0;
      file >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace

TEST_CASE("A safetensors file gives its tensors by name") {
  const TempFolder folder;
  std::vector<float> weights(12);
  for (std::size_t i = 0; i < 12; ++i) weights[i] = static_cast<float>(i);
  const std::vector<bf16> norm{bf16(1.5f), bf16(-2.0f)};
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},)"
      R"("norm":{"dtype":"BF16","shape":[2],"data_offsets":[48,52]},"scale":{"dtype":"F32","shape":[],"data_offsets":[52,56]}}  )";
  const auto path =
      folder.write("model.safetensors", file_of(header, raw(weights) + raw(norm) + raw(std::vector<float>{7})));
  const auto file = SafetensorsFile::open(path);

  REQUIRE(file.tensors().size() == 3);
  CHECK(file.tensors()[0].name == "norm");
  CHECK(file.metadata().at("format") == "pt");
  CHECK(file.info("w").shape == Shape{3, 4});
  CHECK(file.info("w").type == WeightType::f32);
  CHECK(file.info("scale").shape.dims() == 0);
  CHECK(file.find("absent") == nullptr);
  CHECK_THROWS_WITH(file.info("absent"), ContainsSubstring("no tensor 'absent'"));

  std::vector<float> rows(8), columns(6), whole(1), converted(2);
  file.read_rows<float>(file.info("w"), {1, 3}, rows);
  CHECK(rows == std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11});
  file.read_columns<float>(file.info("w"), {1, 3}, columns);
  CHECK(columns == std::vector<float>{1, 2, 5, 6, 9, 10});
  file.read<float>(file.info("scale"), whole);
  CHECK(whole[0] == 7);
  file.read<float>(file.info("norm"), converted);
  CHECK(converted == std::vector<float>{1.5f, -2.0f});

  std::vector<float> copied(8);
  file.copy_rows(file.info("w"), {0, 2}, std::as_writable_bytes(std::span(copied)));
  CHECK(copied == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
  file.copy_columns(file.info("w"), {0, 1}, std::as_writable_bytes(std::span(copied).first(3)));
  CHECK(copied[1] == 4);
  CHECK(copied[2] == 8);

  CHECK_THROWS_WITH(file.read_rows<float>(file.info("w"), {2, 4}, rows), ContainsSubstring("rows 2 to 4"));
  CHECK_THROWS_WITH(file.read_columns<float>(file.info("norm"), {0, 1}, rows), ContainsSubstring("not a matrix"));
  CHECK_THROWS_WITH(file.read_rows<float>(file.info("w"), {0, 1}, rows), ContainsSubstring("destination 8"));
  CHECK_THROWS_WITH(file.read_rows<float>(file.info("scale"), {0, 1}, rows), ContainsSubstring("scalar"));
  file.read_rows<float>(file.info("w"), {2, 2}, std::span<float>{});  // a rank with nothing to do
}

TEST_CASE("A tensor that is not aligned for its type can be read") {
  const TempFolder folder;
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  const auto file = SafetensorsFile::open(folder.write("m", file_of(header, "x" + raw(std::vector<float>{3, 4}))));
  std::vector<float> values(2);
  file.read<float>(file.info("b"), values);
  CHECK(values == std::vector<float>{3, 4});
  std::vector<bf16> rounded(2);
  file.read<bf16>(file.info("b"), rounded);
  CHECK(static_cast<float>(rounded[1]) == 4);
}

TEST_CASE("A tensor of a type that troika lacks is listed, and only reading it fails") {
  const TempFolder folder;
  const std::string header =
      R"({"ids":{"dtype":"I64","shape":[1,2],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[1],"data_offsets":[16,20]}})";
  const auto file = SafetensorsFile::open(folder.write("m", file_of(header, std::string(20, '\0'))));
  CHECK(!file.info("ids").type);
  std::vector<float> value(1, 9);
  file.read<float>(file.info("w"), value);
  CHECK(value[0] == 0);
  CHECK_THROWS_WITH(file.bytes(file.info("ids")), ContainsSubstring("'ids'") && ContainsSubstring("I64"));
  try {
    file.bytes(file.info("ids"));
  } catch (const Error& error) {
    CHECK(error.fault() == Fault::unsupported);
  }
  std::vector<std::int32_t> integers(1);
  CHECK_THROWS_WITH(file.read<std::int32_t>(file.info("w"), integers), ContainsSubstring("cannot be read as i32"));
}

TEST_CASE("A hostile safetensors file is one clear error") {
  const TempFolder folder;
  struct Case {
    const char* what;
    std::string bytes;
    const char* message;
  };
  const std::string four(4, '\0'), eight(8, '\0');
  const auto one = [](const std::string& fields) { return "{\"w\":{" + fields + "}}"; };
  const std::string good = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  std::string deep = "{\"w\":";
  for (int i = 0; i < 100000; ++i) deep += "[";
  std::string deep_metadata = "{\"__metadata__\":";
  for (int i = 0; i < 100000; ++i) deep_metadata += "{\"a\":";

  const Case cases[] = {
      {"empty", "", "0 bytes"},
      {"seven bytes", std::string(7, '\0'), "7 bytes"},
      {"length 0", little_endian(0) + "{}", "header length is 0"},
      {"length over the limit", little_endian(100'000'001) + "{}", "at most 100000000"},
      {"length over the file", little_endian(50) + "{}", "only 2 bytes follow"},
      {"length all ones", little_endian(~std::uint64_t{0}) + "{}", "at most 100000000"},
      {"not JSON", file_of("{nonsense", ""), "not valid JSON"},
      {"JSON with a tail", file_of("{} {}", ""), "not valid JSON"},
      {"zero bytes after the JSON", file_of(std::string("{}\0\0", 4), ""), "not valid JSON"},
      {"not an object", file_of("[1]", ""), "does not begin with '{'"},
      {"space before", file_of(" {}", ""), "does not begin with '{'"},
      {"not UTF-8", file_of("{\"\xff\":1}", ""), "UTF-8"},
      {"deep lists", file_of(deep, ""), "must be an object, not a list"},
      {"deep objects", file_of(deep_metadata, ""), "'a' is an object"},
      {"a tensor twice", file_of("{\"w\":{" + good + "},\"w\":{" + good + "}}", four), "appears twice"},
      {"a field twice", file_of(one(good + ",\"dtype\":\"F32\""), four), "'dtype' twice"},
      {"metadata twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", ""), "twice"},
      {"a metadata key twice", file_of(R"({"__metadata__":{"a":"b","a":"b"}})", ""), "twice"},
      {"an unknown field", file_of(one(good + ",\"extra\":\"1\""), four), "unknown field 'extra'"},
      {"no dtype", file_of(one(R"("shape":[1],"data_offsets":[0,4])"), four), "no field 'dtype'"},
      {"no shape", file_of(one(R"("dtype":"F32","data_offsets":[0,4])"), four), "no field 'shape'"},
      {"no offsets", file_of(one(R"("dtype":"F32","shape":[1])"), four), "no field 'data_offsets'"},
      {"begin after end", file_of(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), four), "after its end"},
      {"end past the file", file_of(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])"), four), "past the end"},
      {"range not as long as the shape", file_of(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), four),
       "takes 8 bytes, but its range has 4"},
      {"wrong dtype", file_of(one(R"("dtype":"F16","shape":[1],"data_offsets":[0,4])"), four), "takes 2 bytes"},
      {"unknown dtype", file_of(one(R"("dtype":"Q4_K","shape":[1],"data_offsets":[0,4])"), four),
       "unknown type 'Q4_K'"},
      {"hole", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", eight), "hole after byte 0"},
      {"overlap",
       file_of("{\"a\":{" + good + R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})", std::string(6, '\0')),
       "overlaps"},
      {"same range twice", file_of("{\"a\":{" + good + "},\"b\":{" + good + "}}", four), "overlaps"},
      {"trailing bytes", file_of(one(good), eight), "4 bytes at the end"},
      {"data without tensors", file_of("{}", four), "4 bytes at the end"},
      {"shape overflow", file_of(one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"), four),
       "overflows"},
      {"shape overflow to the right size",
       file_of(one(R"("dtype":"U8","shape":[4611686018427387905,4],"data_offsets":[0,4])"), four), "overflows"},
      {"overflow hidden by a zero",
       file_of(one(R"("dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"), ""), "overflows"},
      {"extent over 63 bits",
       file_of(one(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"), four), "too large"},
      {"extent over 64 bits",
       file_of(one(R"("dtype":"F32","shape":[184467440737095516160],"data_offsets":[0,4])"), four), "whole numbers"},
      {"number over double", file_of(one(R"("dtype":"F32","shape":[1e999],"data_offsets":[0,4])"), four),
       "not valid JSON"},
      {"negative extent", file_of(one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), four), "the number -1"},
      {"negative offset", file_of(one(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), four), "the number -4"},
      {"float extent", file_of(one(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), four), "the number 1.0"},
      {"string extent", file_of(one(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"), four), "the string '1'"},
      {"shape a number", file_of(one(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), four),
       "the number 1 as its shape"},
      {"dtype a number", file_of(one(R"("dtype":32,"shape":[1],"data_offsets":[0,4])"), four), "as its dtype"},
      {"one offset", file_of(one(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), four), "two numbers"},
      {"three offsets", file_of(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), four), "two numbers"},
      {"five dimensions", file_of(one(R"("dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4])"), four),
       "more than 4 dimensions"},
      {"half a byte", file_of(one(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])"), "x"), "whole bytes"},
      {"tensor a number", file_of(R"({"w":3})", ""), "'w' must be an object"},
      {"metadata not strings", file_of(R"({"__metadata__":{"a":1}})", ""), "holds strings only"},
      {"metadata a string", file_of(R"({"__metadata__":"a"})", ""), "'__metadata__' must be an object"},
  };
  for (const auto& hostile : cases) {
    const auto verdict = open_bytes(folder, hostile.bytes);
    INFO(hostile.what << ": " << verdict.message);
    CHECK_THAT(verdict.message, ContainsSubstring(hostile.message));
    CHECK_THAT(verdict.message, ContainsSubstring("model.safetensors"));
    CHECK((verdict.fault == Fault::bad_file || verdict.fault == Fault::unsupported));
    CHECK(verdict.message.size() < 600);
  }
  CHECK(open_bytes(folder, file_of("{}", "")).message.empty());
  CHECK(open_bytes(folder, file_of(one(R"("dtype":"F32","shape":[0,5],"data_offsets":[0,0])"), "")).message.empty());
}

TEST_CASE("A safetensors file cut at any byte is refused") {
  const TempFolder folder;
  const std::string bytes = file_of(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]}})",
      std::string(12, 'x'));
  REQUIRE(open_bytes(folder, bytes).message.empty());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const auto verdict = open_bytes(folder, bytes.substr(0, length));
    INFO(length);
    CHECK(verdict.fault == Fault::bad_file);
    CHECK(!verdict.message.empty());
  }
}

TEST_CASE("A sharded folder is read through its index") {
  const TempFolder folder;
  const auto tensor = [](const std::string& name) {
    return R"({")" + name + R"(":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}})";
  };
  folder.write("model-00001-of-00002.safetensors", file_of(tensor("a"), raw(std::vector<float>{1, 2})));
  folder.write("model-00002-of-00002.safetensors", file_of(tensor("b"), raw(std::vector<float>{3, 4})));
  folder.write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":16},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})");
  const auto opened = Weights::open(folder.path());
  const Weights weights = Weights::open(folder.path());
  CHECK(weights.names() == std::vector<std::string>{"a", "b"});
  CHECK(weights.total_bytes() == 16);
  CHECK(weights.contains("a"));
  CHECK(!weights.contains("c"));
  std::vector<float> row(1);
  weights.read_rows<float>("b", {1, 2}, row);
  CHECK(row[0] == 4);
  weights.expect("a", {2, 1});
  CHECK_THROWS_WITH(weights.expect("a", {1, 2}),
                    ContainsSubstring("'a' has shape (2, 1)") && ContainsSubstring("(1, 2)"));
  CHECK_THROWS_WITH(weights.info("c"), ContainsSubstring("no tensor 'c'"));

  // A moved Weights still finds its tensors.
  Weights first = Weights::open(folder.path());
  const Weights second = std::move(first);
  second.read_rows<float>("a", {0, 1}, row);
  CHECK(row[0] == 1);
}

TEST_CASE("A hostile index is one clear error") {
  const TempFolder folder;
  const std::string inside = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  folder.write("part", file_of(inside, std::string(4, '\0')));
  const std::pair<const char*, const char*> cases[] = {
      {R"({"weight_map":{"a":"../part"}})", "names of files in the same folder"},
      {R"({"weight_map":{"a":".."}})", "names of files in the same folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "names of files in the same folder"},
      {R"({"weight_map":{"a":""}})", "names of files in the same folder"},
      {R"({"weight_map":{"a":"part\u0000x"}})", "names of files in the same folder"},
      {R"({"weight_map":{"a":"absent"}})", "No such file"},
      {R"({"weight_map":{"b":"part"}})", "no tensor 'b'"},
      {R"({"weight_map":{"a":3}})", "must be a file name"},
      {R"({"weight_map":[]})", "must be a JSON object"},
      {R"({})", "no field 'weight_map'"},
      {R"({"weight_map":{"a":"part","a":"part"}})", "twice"},
      {R"([])", "must be a JSON object"},
      {"", "not valid JSON"},
  };
  for (const auto& [text, message] : cases) {
    folder.write("model.safetensors.index.json", text);
    INFO(text);
    CHECK_THROWS_WITH(Weights::open(folder.path()), ContainsSubstring(message));
  }
  std::filesystem::remove(folder.path() / "model.safetensors.index.json");
  CHECK_THROWS_WITH(Weights::open(folder.path()), ContainsSubstring("holds no weights"));
}

TEST_CASE("Ranks that read their parts hold few pages of the file, and leave none behind") {
  const TempFolder folder;
  constexpr std::int64_t rows = 4096, columns = 4096;  // 64 MiB
  const std::string header = R"({"w":{"dtype":"F32","shape":[4096,4096],"data_offsets":[0,67108864]}})";
  {
    std::string bytes = file_of(header, "");
    std::ofstream out(folder.write("model.safetensors", bytes), std::ios::binary | std::ios::app);
    std::vector<float> row(columns);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < columns; ++c) row[static_cast<std::size_t>(c)] = static_cast<float>(r * columns + c);
      out.write(reinterpret_cast<const char*>(row.data()), columns * 4);
    }
  }
  const auto weights = Weights::open(folder.path());
  constexpr int ranks = 4;
  std::vector<std::vector<float>> parts(ranks, std::vector<float>(std::size_t{rows * columns} / ranks));
  for (auto& part : parts) std::fill(part.begin(), part.end(), -1.0f);
  for (const bool by_rows : {true, false}) {
    const auto before = resident_file_bytes();
    std::vector<std::thread> threads;
    std::atomic<int> reading = ranks;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const Range range{rank * rows / ranks, (rank + 1) * rows / ranks};
        auto& part = parts[static_cast<std::size_t>(rank)];
        if (by_rows)
          weights.read_rows<float>("w", range, part);
        else
          weights.read_columns<float>("w", range, part);
        --reading;
      });
    }
    std::size_t peak = 0;
    while (reading > 0) peak = std::max(peak, resident_file_bytes());
    for (auto& thread : threads) thread.join();
    const auto after = resident_file_bytes();
    INFO("before " << before << ", peak " << peak << ", after " << after);
    CHECK(peak < before + (std::size_t{16} << 20));
    CHECK(after < before + (std::size_t{4} << 20));
    CHECK(parts[1][5] == static_cast<float>(by_rows ? rows / 4 * columns + 5 : columns / 4 + 5));
    CHECK(parts[3].back() == static_cast<float>(rows * columns - 1));
  }
}

TEST_CASE("A file that is shortened while it is mapped is an error where its tensors are read") {
  const TempFolder folder;
  const std::string values(4096 * 1024, 'x');  // more than is read in one piece
  const auto path = folder.write(
      "short.safetensors", file_of(R"({"a":{"dtype":"U8","shape":[1024,4096],"data_offsets":[0,4194304]}})", values));
  const auto file = SafetensorsFile::open(path);
  std::vector<std::byte> rows(values.size());
  file.copy_rows(file.info("a"), {0, 1024}, rows);
  std::filesystem::resize_file(path, 100);
  CHECK_THROWS_WITH(file.copy_rows(file.info("a"), {0, 1024}, rows),
                    ContainsSubstring("short.safetensors") && ContainsSubstring("has 100 now"));
  CHECK_THROWS_WITH(file.copy_columns(file.info("a"), {0, 64}, std::span(rows).first(1024 * 64)),
                    ContainsSubstring("has 100 now"));
}

TEST_CASE("Only regular files are opened, and errors say why") {
  const TempFolder folder;
  CHECK_THROWS_WITH(MappedFile::open(folder.path()), ContainsSubstring("folder"));
  CHECK_THROWS_WITH(MappedFile::open(folder.path() / "absent"),
                    ContainsSubstring("absent") && ContainsSubstring("No such file"));
  CHECK_THROWS_WITH(MappedFile::open("/dev/zero"), ContainsSubstring("not a regular file"));
  const auto empty = MappedFile::open(folder.write("empty", ""));
  CHECK(empty.size() == 0);
  CHECK(empty.bytes().empty());
  auto one = MappedFile::open(folder.write("one", "abc"));
  auto two = std::move(one);
  CHECK(one.size() == 0);
  CHECK(std::memcmp(two.bytes().data(), "abc", 3) == 0);
  two.release(two.bytes());
  two = MappedFile::open(folder.path() / "empty");
  CHECK(two.bytes().empty());
}
