#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares conversations with tools and thoughts with what transformers renders from the templates that models have.

    chat_tools_oracle.py TOOL_CHAT

Exits with 77 (skipped) where a package is absent.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

from chat_tool_templates import TEMPLATES

try:
    import jinja2
    import transformers
    from tokenizers import Tokenizer, models
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The \"weather\" \u00e4\n", "parameters": {
    "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2]}}, "required": ["place"]}}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}]
CALLS = [{"type": "function", "function": {"name": "weather", "arguments": {"place": "K\u00f6ln", "days": [1, {"a": None}]}}},
         {"type": "function", "function": {"name": "time", "arguments": {}}}]


def conversations():
    user, end = {"role": "user", "content": "Hi \n"}, {"role": "user", "content": "and now?"}
    system = {"role": "system", "content": "Be kind."}
    results = [{"role": "tool", "content": "12 \u00b0C"}, {"role": "tool", "content": ""}]
    answers = [{"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **({"reasoning_content": thought} if thought else {})}
               for content, calls, thought in itertools.product(("", "Let me see."), ([], CALLS[:1], CALLS), ("", "\nhm, well\n"))]
    answers.append({"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."})
    for first in ([], [system]):
        yield first + [user]
        yield first + [user, answers[0], user]
        for answer in answers:
            yield first + [user, answer, end]
            if answer.get("tool_calls"):
                said = results[:len(answer["tool_calls"])]
                yield first + [user, answer, *said]
                yield first + [user, answer, *said, answer, *said]
                yield first + [user, answer, *said, {"role": "assistant", "content": "12."}, end]


def with_ids(messages, name, backwards):
    """Calls and results, named by their number; results come in the order of their calls, or the other way."""
    messages, number, left = json.loads(json.dumps(messages)), 0, []
    for message in messages:
        if message["role"] != "tool":
            left = []
        for call in message.get("tool_calls", []):
            number += 1
            call["id"] = name(number)
            left.append(call["id"])
        if message["role"] == "tool":
            message["tool_call_id"] = left.pop(-1 if backwards else 0)
    return messages


def numbered(number):
    return f"{number:09}"


# What troika gets, and what the template gets: ids that it takes, some that it does not, and none.
NAMES = [(lambda n: f"abcDEF0{n:02}", lambda n: f"abcDEF0{n:02}", True), (lambda n: f"call_{n}-{'x' * n}", numbered, True),
         (lambda n: "", numbered, False)]


def one_call_a_message(messages):
    """As the template of Llama has it; troika takes several."""
    for message in messages:
        calls = message.get("tool_calls", [])
        yield from ([{**message, "tool_calls": [call]} for call in calls] if calls else [message])


def as_hex(text):
    return "." + text.encode().hex()


def line(messages, tools, begin):
    words = [str(begin)] + [word for tool in tools for word in ("tool-of", as_hex(json.dumps(tool, ensure_ascii=False)))]
    for message in messages:
        words += [message["role"], as_hex(message["content"])]
        if "reasoning_content" in message:
            words += ["thinking", as_hex(message["reasoning_content"])]
        for call in message.get("tool_calls", []):
            words += ["call:" + call["function"]["name"], as_hex(json.dumps(call["function"]["arguments"], ensure_ascii=False)), "id", as_hex(call["id"])]
        if message["role"] == "tool":
            words += ["id", as_hex(message["tool_call_id"])]
    return " ".join(words) + "\n"


def main():
    tool, failed = sys.argv[1], 0
    talks = [(messages, names, tools, begin) for messages in conversations() for names in NAMES for tools in ([], TOOLS[:1], TOOLS)
             for begin in (0, 1, 2)]
    lines = "".join(line(with_ids(messages, names[0], names[2]), tools, begin) for messages, names, tools, begin in talks)
    for name, template in TEMPLATES.items():
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<bos>", eos_token="<eos>")
        with tempfile.TemporaryDirectory() as temp:
            (pathlib.Path(temp) / "tokenizer_config.json").write_text(
                json.dumps({"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": template}))
            done = subprocess.run([tool, temp], input=lines, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            print(f"FAIL {name}: {done.stderr.strip()}")
            failed += 1
            continue
        same = refused = wrong = 0
        for (messages, names, tools, begin), answer in zip(talks, done.stdout.splitlines(), strict=True):
            asked = with_ids(messages, names[1], names[2])
            try:
                want = tokenizer.apply_chat_template(list(one_call_a_message(asked)) if "Llama" in name else asked, tools=tools or None,
                                                     chat_template=template, tokenize=False, add_generation_prompt=begin > 0,
                                                     enable_thinking=begin < 2, date_string="26 Jul 2024")
            except jinja2.exceptions.TemplateError:
                want = "refused"
            got = bytes.fromhex(answer[1:]).decode() if answer != "refused" else answer
            same += got == want != "refused"
            refused += got == want == "refused"
            wrong += got != want
            if got != want and wrong == 1:
                print(f"  {asked} begin {begin}:\n{got!r} instead of\n{want!r}")
        failed += wrong
        print(f"{'FAIL' if wrong else 'ok  '} {name}: {same} the same, {refused} refused by both, {wrong} wrong")
    print(f"compared with transformers {transformers.__version__}: " + (f"{failed} FAIL" if failed else "no difference"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
