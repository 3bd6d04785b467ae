#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's models with transformers, for random small models of every kind and for the one in examples/model.

    models_oracle.py FOLDER_OF_THE_TOOLS

Makes models with transformers, saves them as Hugging Face folders, and runs `tool_forward` on worlds of 1 to 8 ranks
with even and uneven shares. Logits (hidden states of encoders) must be within 2e-4 of the largest one, and greedy
decoding must give the same tokens. The reference is transformers in f32 without a cache. Exits with 77 (skipped) where
torch or transformers is absent.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

WORLDS = ["1", "2", "3", "4", "5", "8", "1:3", "3:1:2", "1:3:1:3", "1:0:3:1:2"]
SEQUENCE_PARALLEL_WORLDS = ["1", "2", "3", "8", "1:3"]
LIMIT = 2e-4
GREEDY = 16

SMALL = dict(vocab_size=307, hidden_size=96, intermediate_size=173, num_hidden_layers=3, num_attention_heads=8,
             num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2)
LLAMA3 = dict(rope_theta=50000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
BERT = dict(SMALL, num_attention_heads=6)
del BERT["num_key_value_heads"]

# name, configuration, dtype of the file, options of save_pretrained
MODELS = [
    ("llama", LlamaConfig(**SMALL, tie_word_embeddings=False), torch.float32, {}),
    ("llama, tied", LlamaConfig(**SMALL, tie_word_embeddings=True), torch.float32, {}),
    ("llama, llama3 rope", LlamaConfig(**SMALL, rope_parameters=LLAMA3), torch.float32, {}),
    ("llama, biases", LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True), torch.float32, {}),
    ("llama, bf16", LlamaConfig(**SMALL), torch.bfloat16, {}),
    ("llama, f16", LlamaConfig(**SMALL), torch.float16, {}),
    ("llama, sharded files", LlamaConfig(**SMALL), torch.float32, {"max_shard_size": "200KB"}),
    ("llama, 1 KV head", LlamaConfig(**dict(SMALL, num_key_value_heads=1)), torch.float32, {}),
    ("llama, 8 KV heads", LlamaConfig(**dict(SMALL, num_key_value_heads=8)), torch.float32, {}),
    ("mistral, window of 8", MistralConfig(**SMALL, sliding_window=8), torch.float32, {}),
    ("mistral, no window", MistralConfig(**SMALL, sliding_window=None), torch.bfloat16, {}),
    ("qwen2", Qwen2Config(**SMALL), torch.float32, {}),
    ("qwen2, some layers slide", Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=1),
     torch.float32, {}),
    ("qwen2, tied, f16", Qwen2Config(**SMALL, tie_word_embeddings=True), torch.float16, {}),
    ("qwen3", Qwen3Config(**SMALL, head_dim=16), torch.float32, {}),
    ("qwen3, tied, bf16", Qwen3Config(**SMALL, head_dim=32, tie_word_embeddings=True), torch.bfloat16, {}),
    ("bert", BertConfig(**BERT), torch.float32, {}),
    ("bert, gelu_new", BertConfig(**BERT, hidden_act="gelu_new"), torch.float32, {}),
    ("bert, bf16", BertConfig(**BERT), torch.bfloat16, {}),
]


def make(config, dtype, folder, options):
    """Saves a random model. Norms and biases get values too, so that forgetting one shows."""
    torch.manual_seed(17)
    model = BertModel(config) if config.model_type == "bert" else transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.2)
    model.to(dtype).save_pretrained(folder, **options)


def load(folder):
    kind = transformers.AutoConfig.from_pretrained(folder).model_type
    loader = BertModel if kind == "bert" else transformers.AutoModelForCausalLM
    return loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def greedy(model, prompt, count):
    """Greedy tokens, each from a forward pass over everything before it, and the logits after the prompt."""
    ids, first = list(prompt), None
    for _ in range(count):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        first = logits if first is None else first
        ids.append(int(logits.argmax()))
    return ids[len(prompt):], first


def expected(model, prompts, count=GREEDY):
    with torch.no_grad():
        if model.config.model_type != "bert":
            answers = [greedy(model, prompt, count) for prompt in prompts]
            return {("logits", i): logits for i, (_, logits) in enumerate(answers)} | {
                ("tokens", i): tokens for i, (tokens, _) in enumerate(answers)}
        hidden = [model(torch.tensor([prompt])).last_hidden_state[0] for prompt in prompts]
        return {("hidden", i): state.flatten() for i, state in enumerate(hidden)} | {
            ("embedding", i): state.mean(0) for i, state in enumerate(hidden)}


