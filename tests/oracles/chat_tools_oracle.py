#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares conversations with tools and thoughts with what transformers renders from the templates of Qwen2.5 and Qwen3.

    chat_tools_oracle.py TOOL_CHAT

Exits with 77 (skipped) where a package is absent.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import transformers
    from tokenizers import Tokenizer, models
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TOOLS_TEXT = (r"""# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within """
              r"""<tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"""
              r"""<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
""")
TOOL_ROLE = r"""    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
"""
TEMPLATES = {
    "Qwen2.5": r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n""" + TOOLS_TEXT + r"""{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
""" + TOOL_ROLE + r"""{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""",
    "Qwen3": r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- """ + '"' + TOOLS_TEXT + r"""{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
""" + TOOL_ROLE + r"""{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""",
}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The \"weather\" \u00e4\n", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2]}}, "required": ["place"]}}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}]
CALLS = [{"type": "function", "function": {"name": "weather", "arguments": {"place": "K\u00f6ln", "days": [1, {"a": None}]}}},
         {"type": "function", "function": {"name": "time", "arguments": {}}}]


def conversations():
    user, end = {"role": "user", "content": "Hi \n"}, {"role": "user", "content": "and now?"}
    system = {"role": "system", "content": "Be kind."}
    result, other = {"role": "tool", "content": "12 \u00b0C"}, {"role": "tool", "content": ""}
    answers = [{"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **({"reasoning_content": thought} if thought else {})}
               for content, calls, thought in itertools.product(("", "Let me see."), ([], CALLS[:1], CALLS), ("", "\nhm, well\n"))]
    answers.append({"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."})
    for first in ([], [system]):
        yield first + [user]
        for answer in answers:
            yield first + [user, answer, end]
            if answer.get("tool_calls"):
                yield first + [user, answer, result]
                yield first + [user, answer, result, other, answer, other]
                yield first + [user, answer, result, {"role": "assistant", "content": "12."}, end]


def as_hex(text):
    return "." + text.encode().hex()


def line(messages, tools, begin):
    words = [str(begin)] + [word for tool in tools for word in ("tool-of", as_hex(json.dumps(tool, ensure_ascii=False)))]
    for message in messages:
        words += [message["role"], as_hex(message["content"])]
        if "reasoning_content" in message:
            words += ["thinking", as_hex(message["reasoning_content"])]
        for call in message.get("tool_calls", []):
            words += ["call:" + call["function"]["name"], as_hex(json.dumps(call["function"]["arguments"], ensure_ascii=False))]
    return " ".join(words) + "\n"


def main():
    tool, failed = sys.argv[1], 0
    talks = [(messages, tools, begin) for messages in conversations() for tools in ([], TOOLS[:1], TOOLS) for begin in (0, 1, 2)]
    for name, template in TEMPLATES.items():
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<bos>", eos_token="<eos>")
        with tempfile.TemporaryDirectory() as temp:
            (pathlib.Path(temp) / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>", "chat_template": template}))
            done = subprocess.run([tool, temp], input="".join(line(*talk) for talk in talks), capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            print(f"FAIL {name}: {done.stderr.strip()}")
            failed += 1
            continue
        same = wrong = 0
        for (messages, tools, begin), answer in zip(talks, done.stdout.splitlines(), strict=True):
            want = tokenizer.apply_chat_template(messages, tools=tools or None, chat_template=template, tokenize=False,
                                                 add_generation_prompt=begin > 0, enable_thinking=begin < 2)
            got = bytes.fromhex(answer[1:]).decode() if answer != "refused" else answer
            same += got == want
            wrong += got != want
            if got != want and wrong == 1:
                print(f"  {messages} begin {begin}:\n{got!r} instead of\n{want!r}")
        failed += wrong
        print(f"{'FAIL' if wrong else 'ok  '} {name}: {same} the same, {wrong} wrong")
    print(f"compared with transformers {transformers.__version__}: " + (f"{failed} FAIL" if failed else "no difference"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
