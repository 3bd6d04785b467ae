#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's chat templates with what transformers renders from the same Jinja templates.

    chat_oracle.py TOOL_CHAT

Templates of the shapes that models of each family have; conversations with and without a system message, with blanks,
line ends and quotes, in right and wrong orders. The text must be the same, and troika must refuse what a template raises.
What troika refuses besides is counted and printed. Exits with 77 (skipped) where a package is absent.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import jinja2
    import transformers
    from tokenizers import Tokenizer, models
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

ALTERNATE = """{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"""
GEMMA_ROLE = "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"

TEMPLATES = {
    "gemma 2": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
               "{% for message in messages %}" + ALTERNATE + GEMMA_ROLE +
               r"{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
               r"{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    "gemma 3": r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    """ + ALTERNATE + GEMMA_ROLE + r"""
    {{- '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") -}}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
""",
    "phi 3": r"{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
             r"{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
             r"{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
             r"{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "phi 3.5": r"{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
               r"{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
               r"{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
               r"{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
               r"{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "phi 3, first": r"{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}"
                    r"{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
                    r"{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}",
    "phi 4 mini": "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
                  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
    "llama 3": "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
               "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "chatml": r"{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
              r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
}
# troika refuses a system message that this one silently drops.
DROPS_SYSTEM = {"phi 3, first"}

CONTENTS = ["Hi", "  spaces \n\n", "", "it's \"quoted\"\n\\n <b>&amp;</b>", "\u00e4\u4f60\U0001f600\u00a0", "{{ bos_token }}"]


def conversations():
    orders = ["u", "ua", "uau", "su", "sua", "suau", "s", "a", "au", "uu", "us"]
    for n, (order, begin) in enumerate(itertools.product(orders, (False, True))):
        for shift in range(len(CONTENTS)):
            roles = [{"u": "user", "a": "assistant", "s": "system"}[letter] for letter in order]
            yield begin, [{"role": role, "content": CONTENTS[(n + shift + i) % len(CONTENTS)]} for i, role in enumerate(roles)]


def main():
    tool, failed, talks = sys.argv[1], 0, list(conversations())
    lines = "".join(f"{int(begin)} " + " ".join(f"{m['role']} .{m['content'].encode().hex()}" for m in messages) + "\n"
                    for begin, messages in talks)
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
        same = refused = both = wrong = 0
        for (begin, messages), answer in zip(talks, done.stdout.splitlines(), strict=True):
            try:
                want = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=begin)
            except jinja2.exceptions.TemplateError:
                want = None
            if answer == "refused":
                both += want is None
                odd = any(m["role"] == "system" for m in messages[1:])
                allowed = odd or name in DROPS_SYSTEM and messages[0]["role"] == "system"
                refused += want is not None and allowed
                wrong += want is not None and not allowed
                continue
            got = bytes.fromhex(answer[1:]).decode()
            same += got == want
            if got != want:
                wrong += 1
                if wrong == 1:
                    print(f"  {messages} begin {begin}: {got!r} instead of {want!r}")
        failed += wrong
        print(f"{'FAIL' if wrong else 'ok  '} {name}: {same} the same, {both} refused by both, {refused} by troika alone, {wrong} wrong")
    print(f"compared with transformers {transformers.__version__} and jinja2 {jinja2.__version__}: {failed} FAIL" if failed
          else f"compared with transformers {transformers.__version__} and jinja2 {jinja2.__version__}: no difference")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
