#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's models with transformers, for random small models of every kind and for the one in examples/model.

    models_oracle.py FOLDER_OF_THE_TOOLS [NAME...]

With names, only the models that begin with one of them. Makes models with transformers, saves them as Hugging Face folders, and runs `tool_forward` on worlds of 1 to 8 ranks
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
    from transformers import (BertConfig, Gemma2Config, Gemma3Config, Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig,
                              NomicBertConfig, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig)
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

GEMMA = dict(SMALL, head_dim=16, query_pre_attn_scalar=24, sliding_window=8)
GEMMA3_ROPE = {"full_attention": dict(rope_type="linear", factor=4.0, rope_theta=50000.0),
               "sliding_attention": dict(rope_type="default", rope_theta=2000.0)}
GEMMA3_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
PICTURES = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=14, patch_size=14)
EXPERTS = dict(SMALL, head_dim=16, num_experts=7, num_experts_per_tok=3, moe_intermediate_size=44)
PHI3 = dict(SMALL, pad_token_id=0)
# Heads of 12, of which 6 features are rotated.
LONGROPE = dict(rope_theta=10000.0, rope_type="longrope", partial_rotary_factor=0.5, short_factor=[1.0, 1.3, 2.5],
                long_factor=[1.1, 4.0, 9.0])
GPT2 = dict(vocab_size=307, n_embd=96, n_layer=3, n_head=8, n_positions=128, initializer_range=0.2, bos_token_id=0, eos_token_id=0)
NOMIC = dict(BERT, rope_parameters=dict(rope_theta=1000.0, rope_type="default"))
ENCODERS = ("bert", "nomic_bert")

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
    ("gemma2", Gemma2Config(**GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=7.0), torch.float32, {}),
    ("gemma2, no caps, bf16", Gemma2Config(**GEMMA, attn_logit_softcapping=None, final_logit_softcapping=None), torch.bfloat16, {}),
    ("gemma3", Gemma3TextConfig(**GEMMA, layer_types=GEMMA3_LAYERS, rope_parameters=GEMMA3_ROPE), torch.float32, {}),
    ("gemma3, own lm_head", Gemma3TextConfig(**GEMMA, tie_word_embeddings=False, final_logit_softcapping=9.0), torch.float32, {}),
    ("gemma3, with pictures", Gemma3Config(text_config=Gemma3TextConfig(**GEMMA, layer_types=GEMMA3_LAYERS, rope_parameters=GEMMA3_ROPE),
                                           vision_config=PICTURES, mm_tokens_per_image=1), torch.float32, {}),
    ("qwen3moe", Qwen3MoeConfig(**EXPERTS, norm_topk_prob=True), torch.float32, {}),
    ("qwen3moe, weights as they are, bf16", Qwen3MoeConfig(**EXPERTS, norm_topk_prob=False), torch.bfloat16, {}),
    ("phi3", Phi3Config(**PHI3), torch.float32, {}),
    ("phi3, window of 8, bf16", Phi3Config(**PHI3, sliding_window=8), torch.bfloat16, {}),
    ("phi3, longrope, short", Phi3Config(**PHI3, rope_parameters=LONGROPE, original_max_position_embeddings=100), torch.float32, {}),
    ("phi3, longrope, long", Phi3Config(**PHI3, rope_parameters=LONGROPE, original_max_position_embeddings=6), torch.float32, {}),
    ("gpt2", GPT2Config(**GPT2), torch.float32, {}),
    ("gpt2, gelu, wider, f16", GPT2Config(**GPT2, n_inner=100, activation_function="gelu"), torch.float16, {}),
    ("bert", BertConfig(**BERT), torch.float32, {}),
    ("bert, gelu_new", BertConfig(**BERT, hidden_act="gelu_new"), torch.float32, {}),
    ("bert, bf16", BertConfig(**BERT), torch.bfloat16, {}),
    ("nomic_bert", NomicBertConfig(**NOMIC), torch.float32, {}),
    ("nomic_bert, bf16", NomicBertConfig(**NOMIC), torch.bfloat16, {}),
]


def is_encoder(config):
    return config.model_type in ENCODERS


def prompts_of(name, config):
    """transformers takes the long factors of longrope from the length of the text, troika from the context."""
    prompts = random_prompts(config.get_text_config().vocab_size)
    return [prompt for prompt in prompts if len(prompt) > 6] if name.endswith("longrope, long") else prompts


def options_of(name):
    return ["--context", "100"] if name.endswith("longrope, short") else []


def random_model(config):
    """Norms and biases get values too, so that forgetting one shows."""
    torch.manual_seed(17)
    loader = transformers.AutoModel if is_encoder(config) else transformers.AutoModelForCausalLM
    model = loader.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:
                is_norm = "norm" in name.lower() or ".ln_" in name
                value.normal_(1.0 if is_norm and name.endswith("weight") else 0.0, 0.2)
            elif value.dim() == 3:  # experts, which transformers leaves small
                value.normal_(0.0, 0.2)
    return model.eval()


def make(config, dtype, folder, options):
    random_model(config).to(dtype).save_pretrained(folder, **options)


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    loader = transformers.AutoModel if is_encoder(config) else transformers.AutoModelForCausalLM
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
        if not is_encoder(model.config):
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
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    names = tuple(sys.argv[2:]) or ("",)
    tool = os.path.join(sys.argv[1], "tool_forward")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    table = Table()
    with tempfile.TemporaryDirectory() as temp:
        for i, (name, config, dtype, options) in enumerate(MODELS):
            if not name.startswith(names):
                continue
            folder = os.path.join(temp, str(i))
            make(config, dtype, folder, options)
            prompts, more = prompts_of(name, config), options_of(name)
            want = expected(load(folder), prompts)
            try:
                table.add(name, compare(run(tool, folder, prompts, WORLDS, *more), want))
                if not is_encoder(config):
                    split = run(tool, folder, prompts, SEQUENCE_PARALLEL_WORLDS, "--sequence-parallel", *more)
                    table.add(name + ", sequence parallel", compare(split, want))
            except RuntimeError as error:
                table.add_failure(name, error)
    examples = pathlib.Path(__file__).resolve().parents[2] / "examples" / "model"
    if names == ("",) and (examples / "model.safetensors").exists():
        trained_model(tool, examples, table)
    else:
        print("not compared: examples/model is not there")
    print(f"compared with transformers {transformers.__version__} and torch {torch.__version__}: "
          + (f"{table.failed} lines FAIL" if table.failed else f"all within {LIMIT:g}"))
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
