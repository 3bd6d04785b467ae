// SPDX-License-Identifier: Apache-2.0
#include <troika/models/files/gguf.hpp>

#include <limits>
#include <string>
#include <vector>

#include <models_files/gguf_bytes.hpp>
#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>

using namespace troika;
using namespace troika::models;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string floats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += le(value);
  return bytes;
}

// A block of Q8_0 with the scale 1, or of Q4_0 (which ignores the signs), filled with one value.
std::string q8_0(int value) { return le<std::uint16_t>(0x3c00) + std::string(32, static_cast<char>(value)); }

std::string refused(const TempFolder& folder, const std::string& bytes, Fault& fault) {
  try {
    GgufFile::open(folder.write("m.gguf", bytes));
    return {};
  } catch (const Error& error) {
    fault = error.fault();
    return error.what();
  }
}

}  // namespace

TEST_CASE("A GGUF file gives its metadata of every type") {
  for (const std::uint32_t version : {2u, 3u}) {
    const TempFolder folder;
    GgufBytes bytes;
    bytes.version = version;
    bytes.raw("u8", 0, "\xff")
        .raw("i8", 1, "\xff")
        .raw("u16", 2, le<std::uint16_t>(65535))
        .raw("i16", 3, le<std::int16_t>(-2));
    bytes.u32("u32", 4000000000u)
        .raw("i32", 5, le<std::int32_t>(-3))
        .f32("f32", 0.5f)
        .boolean("yes", true)
        .boolean("no", false);
    bytes.string("text", "a\nb")
        .raw("u64", 10, le_u64(1ull << 40))
        .raw("i64", 11, le<std::int64_t>(-4))
        .raw("f64", 12, le(0.25));
    bytes.strings("list", {"x", "", "yz"})
        .numbers<std::int32_t>("ids", 5, {1, -1})
        .numbers<float>("scores", 6, {1.5f, -2});
    bytes.numbers<float>("nothing", 6, {});
    const auto file = GgufFile::open(folder.write("m.gguf", bytes.file()));
    const auto& m = file.metadata();
    CHECK(file.version() == static_cast<int>(version));
    CHECK(m.size() == 17);
    constexpr auto low = std::numeric_limits<std::int64_t>::min(), high = std::numeric_limits<std::int64_t>::max();
    CHECK(m.integer("u8", low, high) == 255);
    CHECK(m.integer("i8", low, high) == -1);
    CHECK(m.integer("u16", low, high) == 65535);
    CHECK(m.integer("i16", low, high) == -2);
    CHECK(m.integer("u32", low, high) == 4000000000);
    CHECK(m.integer("i32", low, high) == -3);
    CHECK(m.integer("u64", low, high) == 1ll << 40);
    CHECK(m.integer("i64", low, high) == -4);
    CHECK(m.integer("absent", 0, 1, 7) == 7);
    CHECK(m.number("f32", 0, 1) == 0.5);
    CHECK(m.number("f64", 0, 1) == 0.25);
    CHECK(m.number("u8", 0, 1000) == 255);
    CHECK(m.boolean("yes", false));
    CHECK_FALSE(m.boolean("no", true));
    CHECK(m.string("text") == "a\nb");
    CHECK(m.string("absent", "other") == "other");
    CHECK(m.strings("list") == std::vector<std::string_view>{"x", "", "yz"});
    CHECK(m.integers("ids", -1, 1) == std::vector<std::int64_t>{1, -1});
    CHECK(m.floats("scores") == std::vector<float>{1.5f, -2});
    CHECK(m.floats("nothing").empty());

    CHECK_THROWS_WITH(m.integer("u8", 0, 9),
                      ContainsSubstring("'u8' at byte") && ContainsSubstring("is 255; valid are the integers 0 to 9"));
    CHECK_THROWS_WITH(m.integer("text", 0, 9), ContainsSubstring("'text'") && ContainsSubstring("type string"));
    CHECK_THROWS_WITH(m.integer("list", 0, 9), ContainsSubstring("an array of 3"));
    CHECK_THROWS_WITH(m.integers("ids", 0, 9), ContainsSubstring("has -1 as element 1"));
    CHECK_THROWS_WITH(m.string("absent"), ContainsSubstring("no key 'absent'"));
    CHECK_THROWS_WITH(m.strings("ids"), ContainsSubstring("array of i32; valid are strings"));
    CHECK_THROWS_WITH(m.boolean("u8", true), ContainsSubstring("type u8; valid is bool"));
    CHECK_THROWS_WITH(m.number("f32", 0, 0.25), ContainsSubstring("is 0.5"));
  }
}

