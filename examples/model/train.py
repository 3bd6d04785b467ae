# SPDX-License-Identifier: Apache-2.0
"""Trains the small decoder of this folder from nothing and writes the folder's files.

    pip install torch==2.13.0 tokenizers safetensors numpy tqdm
    python examples/model/train.py
"""
import argparse
import json
import math
import pathlib
import time

import safetensors.torch
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from tqdm import tqdm

import make_data

BEGIN, END = "<|begin|>", "<|end|>"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dtype": "bfloat16",
    "eos_token_id": 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 352,
    "max_position_embeddings": 256,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 376,
}
HIDDEN, HEAD, HEADS, KV_HEADS, INTERMEDIATE, VOCAB, LENGTH, EPS = (CONFIG[name] for name in (
    "hidden_size", "head_dim", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "rms_norm_eps"))


# --- the model: LlamaForCausalLM with its parameter names, so that state_dict() is the file ---------------------------

def as_stored(weight: Tensor) -> Tensor:
    """The file holds bf16. Training sees the rounded weights too, so storing them costs no accuracy."""
    return weight.bfloat16().float()


class Linear(nn.Module):
    def __init__(self, inputs: int, outputs: int, scale: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * scale / math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, as_stored(self.weight))


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * as_stored(self.weight)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = Linear(HIDDEN, HEADS * HEAD), Linear(HIDDEN, KV_HEADS * HEAD)
        self.v_proj, self.o_proj = Linear(HIDDEN, KV_HEADS * HEAD), Linear(HEADS * HEAD, HIDDEN, 0.3)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (t * cos + torch.cat((-t[..., HEAD // 2:], t[..., :HEAD // 2]), -1) * sin for t in (q, k))
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 1) for t in (k, v))
        scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(HEAD)  # at these lengths faster than the fused kernel
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1).to(v.dtype)
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = Linear(HIDDEN, INTERMEDIATE), Linear(HIDDEN, INTERMEDIATE)
        self.down_proj = Linear(INTERMEDIATE, HIDDEN, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(), Attention()
        self.post_attention_layernorm, self.mlp = RMSNorm(), MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.model.layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.model.norm = RMSNorm()
        nn.init.normal_(self.model.embed_tokens.weight, std=0.1)
        angles = torch.arange(LENGTH)[:, None] * CONFIG["rope_theta"] ** -(torch.arange(0, HEAD, 2) / HEAD)
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, wanted: Tensor | None = None) -> Tensor:
        """(cases, length) -> (cases, length, vocab), or (wanted places, vocab) where a mask says which."""
        embedding = as_stored(self.model.embed_tokens.weight)
        x = F.embedding(tokens, embedding)
        for layer in self.model.layers:
            x = layer(x, self.cos[:tokens.shape[1]], self.sin[:tokens.shape[1]])
        return F.linear(self.model.norm(x if wanted is None else x[wanted]), embedding)


# --- text to tokens ---------------------------------------------------------------------------------------------------

def train_tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE over all 256 bytes. Each digit is a token, as arithmetic wants it; words get the merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    texts = (case.prompt + case.answer for case in make_data.unique_cases("train", 10000))
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[BEGIN, END], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, CONFIG["bos_token_id"])])
    return tokenizer


class Encoded:
    """Cases as token lists, begin first and end last, with the length of each prompt."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, cases: list[make_data.Case]):
        prompts = tokenizer.encode_batch_fast([case.prompt for case in cases])
        answers = tokenizer.encode_batch_fast([case.answer + END for case in cases], add_special_tokens=False)
        self.cases, self.prompt_lengths = cases, [len(prompt.ids) for prompt in prompts]
        self.ids = [prompt.ids + answer.ids for prompt, answer in zip(prompts, answers)]

    def by_length(self, which: list[int], parts: int) -> list[tuple[list[int], Tensor, Tensor]]:
        """Parts of like length, little padding: their places, tokens and the mask of the answers' tokens."""
        which = sorted(which, key=lambda i: len(self.ids[i]))
        size, result = math.ceil(len(which) / parts), []
        for part in (which[start:start + size] for start in range(0, len(which), size)):
            length = len(self.ids[part[-1]])
            tokens = torch.tensor([self.ids[i] + [CONFIG["eos_token_id"]] * (length - len(self.ids[i])) for i in part])
            begin = torch.tensor([self.prompt_lengths[i] for i in part])[:, None]
            stop = torch.tensor([len(self.ids[i]) for i in part])[:, None]
            place = torch.arange(length)[None]
            result.append((part, tokens, (place >= begin) & (place < stop)))
        return result