def run(tool, folder, prompts, worlds, *options, count=GREEDY):
    """What tool_forward prints, as {world: {(what, prompt): values}}."""
    lines = "".join(" ".join(map(str, prompt)) + "\n" for prompt in prompts)
    done = subprocess.run([tool, folder, "--worlds", ",".join(worlds), "--greedy", str(count), *options], input=lines,
                          capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{tool} ended with {done.returncode}: {done.stderr.strip()}")
    answers = {world: {} for world in worlds}
    for line in done.stdout.splitlines():
        what, world, prompt, *values = line.split()
        numbers = list(map(int, values)) if what == "tokens" else torch.tensor(list(map(float, values)))
        answers[world][what, int(prompt)] = numbers
    return answers


def distance(got, want):
    if got.shape != want.shape:
        return float("inf")
    worst = ((got - want).abs().max() / want.abs().max()).item()
    return worst if worst == worst else float("inf")


def compare(answers, want):
    """Per world: the worst distance, and how many token sequences differ."""
    result = {}
    for world, got in answers.items():
        if got.keys() != want.keys():
            raise RuntimeError(f"world {world} answered {sorted(got)} instead of {sorted(want)}")
        result[world] = (max(distance(got[key], want[key]) for key in want if key[0] != "tokens"),
                         sum(got[key] != want[key] for key in want if key[0] == "tokens"))
    return result


class Table:
    """One line a model, one column a world."""

    def __init__(self):
        self.failed = 0
        self.first = "largest difference / largest value"
        print(f"{self.first:46}" + "".join(f"{world:>11}" for world in WORLDS) + "   tokens")

    def add(self, name, result):
        wrong = sum(tokens for _, tokens in result.values())
        cells = "".join(f"{result[world][0]:11.1e}" if world in result else f"{'':11}" for world in WORLDS)
        bad = wrong > 0 or any(not worst <= LIMIT for worst, _ in result.values())
        self.failed += bad
        print(f"{name:46}{cells}   {'same' if not wrong else f'{wrong} differ'}{'   FAIL' if bad else ''}", flush=True)

    def add_failure(self, name, error):
        self.failed += 1
        print(f"{name:46}  FAIL: {error}", flush=True)


def random_prompts(vocab):
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(vocab, (length,), generator=generator).tolist() for length in (1, 2, 7, 23, 61)]


def trained_model(tool, folder, table):
    """20 questions to the trained model: the same answers in every world."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = load(folder)
    end = model.generation_config.eos_token_id
    cases = [line.rstrip("\n").split("\t") for line in (folder / "unseen.tsv").read_text().splitlines()]
    cases = cases[:: max(1, len(cases) // 20)][:20]
    begin = model.config.bos_token_id
    prompts = [tokenizer.encode(prompt, add_special_tokens=False).ids for _, prompt, _ in cases]
    prompts = [ids if ids[:1] == [begin] else [begin] + ids for ids in prompts]
    count = 32  # the longest answers have some 25 tokens
    want = expected(model, prompts, count)

    def cut(answers):  # what comes after the end of the text does not matter
        return {key: values[: values.index(end) + 1] if key[0] == "tokens" and end in values else values
                for key, values in answers.items()}

    want = cut(want)
    answers = {world: cut(got) for world, got in run(tool, folder, prompts, WORLDS, count=count).items()}
    table.add("examples/model", compare(answers, want))
    texts = [tokenizer.decode(want["tokens", i]).strip() for i in range(len(cases))]
    right = sum(text == answer.strip() for text, (_, _, answer) in zip(texts, cases))
    print(f"examples/model gives the checked answer in {right} of {len(cases)} cases")


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    tool = os.path.join(sys.argv[1], "tool_forward")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    table = Table()
    with tempfile.TemporaryDirectory() as temp:
        for i, (name, config, dtype, options) in enumerate(MODELS):
            folder = os.path.join(temp, str(i))
            make(config, dtype, folder, options)
            prompts = random_prompts(config.vocab_size)
            want = expected(load(folder), prompts)
            try:
                table.add(name, compare(run(tool, folder, prompts, WORLDS), want))
                if config.model_type != "bert":
                    split = run(tool, folder, prompts, SEQUENCE_PARALLEL_WORLDS, "--sequence-parallel")
                    table.add(name + ", sequence parallel", compare(split, want))
            except RuntimeError as error:
                table.add_failure(name, error)
    examples = pathlib.Path(__file__).resolve().parents[2] / "examples" / "model"
    if (examples / "model.safetensors").exists():
        trained_model(tool, examples, table)
    else:
        print("not compared: examples/model is not there")
    print(f"compared with transformers {transformers.__version__} and torch {torch.__version__}: "
          + (f"{table.failed} lines FAIL" if table.failed else f"all within {LIMIT:g}"))
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
