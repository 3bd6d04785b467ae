// SPDX-License-Identifier: Apache-2.0
#include <sstream>
#include <string>

#include <support/catch.hpp>

#include <troika/observe/trace.hpp>

using troika::Lane;
using troika::Span;
using troika::Trace;

TEST_CASE("a trace has one named track per rank and lane") {
  Trace trace;
  auto& compute = trace.track(1, Lane::compute);
  { Span span(&compute, "linear"); }
  { Span span(&trace.track(1, Lane::communication), "all_reduce", 4096); }
  CHECK(&compute == &trace.track(1, Lane::compute));

  std::ostringstream out;
  trace.write(out);
  const auto text = out.str();
  CHECK_THAT(text, Catch::Matchers::ContainsSubstring("\"name\":\"rank 1 compute\""));
  CHECK_THAT(text, Catch::Matchers::ContainsSubstring("\"name\":\"rank 1 communication\""));
  CHECK_THAT(text, Catch::Matchers::ContainsSubstring("\"ph\":\"X\",\"pid\":1,\"tid\":3,\"name\":\"linear\""));
  CHECK_THAT(text, Catch::Matchers::ContainsSubstring("\"bytes\":4096"));
}

TEST_CASE("a name that JSON would trip over is escaped") {
  Trace trace;
  { Span span(&trace.track(0, Lane::compute), "a\"b\\c\n"); }
  std::ostringstream out;
  trace.write(out);
  CHECK_THAT(out.str(), Catch::Matchers::ContainsSubstring(R"("name":"a\"b\\c ")"));
}

TEST_CASE("a span without a track records nothing") {
  { Span span(nullptr, "linear"); }
  Trace trace;
  std::ostringstream out;
  trace.write(out);
  CHECK(out.str().find("\"X\"") == std::string::npos);
}