@torch.no_grad()
def wrong_cases(model: Decoder, encoded: Encoded) -> list[make_data.Case]:
    """Greedy decoding gives exactly the answer if and only if, along the answer, each token is the likeliest."""
    wrong = []
    for part, tokens, answer in encoded.by_length(list(range(len(encoded.cases))), 1 + len(encoded.cases) // 200):
        right = (model(tokens[:, :-1]).argmax(-1) == tokens[:, 1:]) | ~answer[:, 1:]
        wrong += [encoded.cases[i] for i, ok in zip(part, right.all(1).tolist()) if not ok]
    return wrong


def accuracies(encoded: Encoded, wrong: list[make_data.Case]) -> dict[str, float]:
    total, bad = ([case.task for case in cases] for cases in (encoded.cases, wrong))
    return {task: 1 - bad.count(task) / total.count(task) for task in make_data.TASKS}


# --- training ---------------------------------------------------------------------------------------------------------

def learning_rate(step: int, steps: int) -> float:
    """A short rise, a long flat, then down to nothing over the last 30 %."""
    return min(1.0, step / 60, (1 - step / steps) / 0.3)


def train(model: Decoder, tokenizer: tokenizers.Tokenizer, out: pathlib.Path, options: argparse.Namespace) -> None:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=options.muon, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.adam, betas=(0.9, 0.98), weight_decay=0.0)]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    validation = Encoded(tokenizer, make_data.unique_cases("validation", 1000))
    source, since, running = make_data.cases("train"), time.time(), 0.0
    bar = tqdm(range(options.steps), mininterval=5, miniters=20)
    for step in bar:
        if step % 50 == 0:  # draw ahead for 50 steps: encoding goes faster in bulk
            chunk = Encoded(tokenizer, [next(source) for _ in range(50 * options.batch)])
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * learning_rate(step + 1, options.steps)
        start = step % 50 * options.batch
        parts = chunk.by_length(list(range(start, start + options.batch)), options.parts)
        answer_tokens = sum(int(answer.sum()) for _, _, answer in parts)
        loss_sum = 0.0
        for _, tokens, answer in parts:
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(tokens[:, :-1], answer[:, 1:])
            loss = F.cross_entropy(logits.float(), tokens[:, 1:][answer[:, 1:]], reduction="sum") / answer_tokens
            loss.backward()
            loss_sum += loss.item()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        running += (loss_sum - running) * max(0.02, 1 / (step + 1))
        bar.set_postfix(loss=f"{running:.4f}")
        if (step + 1) % options.every == 0:
            rates = accuracies(validation, wrong_cases(model, validation))
            bar.write(f"step {step + 1:6}  {time.time() - since:6.0f} s  loss {running:.4f}  "
                      + "  ".join(f"{task} {100 * rate:5.1f} %" for task, rate in rates.items()))
            save(model, tokenizer, out)


def write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def save(model: Decoder, tokenizer: tokenizers.Tokenizer, out: pathlib.Path) -> None:
    weights = {name: weight.bfloat16().contiguous() for name, weight in model.state_dict().items()}
    safetensors.torch.save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "config.json", CONFIG)
    write_json(out / "generation_config.json", {
        "bos_token_id": CONFIG["bos_token_id"], "do_sample": False, "eos_token_id": CONFIG["eos_token_id"],
        "max_new_tokens": 32})
    write_json(out / "tokenizer_config.json", {
        "add_prefix_space": False, "bos_token": BEGIN, "clean_up_tokenization_spaces": False, "eos_token": END,
        "model_max_length": LENGTH, "tokenizer_class": "PreTrainedTokenizerFast"})


def load(out: pathlib.Path) -> Decoder:
    model = Decoder()
    model.load_state_dict(safetensors.torch.load_file(out / "model.safetensors"))
    return model


def print_table(model: Decoder, unseen: Encoded, others: Encoded) -> None:
    print(f"\n{'task':8}{'unseen.tsv':>12}{'right':>8}{'others':>12}{'right':>8}")
    sets = [(encoded.cases, wrong_cases(model, encoded)) for encoded in (unseen, others)]
    for task in [*make_data.TASKS, "all"]:
        row = f"{task:8}"
        for cases, bad in sets:
            n, wrong = (sum(task in (case.task, "all") for case in group) for group in (cases, bad))
            row += f"{n:12}{1 - wrong / n:8.1%}"
        print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small decoder and write its folder.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=320, help="cases a step")
    parser.add_argument("--parts", type=int, default=5, help="a step's cases go in so many parts of like length")
    parser.add_argument("--every", type=int, default=100, help="steps between looks at the accuracy")
    parser.add_argument("--muon", type=float, default=4e-3, help="learning rate of the matrices")
    parser.add_argument("--adam", type=float, default=3e-3, help="learning rate of embedding and norms")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(make_data.SEED)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)

    tokenizer, model = train_tokenizer(), Decoder()
    train(model, tokenizer, options.out, options)
    save(model, tokenizer, options.out)

    unseen = make_data.unique_cases("unseen", 400)
    (options.out / "unseen.tsv").write_text("".join("\t".join(case) + "\n" for case in unseen))
    others = [case for case in make_data.unique_cases("unseen", 2500, seed=1) if case not in unseen]
    print_table(load(options.out), Encoded(tokenizer, unseen), Encoded(tokenizer, others))  # the weights of the file


if __name__ == "__main__":
    main()
