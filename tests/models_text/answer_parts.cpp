// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/answer_parts.hpp>

#include <string>
#include <string_view>

#include <support/catch.hpp>

using troika::models::AnswerParts;
using troika::models::ToolStyle;

namespace {

// In pieces of so many bytes: text as it is, thoughts in (), calls in [].
std::string taken_apart(AnswerParts::Wanted wanted, std::string_view text, std::size_t size) {
  AnswerParts parts(wanted);
  std::string got, open;
  const auto note = [&](const std::vector<AnswerParts::Part>& more) {
    for (const auto& part : more) {
      const bool thinking = part.kind == AnswerParts::Part::Kind::thinking;
      if (thinking && open.empty()) got += "(";
      if (!thinking && !open.empty()) got += ")";
      open = thinking ? "(" : "";
      got += part.kind == AnswerParts::Part::Kind::call ? "[" + part.call.name + " " + part.call.arguments + "]"
                                                        : part.text;
    }
  };
  for (; !text.empty(); text.remove_prefix(std::min(size, text.size()))) note(parts.add(text.substr(0, size)));
  note(parts.finish());
  return got + (open.empty() ? "" : ")");
}

}  // namespace

TEST_CASE("an answer is taken apart alike, however it is cut") {
  for (const std::size_t size : {1u, 2u, 3u, 7u, 1000u}) {
    CAPTURE(size);
    const auto both = [&](std::string_view text) { return taken_apart({true, ToolStyle::hermes}, text, size); };
    CHECK(both("Hello < b") == "Hello < b");
    CHECK(both("<think>\nhm, <b> \n</think>\n\nYes \n") == "(hm, <b>)Yes \n");
    CHECK(both("<think>\n\n</think>\n\nYes") == "Yes");
    CHECK(both("<think>hm") == "(hm)");
    CHECK(both(" <thin") == " <thin");
    CHECK(both("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": [2]}}\n</tool_call>") ==
          R"([f {"b":1,"a":[2]}])");
    CHECK(both("Well.\n<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</"
               "tool_call>\n") == "Well.[f {}][g {}]");
    CHECK(both("<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>") == "(a)[f {}]");
    // What is none, or not whole, is text
    CHECK(both("a <tool_call>{\"name\":\"f\"") == "a <tool_call>{\"name\":\"f\"");
    CHECK(both("<tool_call>f(1)</tool_call> b") == "<tool_call>f(1)</tool_call> b");
    CHECK(both("<tool_call>{\"name\":1}</tool_call>") == "<tool_call>{\"name\":1}</tool_call>");
    CHECK(both("<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>") ==
          "<tool_call>{\"name\":\"f\",\"arguments\":[1]}</tool_call>");
    CHECK(both("<tool_ca") == "<tool_ca");
    CHECK(taken_apart({}, "<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>", size) ==
          "<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>");
    CHECK(taken_apart({false, ToolStyle::hermes}, "<think>a</think>", size) == "<think>a</think>");
  }
}

TEST_CASE("calls of Llama are JSON at the beginning, or behind a mark") {
  for (const std::size_t size : {1u, 2u, 3u, 7u, 1000u}) {
    CAPTURE(size);
    const auto llama = [&](std::string_view text) { return taken_apart({false, ToolStyle::llama3}, text, size); };
    CHECK(llama("Hello {\"name\": \"f\", \"parameters\": {}}") == "Hello {\"name\": \"f\", \"parameters\": {}}");
    CHECK(llama("\n{\"name\": \"f\", \"parameters\": {\"b\": \"}\\\"{\", \"a\": [{}]}}\n") ==
          R"([f {"b":"}\"{","a":[{}]}])");
    CHECK(llama("<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"arguments\": {}} ok") == "[f {}]ok");
    CHECK(llama("Well. <|python_tag|>{\"name\": \"f\", \"parameters\": {}}") == "Well.[f {}]");
    CHECK(llama("{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"a\": 1}}") ==
          R"([f {}][g {"a":1}])");
    CHECK(llama("{\"name\": \"f\", \"parameters\": {}}\n<|python_tag|>{\"name\": \"g\", \"parameters\": {}}") ==
          "[f {}][g {}]");
    // What is none, or not whole, is text
    CHECK(llama("{\"name\": \"Ada\", \"age\": 36} {\"name\": \"f\", \"parameters\": {}}") ==
          "{\"name\": \"Ada\", \"age\": 36} {\"name\": \"f\", \"parameters\": {}}");
    CHECK(llama("{\"name\": \"f\", \"parameters\": \"{}\"}") == "{\"name\": \"f\", \"parameters\": \"{}\"}");
    CHECK(llama("{\"name\": \"f\", \"parameters\": {") == "{\"name\": \"f\", \"parameters\": {");
    CHECK(llama("<|python_tag|>search.call(query=\"a\")") == "<|python_tag|>search.call(query=\"a\")");
    CHECK(llama("<|pyth") == "<|pyth");
    CHECK(llama(" \n") == " \n");
  }
}

TEST_CASE("calls of Mistral are a list behind a mark") {
  for (const std::size_t size : {1u, 2u, 3u, 7u, 1000u}) {
    CAPTURE(size);
    const auto mistral = [&](std::string_view text) { return taken_apart({false, ToolStyle::mistral}, text, size); };
    CHECK(mistral("Hello [TOOL], {\"name\": \"f\", \"arguments\": {}}") ==
          "Hello [TOOL], {\"name\": \"f\", \"arguments\": {}}");
    CHECK(
        mistral(
            "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"b\": \"]\"}}, {\"name\": \"g\", \"arguments\": {}}]") ==
        R"([f {"b":"]"}][g {}])");
    CHECK(mistral("Well. [TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}, \"id\": \"abcdefghi\"}] ok") ==
          "Well.[f {}]ok");
    // What is none, or not whole, is text; one that is none makes all of them text
    for (const std::string text :
         {"[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"arguments\": {}}]", "[TOOL_CALLS] []",
          "[TOOL_CALLS]f{}", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}", "[TOOL_CALLS", "a [TOOL_CALLS] "})
      CHECK(mistral(text) == text);
  }
}
