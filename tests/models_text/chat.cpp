// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/chat.hpp>

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

const std::vector<ChatMessage> talk{
    {"system", " Be kind "}, {"user", "Hi"}, {"assistant", " <think>\nhm\n</think>\n\n Yes "}, {"user", "Why?"}};
const std::vector<ChatMessage> question{{"user", "Hi"}};

ChatTemplate recognise(const std::string& text) { return ChatTemplate::recognise(text, "<s>", "</s>"); }

const std::string llama3 =
    R"({{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %})";
const std::string chatml =
    R"({% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";
const std::string mistral =
    R"({{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %})";
const std::string mistral_last =
    R"({{ bos_token }}{% if loop.last and system_message is defined %}{{ "[INST]" + system_message + "\n\n" + message["content"] + "[/INST]" }}{% else %}{{ "[INST]" + message["content"] + "[/INST]" }}{% endif %}{{ " " + message["content"]|trim + eos_token }})";

}  // namespace

// What is expected was rendered by Jinja2 3.1 from templates of the same shape.
TEST_CASE("Conversations are written down as the family of their template does") {
  CHECK(recognise(llama3).render(talk) ==
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe "
        "kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n<think>\nhm\n</think>\n\n "
        "Yes<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  CHECK(recognise(llama3).render(question, false) == "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>");

  const std::string dated = "{% set date = '26 Jul 2024' %}Cutting Knowledge Date: December 2023" + llama3;
  const std::string date =
      "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
      "2024\n\n";
  CHECK_THAT(recognise(dated).render(talk),
             ContainsSubstring(date + "Be kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"));
  CHECK(recognise(dated).render(question) == date +
                                                 "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|"
                                                 "start_header_id|>assistant<|end_header_id|>\n\n");

  CHECK(recognise(chatml).render(talk) ==
        "<|im_start|>system\n Be kind <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n "
        "<think>\nhm\n</think>\n\n Yes <|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
  CHECK(recognise(chatml).render(question) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  const std::string helpful =
      R"({{ '<|im_start|>system\n' }}{{ '<|im_start|>system\nYou help.\nAlways.<|im_end|>\n' }})" + chatml;
  CHECK(recognise(helpful).render(question) ==
        "<|im_start|>system\nYou help.\nAlways.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  CHECK(recognise(helpful).render(talk) == recognise(chatml).render(talk));
  const auto thinks = recognise("{{ content.split('</think>')[-1].lstrip('\\n') }}" + chatml);
  CHECK(thinks.render(talk) ==
        "<|im_start|>system\n Be kind <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n Yes "
        "<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
  CHECK_THROWS_WITH(thinks.render(std::span(talk).first(3)), ContainsSubstring("cannot end with an answer"));

  const std::string gemma =
      R"({{ bos_token }}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }})";
  CHECK(recognise(gemma).render(std::span(talk).subspan(1)) ==
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n<think>\nhm\n</think>\n\n Yes<end_of_turn>\n"
        "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n");
  CHECK_THROWS_WITH(recognise(gemma).render(talk), ContainsSubstring("no place for a system message"));
  CHECK_THAT(recognise(gemma + "{{ first_user_prefix }}").render(talk, false),
             Catch::Matchers::StartsWith("<s><start_of_turn>user\n Be kind \n\nHi<end_of_turn>\n<start_of_turn>model"));

  const std::string phi3 =
      R"({{'<|user|>\n' + message['content'] + '<|end|>\n'}}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }})";
  CHECK(recognise(phi3).render(std::span(talk).first(2)) ==
        "<|system|>\n Be kind <|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n");
  CHECK(recognise(phi3).render(question, false) == "<|user|>\nHi<|end|>\n</s>");
  const std::string phi4 =
      R"({{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{{ '<|assistant|>' }})";
  CHECK(recognise(phi4).render(question) == "<|user|>Hi<|end|><|assistant|>");

  CHECK(recognise(mistral).render(question) == "<s>[INST] Hi [/INST]");
  CHECK(recognise(mistral).render(std::vector<ChatMessage>{{"user", "Hi"}, {"assistant", " Yes "}, {"user", "Why?"}}) ==
        "<s>[INST] Hi [/INST] Yes </s>[INST] Why? [/INST]");
  CHECK_THROWS_WITH(recognise(mistral).render(talk), ContainsSubstring("no place for a system message"));
  CHECK(recognise(mistral_last).render(talk) ==
        "<s>[INST]Hi[/INST] <think>\nhm\n</think>\n\n Yes</s>[INST] Be kind \n\nWhy?[/INST]");
  CHECK(recognise(mistral_last).render(question) == "<s>[INST]Hi[/INST]");
}

// Beyond what the oracle compares with the templates themselves.
TEST_CASE("Tools of Llama and Mistral that make no sense are refused, and results find their calls") {
  const std::string tool = R"({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})";
  const auto llama = recognise(
      R"(Cutting Knowledge Date: December 2023 26 Jul 2024 Environment: ipython {{- "Do not use variables.\n\n" }})" +
      llama3);
  REQUIRE(llama.tool_style() == ToolStyle::llama3);
  CHECK_THAT(
      llama.render(question, {.tools = {tool}}),
      ContainsSubstring("Environment: ipython\nCutting") &&
          ContainsSubstring(
              "Do not use variables.\n\n{\n    \"type\": \"function\",\n    \"function\": {\n        \"name\"") &&
          ContainsSubstring("\n    }\n}\n\nHi<|eot_id|>"));
  CHECK_THROWS_WITH(llama.render(std::span(talk).first(1), {.tools = {tool}}), ContainsSubstring("first question"));
  CHECK_THROWS_WITH(llama.render(question, {.tools = {"[1]"}}), ContainsSubstring("a tool"));
  CHECK_THAT(llama.render(std::vector<ChatMessage>{{"user", "Hi"}, {"tool", "a\"\n"}}),
             ContainsSubstring("<|start_header_id|>ipython<|end_header_id|>\n\n\"a\\\"\\n\"<|eot_id|>"));
  CHECK_FALSE(recognise("Cutting Knowledge Date: December 2023 26 Jul 2024" + llama3).takes_tools());

  const auto mistral = recognise(
      R"({{ bos_token }}== user_messages[-1] if key != "return" out[:-1] "[AVAILABLE_TOOLS][" "[INST]" + message["content"] + "[/INST]" "[TOOL_CALLS][" message["content"] + eos_token '[TOOL_RESULTS]{"content": ')");
  REQUIRE(mistral.tool_style() == ToolStyle::mistral);
  std::vector<ChatMessage> called{
      {"user", "Hi"},
      {"assistant", "", "", {{"f", "{}", "call_1"}, {"f", "{\"a\": 1}", "123456789"}, {"g", "{}"}}},
      {"tool", "one", "", {}, "123456789"},
      {"tool", "two"}};
  CHECK(mistral.render(called, {.tools = {tool}}) ==
        "<s>[AVAILABLE_TOOLS][{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": "
        "\"object\"}}}][/AVAILABLE_TOOLS][INST]Hi[/INST]"
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}, \"id\": \"000000001\"}, {\"name\": \"f\", \"arguments\": "
        "{\"a\": 1}, \"id\": \"123456789\"}, {\"name\": \"g\", \"arguments\": {}, \"id\": \"000000003\"}]</s>"
        "[TOOL_RESULTS]{\"content\": one, \"call_id\": \"123456789\"}[/TOOL_RESULTS][TOOL_RESULTS]{\"content\": two, "
        "\"call_id\": \"000000003\"}[/TOOL_RESULTS]");
  CHECK_THROWS_WITH(mistral.render(std::vector<ChatMessage>{{"user", "Hi"}, {"tool", "one"}}),
                    ContainsSubstring("more than calls"));
  CHECK_THROWS_WITH(mistral.render(question, {.tools = {"{}"}}), ContainsSubstring("'function'"));
}

TEST_CASE("Templates that are not known, and conversations that make no sense, are refused") {
  for (const std::string text :
       {"", "{{ messages }}", "<start_of_turn>", "<|im_start|><|im_end|><|im_sep|>", "[INST] <<SYS>>",
        "<start_of_turn><end_of_turn>", "<|user|><|end|><|assistant|>", "[INST] [SYSTEM_PROMPT]",
        "'[INST]' '[INST] ' '[/INST]' message['content'] + eos_token", "'[INST]' '[/INST]' message.content"}) {
    INFO(text);
    CHECK_THROWS_WITH(recognise(text),
                      ContainsSubstring("known are those of the families llama3, chatml, mistral, gemma, phi3"));
  }
  CHECK_THROWS_WITH(recognise("Cutting Knowledge Date" + llama3), ContainsSubstring("not one that troika knows"));
  const auto refused = [](const std::string& text, const std::vector<ChatMessage>& messages, const char* message) {
    CHECK_THROWS_WITH(recognise(text).render(messages), ContainsSubstring(message));
  };
  refused(chatml, {}, "at least one message");
  refused(chatml, {{"user", "a"}, {"tool", "b"}}, "message 1 has the role 'tool'; valid are user and assistant");
  refused(llama3, {{"user", "a"}, {"system", "b"}}, "message 1 has the role 'system'");
  refused(mistral, {{"user", "a"}, {"user", "b"}}, "alternates user and assistant");
  refused(mistral, {{"assistant", "a"}}, "alternates user and assistant");
}

TEST_CASE("A chat template comes from a GGUF file or a folder") {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.strings("tokenizer.ggml.tokens", {"a", "<begin>", "<end>"})
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2);
  const auto none = folder.write("none.gguf", bytes.file());
  CHECK_THROWS_WITH(ChatTemplate::load(none), ContainsSubstring("no key 'tokenizer.chat_template'"));
  const auto file = folder.write("m.gguf", bytes.string("tokenizer.chat_template", mistral).file());
  CHECK(ChatTemplate::load(file).render(question) == "<begin>[INST] Hi [/INST]");
  CHECK(ChatTemplate::load(file).family() == ChatFamily::mistral);

  CHECK_THROWS_WITH(ChatTemplate::load(folder.path()), ContainsSubstring("no tokenizer_config.json"));
  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>", "chat_template": "<|im_start|><|im_end|>"})");
  CHECK(ChatTemplate::load(folder.path()).family() == ChatFamily::chatml);
  folder.write("chat_template.jinja", llama3);
  CHECK(ChatTemplate::load(folder.path()).render(question, false) ==
        "<b><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>");
}