TEST_CASE("A GGUF file gives its tensors by name, rows last, in blocks and as numbers") {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.tensor("w", {4, 3}, 0, floats({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  bytes.tensor("q", {64, 2}, 8, q8_0(1) + q8_0(2) + q8_0(3) + q8_0(4));
  bytes.tensor("vector", {2}, 1, le<std::uint16_t>(0x3c00) + le<std::uint16_t>(0xc000));
  bytes.tensor("strange", {256}, 17, std::string(74, 'x')).tensor("integers", {2}, 26, le_u32(5) + le_u32(6));
  const auto file = GgufFile::open(folder.write("m.gguf", bytes.file()));

  REQUIRE(file.tensors().size() == 5);
  CHECK(file.tensors()[0].name == "integers");
  CHECK(file.info("w").shape == Shape{3, 4});
  CHECK(file.info("w").type == WeightType::f32);
  CHECK(file.info("q").type == WeightType::q8_0);
  CHECK(file.info("q").dtype_name == "Q8_0");
  CHECK(file.info("q").size_bytes() == 4 * 34);
  CHECK_FALSE(file.info("strange").type);
  CHECK(file.find("absent") == nullptr);
  CHECK_THROWS_WITH(file.info("absent"), ContainsSubstring("no tensor 'absent'"));

  std::vector<float> rows(8), columns(6), halves(2), values(64);
  file.read_rows<float>(file.info("w"), {1, 3}, rows);
  CHECK(rows == std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11});
  file.read_columns<float>(file.info("w"), {1, 3}, columns);
  CHECK(columns == std::vector<float>{1, 2, 5, 6, 9, 10});
  file.read<float>(file.info("vector"), halves);
  CHECK(halves == std::vector<float>{1, -2});
  file.read_rows<float>(file.info("q"), {1, 2}, values);
  CHECK(values[0] == 3);
  CHECK(values[63] == 4);
  file.read_columns<float>(file.info("q"), {32, 64}, values);
  CHECK(values[0] == 2);
  CHECK(values[32] == 4);
  std::vector<std::int32_t> integers(2);
  file.read<std::int32_t>(file.info("integers"), integers);
  CHECK(integers == std::vector<std::int32_t>{5, 6});

  std::vector<std::byte> blocks(68);
  file.copy_columns(file.info("q"), {0, 32}, blocks);
  CHECK(blocks[2] == std::byte{1});
  CHECK(blocks[36] == std::byte{3});
  file.copy_rows(file.info("q"), {0, 1}, blocks);
  CHECK(blocks[36] == std::byte{2});

  CHECK_THROWS_WITH(file.copy_columns(file.info("q"), {0, 40}, blocks),
                    ContainsSubstring("columns 0 to 40") && ContainsSubstring("multiples of 32"));
  CHECK_THROWS_WITH(file.copy_rows(file.info("q"), {1, 3}, blocks), ContainsSubstring("rows 1 to 3"));
  CHECK_THROWS_WITH(file.read<float>(file.info("strange"), values),
                    ContainsSubstring("IQ2_XS") && ContainsSubstring("Q4_K"));
  CHECK_THROWS_WITH(file.read<float>(file.info("integers"), halves), ContainsSubstring("cannot be read as f32"));
}

TEST_CASE("A file may choose its alignment, and end without padding") {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.alignment = 8;
  bytes.u32("general.alignment", 8).tensor("a", {1}, 0, floats({1})).tensor("b", {1}, 0, floats({2}));
  auto file = bytes.file();
  file.resize(file.size() - 4);
  const auto opened = GgufFile::open(folder.write("m.gguf", file));
  std::vector<float> value(1);
  opened.read<float>(opened.info("b"), value);
  CHECK(value[0] == 2);
}

TEST_CASE("A hostile GGUF file is refused by one error that says what is wrong") {
  const TempFolder folder;
  struct Case {
    const char* what;
    std::string bytes;
    const char* message;
    Fault fault = Fault::bad_file;
  };
  const auto one = [](const auto& change) {
    GgufBytes bytes;
    change(bytes);
    return bytes.file();
  };
  const auto start = [](std::uint32_t version, std::uint64_t tensors, std::uint64_t entries) {
    return "GGUF" + le_u32(version) + le_u64(tensors) + le_u64(entries);
  };
  const auto entry = [&](const std::string& bytes) { return start(3, 0, 1) + bytes; };
  const auto tensor = [&](const std::vector<std::uint64_t>& shape, std::uint32_t type, std::uint64_t begin = 0,
                          std::size_t data = 64) {
    return one([&](GgufBytes& b) { b.tensor_at("t", shape, type, begin).body = std::string(data, 'x'); });
  };
  const std::string four = floats({1});

  const std::vector<Case> cases{
      {"nothing", "", "begins with ''"},
      {"another magic", one([](GgufBytes& b) { b.magic = "GGML"; }),
       "begins with 'GGML'; a GGUF file begins with 'GGUF'"},
      {"only the magic", "GGUF", "at byte 4, the version takes 4 bytes, but only 0 are left"},
      {"version 0", start(0, 0, 0), "version 0 is not supported; supported are 2, 3", Fault::unsupported},
      {"version 1", start(1, 0, 0), "version 1 is not supported; supported are 2, 3", Fault::unsupported},
      {"version 4", start(4, 0, 0), "version 4 is not supported", Fault::unsupported},
      {"big endian", start(0x03000000, 0, 0), "is big endian", Fault::unsupported},
      {"half a header", start(3, 0, 0).substr(0, 20),
       "at byte 16, the number of metadata entries takes 8 bytes, but only 4"},
      {"too many tensors", start(3, 1, 0), "a table of 1 tensors takes 1 times at least 33 bytes, but only 0"},
      {"far too many tensors", start(3, ~0ull, 0), "a table of 18446744073709551615 tensors"},
      {"too many entries", start(3, 0, ~0ull), "metadata of 18446744073709551615 entries"},

      {"a key without end", entry(le_u64(~0ull) + "abcdefgh"),
       "the key of metadata entry 0 takes 18446744073709551615 bytes"},
      {"an empty key", entry(gguf_string("") + le_u32(0) + "xxx"),
       "at byte 24, the key of metadata entry 0 has 0 bytes; valid are 1 to 65535"},
      {"a key of 65536 bytes", entry(gguf_string(std::string(65536, 'k')) + le_u32(0) + "x"), "has 65536 bytes"},
      {"a key that is not UTF-8", entry(gguf_string("k\xff") + le_u32(0) + "x"), "is not UTF-8"},
      {"a key twice", one([](GgufBytes& b) { b.u32("k", 1).u32("l", 1).u32("k", 2); }),
       "the key 'k' appears a second time"},
      {"an unknown type", one([](GgufBytes& b) { b.raw("k", 13, "xxxx"); }),
       "the type of the value of 'k' is 13; valid are 0 to 12"},
      {"a value cut off", entry(gguf_string("k") + le_u32(10) + "xxx"),
       "the value of 'k' takes 1 times at least 8 bytes, but only 3"},
      {"a string cut off", entry(gguf_string("k") + le_u32(8) + le_u64(9) + "short"),
       "the value of 'k' takes 9 bytes, but only 5"},
      {"a bool of 2", one([](GgufBytes& b) { b.raw("k", 7, "\2"); }), "is a bool of 2; valid are 0, 1"},
      {"a bool of 2 in an array",
       one([](GgufBytes& b) { b.raw("k", 9, le_u32(7) + le_u64(2) + std::string("\1\2", 2)); }), "is a bool of 2"},
      {"an array of arrays", one([](GgufBytes& b) { b.raw("k", 9, le_u32(9) + le_u64(1) + le_u32(0) + le_u64(0)); }),
       "array of arrays"},
      {"an array of an unknown type", one([](GgufBytes& b) { b.raw("k", 9, le_u32(77) + le_u64(0)); }),
       "the element type of the value of 'k' is 77"},
      {"an array too long", one([](GgufBytes& b) { b.raw("k", 9, le_u32(4) + le_u64(1ull << 62)); }),
       "takes 4611686018427387904 times at least 4"},
      {"an array that overflows", one([](GgufBytes& b) { b.raw("k", 9, le_u32(10) + le_u64((1ull << 61) + 1)); }),
       "times at least 8 bytes"},
      {"strings too many", one([](GgufBytes& b) { b.raw("k", 9, le_u32(8) + le_u64(1ull << 40) + gguf_string("a")); }),
       "times at least 8 bytes"},
      {"a string of an array cut off",
       one([](GgufBytes& b) { b.raw("k", 9, le_u32(8) + le_u64(2) + gguf_string("a") + le_u64(1 << 20)); }),
       "string 1 of the value of 'k' takes 1048576 bytes"},

      {"alignment 0", one([](GgufBytes& b) { b.u32("general.alignment", 0); }),
       "is 0; valid are the powers of two from 8 to 65536"},
      {"alignment 24", one([](GgufBytes& b) { b.u32("general.alignment", 24); }), "is 24; valid are the powers of two"},
      {"alignment 2^31", one([](GgufBytes& b) { b.u32("general.alignment", 1u << 31); }), "is 2147483648; valid are"},
      {"alignment a string", one([](GgufBytes& b) { b.string("general.alignment", "32"); }), "'general.alignment'"},

      {"a name without end", start(3, 1, 0) + le_u64(1ull << 63) + std::string(40, 'x'), "the name of tensor 0 takes"},
      {"an empty name", one([&](GgufBytes& b) { b.tensor("", {1}, 0, four); }),
       "the name of tensor 0 has 0 bytes; valid are 1 to 64"},
      {"a name of 65 bytes", one([&](GgufBytes& b) { b.tensor(std::string(65, 'n'), {1}, 0, four); }), "has 65 bytes"},
      {"a name that is not UTF-8", one([&](GgufBytes& b) { b.tensor("\xc0", {1}, 0, four); }), "is not UTF-8"},
      {"a name twice", one([&](GgufBytes& b) { b.tensor("a", {1}, 0, four).tensor("a", {1}, 0, four); }),
       "the tensor 'a' appears twice"},
      {"no dimension", start(3, 1, 0) + gguf_string("t") + le_u32(0) + std::string(40, '\0'),
       "has 0 dimensions; valid are 1 to 4"},
      {"five dimensions", tensor({1, 1, 1, 1, 1}, 0), "has 5 dimensions"},
      {"2^32 - 1 dimensions", start(3, 1, 0) + gguf_string("t") + le_u32(~0u) + std::string(40, 'x'),
       "has 4294967295 dimensions"},
      {"a table cut off", start(3, 1, 0) + gguf_string("t") + le_u32(4) + le_u64(1) + le_u64(1) + le_u64(1) + le_u32(1),
       "dimension 3 of tensor 't' takes 8 bytes"},
      {"an extent of 0", tensor({4, 0}, 0), "dimension 1 of tensor 't' is 0; valid are sizes from 1"},
      {"a negative extent", tensor({~0ull}, 0), "dimension 0 of tensor 't' is 18446744073709551615"},
      {"a product over 64 bits", tensor({1ull << 32, 1ull << 32}, 0), "product is no more than 2^56"},
      {"a product over 64 bits that wraps to 4", tensor({(1ull << 62) + 1, 4}, 0), "product is no more than 2^56"},
      {"bytes past the file", tensor({1ull << 55}, 28), "reaches past the end of the file, which holds 64 bytes"},
      {"an unknown tensor type", tensor({1}, 99),
       "tensor 't' has the unknown type 99; supported are F32, F16, BF16, Q4_0", Fault::unsupported},
      {"a withdrawn tensor type", tensor({32}, 4), "the unknown type 4", Fault::unsupported},
      {"rows that are no whole blocks", tensor({33}, 2),
       "rows of 33 elements; its type Q4_0 stores them in blocks of 32"},
      {"rows that are no whole blocks of 256", tensor({128, 2}, 12), "its type Q4_K stores them in blocks of 256"},
      {"an offset that is not aligned", tensor({1}, 0, 4), "begins at byte 4 of the data; valid are multiples of 32"},
      {"an offset past the file", tensor({1}, 0, 1ull << 63), "past the end of the file"},
      {"an offset that wraps", tensor({8}, 0, ~0ull - 31), "past the end of the file"},
      {"a hole", tensor({1}, 0, 32), "leaves a hole; it should begin at 0"},
      {"an overlap",
       one([&](GgufBytes& b) { b.tensor("a", {16}, 0, std::string(64, 'x')).tensor_at("b", {1}, 0, 32); }),
       "tensor 'b' at bytes 32 to 36 of the data, which begin at byte 96, overlaps the tensor before it; it should "
       "begin at 64"},
      {"no data", tensor({1}, 0, 0, 0), "holds 0 bytes"},
      {"data cut off", tensor({17}, 0), "bytes 0 to 68 of the data"},
  };
  for (const auto& c : cases) {
    INFO(c.what);
    Fault fault{};
    const auto message = refused(folder, c.bytes, fault);
    CHECK_THAT(message, ContainsSubstring(c.message));
    CHECK_THAT(message, ContainsSubstring("m.gguf"));
    CHECK(fault == c.fault);
  }
}

TEST_CASE("A GGUF file cut off anywhere is refused, and one with any byte changed does no harm") {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.string("general.architecture", "llama")
      .strings("list", {"a", "bc"})
      .numbers<float>("scores", 6, {1, 2})
      .boolean("b", true);
  bytes.tensor("w", {32, 2}, 8, q8_0(1) + q8_0(2)).tensor("v", {3}, 0, floats({1, 2, 3}));
  const auto good = bytes.file();
  Fault fault{};
  REQUIRE(refused(folder, good, fault).empty());
  const auto end = good.size() - 20;  // the padding after the last tensor may be missing
  for (std::size_t size = 0; size < end; ++size) {
    if (refused(folder, good.substr(0, size), fault).empty())
      FAIL_CHECK("accepted " << size << " of " << end << " bytes");
  }
  CHECK(refused(folder, good.substr(0, end), fault).empty());
  for (std::size_t at = 0; at < bytes.header().size(); ++at) {
    for (const int flip : {1, 128, 255}) {
      auto bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      refused(folder, bad, fault);  // refused or not, but by an Error and nothing else
    }
  }
}

TEST_CASE("Parts of a model are found from any of them, and must belong together") {
  const auto part = [](std::uint16_t number, std::uint16_t count, const std::string& tensor, std::int32_t tensors = 2) {
    GgufBytes bytes;
    bytes.raw("split.no", 2, le(number)).raw("split.count", 2, le(count)).raw("split.tensors.count", 5, le(tensors));
    return bytes.tensor(tensor, {1}, 0, floats({1})).file();
  };
  const TempFolder folder;
  const auto first = folder.write("m-00001-of-00002.gguf", part(0, 2, "a"));
  const auto second = folder.write("m-00002-of-00002.gguf", part(1, 2, "b"));
  for (const auto& path : {first, second}) {
    const auto parts = open_gguf_parts(path);
    REQUIRE(parts.size() == 2);
    CHECK(parts[0].find("a") != nullptr);
    CHECK(parts[1].find("b") != nullptr);
  }
  CHECK(open_gguf_parts(folder.write("alone.gguf", part(0, 1, "a", 1))).size() == 1);

  const auto fails = [&](const std::string& message) {
    CHECK_THROWS_WITH(open_gguf_parts(first), ContainsSubstring(message));
  };
  folder.write("m-00002-of-00002.gguf", part(0, 2, "b"));
  fails("'split.no' at byte");
  folder.write("m-00002-of-00002.gguf", part(1, 3, "b"));
  fails("is 3; the other parts have 2");
  folder.write("m-00002-of-00002.gguf", GgufBytes().file());
  fails("no key 'split.count'");
  folder.write("m-00002-of-00002.gguf", part(1, 2, "b"));
  folder.write("m-00001-of-00002.gguf", part(0, 2, "a", 5));
  fails("is 5, but the parts have 2 tensors");
  folder.write("m-00001-of-00002.gguf", part(2, 2, "a"));
  fails("is 2; valid are the integers 0 to 1");
  std::filesystem::remove(second);
  folder.write("m-00001-of-00002.gguf", part(0, 2, "a"));
  fails("m-00002-of-00002.gguf");
  CHECK_THROWS_WITH(open_gguf_parts(folder.write("other.gguf", part(0, 2, "a"))),
                    ContainsSubstring("ends in -00001-of-00002.gguf"));
}
