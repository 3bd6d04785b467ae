#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's tokenizers from GGUF metadata with `tokenizers` and `sentencepiece`, on text that is hard to tokenize.

    gguf_tokenizers_oracle.py PATH/TO/tool_tokenize [NUMBER_OF_RANDOM_STRINGS]

Trains a small tokenizer of each kind that GGUF files have, with the components of the tokenizer.json of the models that the
kind is named after, and writes its vocabulary the way that llama.cpp's converter does, with the PyPI package `gguf`. Every
id and every byte must be equal. Exits with 77 (skipped) where a package is absent.
"""

import io
import pathlib
import sys
import tempfile

try:
    import gguf
    import sentencepiece
    import tokenizers
    from gguf import TokenType
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers.convert_slow_tokenizer import generate_merges

    import tokenizers_oracle as oracle
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPELLED = ["<|end|>", "<tool>", "<s>", "</s>", "<unk>", "[MASK]", "[CLS]", "[SEP]", "[UNK]", "[PAD]"]


def writer_of(path, model, pre=None):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kinds_of(tokenizer):
    """The type of each id: added tokens are CONTROL when special, else USER_DEFINED."""
    types = [TokenType.NORMAL] * tokenizer.get_vocab_size()
    for id, token in tokenizer.get_added_tokens_decoder().items():
        types[id] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    return types


def byte_level(path, pre, pre_tokenizer, normalizer=None, ignore_merges=False, bos=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(oracle.CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    if bos or (bos is None and pre in ("llama-bpe", "tekken")):
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    import json
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer = writer_of(path, "gpt2", pre)
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())])
    writer.add_token_types(kinds_of(tokenizer))
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(tokenizer.token_to_id("<s>"))
    writer.add_eos_token_id(tokenizer.token_to_id("</s>"))
    if bos is not None:
        writer.add_add_bos_token(bos)
    finish(writer)
    return tokenizer


def word_piece(path, lowercase=True):
    tokenizer = oracle.word_piece(lowercase=lowercase)
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    # GGUF files do not say which added tokens take the space around them: without these.
    import json
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = [dict(t, lstrip=False, rstrip=False, single_word=False, normalized=False) for t in file["added_tokens"]]
    tokenizer = Tokenizer.from_str(json.dumps(file))
    types = kinds_of(tokenizer)
    tokens = []
    for i, kind in enumerate(types):
        token = tokenizer.id_to_token(i)
        tokens.append(token if kind == TokenType.CONTROL else token[2:] if token.startswith("##") else "\u2581" + token)
    writer = writer_of(path, "bert", "default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_unk_token_id(tokenizer.token_to_id("[UNK]"))
    writer.add_bos_token_id(tokenizer.token_to_id("[CLS]"))
    writer.add_sep_token_id(tokenizer.token_to_id("[SEP]"))
    if not lowercase:
        writer.add_bool("tokenizer.ggml.normalizer.lowercase", False)
    finish(writer)
    return tokenizer


class SentencePiece:
    """What oracle.compare asks of a tokenizer, answered by sentencepiece itself."""

    def __init__(self, processor):
        self.p = processor

    def no_truncation(self):
        pass

    no_padding = no_truncation

    def get_vocab_size(self):
        return self.p.get_piece_size()

    def id_to_token(self, id):
        # Decoding bytes that are no text is where the libraries differ: asked of tokens only.
        return None if self.p.is_control(id) or self.p.is_unknown(id) or self.p.is_byte(id) else self.p.id_to_piece(id)

    def encode(self, text, add_special_tokens):
        ids = self.p.encode(text)

        class Answer:
            pass

        answer = Answer()
        answer.ids = [self.p.bos_id()] * add_special_tokens + ids
        return answer

    def decode(self, ids, skip_special_tokens=True):
        if skip_special_tokens:
            return self.p.decode([i for i in ids if not self.p.is_control(i)])
        return "".join("<s>" if i == self.p.bos_id() else "" for i in ids[:1]) + self.p.decode(ids)


def sentence_piece(path, **options):
    """The tokenizer of sentencepiece, and the one that transformers makes of it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(oracle.CORPUS * 3), model_writer=model, model_type="bpe",
                                             vocab_size=700, hard_vocab_limit=False, normalization_rule_name="identity",
                                             remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
                                             character_coverage=0.98, minloglevel=2, **options)
    p = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = p.get_piece_size()
    types = [TokenType.UNKNOWN if p.is_unknown(i) else TokenType.CONTROL if p.is_control(i) else TokenType.UNUSED if p.is_unused(i)
             else TokenType.BYTE if p.is_byte(i) else TokenType.NORMAL for i in range(size)]
    writer = writer_of(path, "llama", "default")
    writer.add_token_list([p.id_to_piece(i) for i in range(size)])
    writer.add_token_scores([p.get_score(i) for i in range(size)])
    writer.add_token_types(types)
    writer.add_unk_token_id(p.unk_id())
    writer.add_bos_token_id(p.bos_id())
    writer.add_eos_token_id(p.eos_id())
    finish(writer)

    vocab = {p.id_to_piece(i): i for i in range(size)}
    scores = {p.id_to_piece(i): p.get_score(i) for i in range(size) if types[i] == TokenType.NORMAL}
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(m[:2]) for m in generate_merges(vocab, scores)], unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=options["byte_fallback"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    return SentencePiece(p), tokenizer


def compare_ids(tool, name, reference, path, strings, report):
    """Only the ids: sentencepiece decodes bytes that are no text in a way of its own."""
    answers = oracle.ask(tool, path, [f"E {text.encode().hex()}" for text in strings])
    wrong = [(text, got) for text, got in zip(strings, answers) if got != " ".join(map(str, reference.encode(text, True).ids))]
    print(f"{'ok  ' if not wrong else 'FAIL'} {name}: {len(strings)} texts, vocabulary of {reference.get_vocab_size()}")
    for text, got in wrong[:5]:
        print(f"     {text!r}\n       expected {reference.encode(text, True).ids}\n       got      {got}")
    report.append(len(wrong))


def main():
    tool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    strings = oracle.TRICKY + oracle.random_strings(7, count)
    report = []
    p = pre_tokenizers
    with tempfile.TemporaryDirectory() as temp:
        path = pathlib.Path(temp) / "vocab.gguf"
        plain = p.ByteLevel(add_prefix_space=False)
        for name, make in {
            "gpt-2": lambda: byte_level(path, "gpt-2", plain),
            "gpt-2 with BOS": lambda: byte_level(path, "gpt-2", plain, bos=True),
            "smollm": lambda: byte_level(path, "smollm", p.Sequence([p.Digits(individual_digits=True), plain])),
            "llama-bpe": lambda: byte_level(path, "llama-bpe", oracle.split_then_bytes(oracle.LLAMA3), ignore_merges=True),
            "llama-bpe without BOS": lambda: byte_level(path, "llama-bpe", oracle.split_then_bytes(oracle.LLAMA3), ignore_merges=True, bos=False),
            "qwen2": lambda: byte_level(path, "qwen2", oracle.split_then_bytes(oracle.QWEN2), normalizer=normalizers.NFC()),
            "tekken": lambda: byte_level(path, "tekken", oracle.split_then_bytes(TEKKEN), ignore_merges=True),
            "WordPiece": lambda: word_piece(path),
            "WordPiece, cased": lambda: word_piece(path, lowercase=False),
        }.items():
            oracle.compare(tool, name, make(), path, strings, report)
        for fallback in (True, False):
            spm, fast = sentence_piece(path, byte_fallback=fallback)
            name = f"SentencePiece {'with' if fallback else 'without'} bytes"
            # sentencepiece itself gives special tokens no meaning in texts, and takes characters out that it uses itself.
            clean = [t for t in strings if not any(s in t for s in SPELLED) and "\u2581" not in t and "\x00" not in t]
            compare_ids(tool, name + ", sentencepiece", spm, path, clean, report)
            oracle.compare(tool, name + ", tokenizers", fast, path, strings, report)
    print(f"{len(report)} comparisons with tokenizers {tokenizers.__version__} and sentencepiece {sentencepiece.__version__}, "
          f"{sum(map(bool, report))} differ")
    return 1 if any(report) else 0


if __name__ == "__main__":
    sys.exit(main())
