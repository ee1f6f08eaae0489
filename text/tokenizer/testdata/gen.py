"""Writes components.json, spans.json and digests.json: what the library tokenizers makes of awkward strings, component by component.

usage: gen.py GOLDEN, with the folder of the golden tokenizers
"""

import base64
import hashlib
import json
import pathlib
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

golden = pathlib.Path(sys.argv[1])

TEXTS = [
    "", " ", "a", "Hello world! It's 2024, isn't it?", "  two  spaces  and\ttabs\n\nlines \r\n end  ", "\n\n\n", "   ",
    "naïve café Ångström ﬁne ½ ² Ⅷ ㋿ ① ﷺ", "e\u0301\u0323 a\u0323\u0301 \u1e69 s\u0323\u0307 \u0344 \u0958 \u2126 \ufb1d \u0340", "\u0301abc \u200d\u200b\u00ad\ufeffx\u2028y\u2029z\u0085w",
    "日本語のテキスト カタカナ ｶﾀｶﾅ 漢字", "한국어 텍스트 각 \u1100\u1161\u11a8 \uac00\u11a8", "Привет, мир! ΑΒΓ Σίσυφος ΟΔΟΣ", "مرحبا بالعالم ١٢٣", "हिन्दी में ไทย", "İstanbul I ı ẞ ß ſ ǅ K Å",
    "😀👍🏽 👩‍👩‍👧 🇩🇪 ☕️ \U0001fae8", "def f(x):\n\treturn x**2  # ok\n", "<s>special</s> <unk> <pad> [CLS][MASK] [SEP]", "a<|x|>b  <|x|>  c <|y|> <|y|>d", "word wordy sword word_ word.",
    "\x00\x01\x07\x0b\x0c\x1f\x7f\x8f\x9f\ufffd\ufffe", "ↀ\u0378\U000e0001\ue000 𝒳𝟙 \U0001d15e \U00010d40", "▁under▁ _score_ ▁▁", "1234567890 12.5e-10 0xFF", "…‥ ‼ ⁇ ﹏ ＡＢＣ　全角 ～！", "a\u0327\u0301\u0328\u0316" + "\u0300" * 40 + "b",
    "CamelCase HTTPServer x.y.z a-b_c/d\\e", "$5 €6 +1 =2 ^3 `4 |5 ~6 <7 >8", "“quotes” ‘single’ «guillemets» – — ― ‐ ·", "\r\r\n\n\r x\r",
]

# The smallest charsmap that shows the corners: a prefix, a replacement by nothing, by more and by less, one of a whole cluster.
def charsmap(rules):
    """A double array for the rules, by trying offsets until every child fits."""
    root = {}
    for key, value in rules.items():
        node = root
        for b in key.encode():
            node = node.setdefault(b, {})
        node[-1] = value
    text, offsets = b"", {}
    for value in rules.values():
        if value not in offsets:
            offsets[value] = len(text)
            text += value.encode() + b"\0"
    units, used = {0: 0}, {0}

    def place(node, pos):
        labels = [0 if k == -1 else k for k in node]
        base = 1
        while any((base ^ l) in used for l in labels) or (base ^ pos) >= 1 << 21:
            base += 1
        for l in labels:
            used.add(base ^ l)
        units[pos] = units.get(pos, 0) | (base ^ pos) << 10 | (1 << 8 if -1 in node else 0)
        for k, child in node.items():
            if k == -1:
                units[base] = offsets[child] | 1 << 31
            else:
                units[base ^ k] = k
                place(child, base ^ k)

    place(root, 0)
    size = (max(units) | 255) + 1
    trie = b"".join(struct.pack("<I", units.get(i, 0)) for i in range(size))
    return struct.pack("<I", len(trie)) + trie + text


RULES = {"ﬁ": "fi", "½": "1⁄2", "\u200b": "", "\u00ad": "", "e\u0301": "é", "a\u0323": "ạ", "Ａ": "A", "　": " ", "㋿": "令和", "…": "...", "\t": " ", "\n": " ", "\r\n": " ", "ｶ": "カ", "Å": "Å", "\x07": ""}
CHARSMAP = base64.b64encode(charsmap(RULES)).decode()


def part(kind, **fields):
    return {"type": kind, **fields}


NORMALIZERS = [
    part("NFC"), part("NFD"), part("NFKC"), part("NFKD"), part("Lowercase"), part("StripAccents"), part("Nmt"), part("ByteLevel"),
    part("Strip", strip_left=True, strip_right=True), part("Strip", strip_left=True, strip_right=False), part("Strip", strip_left=False, strip_right=True),
    part("Prepend", prepend="▁▁"), part("Replace", pattern={"String": " "}, content="▁"), part("Replace", pattern={"Regex": " {2,}|\\p{N}"}, content=""),
    part("Replace", pattern={"Regex": "(?=l)"}, content="-"), part("Replace", pattern={"String": "a"}, content="xyz"),
    *(part("BertNormalizer", clean_text=c, handle_chinese_chars=h, strip_accents=s, lowercase=l) for c, h, s, l in
      ((True, True, None, True), (True, True, None, False), (False, True, True, False), (True, False, False, True))),
    part("Precompiled", precompiled_charsmap=CHARSMAP),
    part("Sequence", normalizers=[part("NFD"), part("Lowercase"), part("StripAccents")]),
    part("Sequence", normalizers=[part("Prepend", prepend="▁"), part("Replace", pattern={"String": " "}, content="▁")]),
    part("Sequence", normalizers=[part("Precompiled", precompiled_charsmap=CHARSMAP), part("Replace", pattern={"Regex": " {2,}"}, content=" "), part("Strip", strip_left=True, strip_right=True), part("NFKC")]),
    part("Sequence", normalizers=[part("NFKD"), part("Strip", strip_left=True, strip_right=False), part("Prepend", prepend="é")]),
]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PRE_TOKENIZERS = [
    *(part("ByteLevel", add_prefix_space=a, trim_offsets=True, use_regex=u) for a in (True, False) for u in (True, False)),
    *(part("Split", pattern=p, behavior=b, invert=i) for b in BEHAVIORS for p, i in (({"String": " "}, False), ({"Regex": r"\s+|\p{P}"}, False), ({"Regex": r"\w+"}, True))),
    part("Split", pattern={"Regex": GPT2}, behavior="Isolated", invert=False), part("Split", pattern={"Regex": GPT2}, behavior="Removed", invert=True),
    part("Split", pattern={"Regex": LLAMA3}, behavior="Isolated", invert=False), part("Split", pattern={"Regex": LLAMA3.replace("{1,3}", "")}, behavior="Isolated", invert=False),
    part("Digits", individual_digits=True), part("Digits", individual_digits=False), *(part("Punctuation", behavior=b) for b in BEHAVIORS),
    part("Whitespace"), part("WhitespaceSplit"), part("BertPreTokenizer"), part("FixedLength", length=4),
    *(part("Metaspace", replacement="▁", prepend_scheme=s, split=c) for s in ("always", "first", "never") for c in (True, False)),
    part("Sequence", pretokenizers=[part("Digits", individual_digits=True), part("ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)]),
    part("Sequence", pretokenizers=[part("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True), part("Digits", individual_digits=True), part("Split", pattern={"String": "Ġ"}, behavior="Isolated", invert=False)]),
    part("Sequence", pretokenizers=[part("WhitespaceSplit"), part("Metaspace", replacement="▁", prepend_scheme="always", split=True)]),
    part("Sequence", pretokenizers=[part("WhitespaceSplit"), part("Metaspace", replacement="▁", prepend_scheme="first", split=True)]),
]


def load(**parts):
    """A tokenizer whose model leaves every word as it is."""
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    base["model"] = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
    base.update(parts)
    return Tokenizer.from_str(json.dumps(base))


def byte_spans(text, spans):
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [[at[a], at[b]] for a, b in spans]


def words(tokenizer, text):
    """Where the words come from after normalizer and pre-tokenizer."""
    return byte_spans(text, tokenizer.encode(text).offsets)


out = {"texts": TEXTS, "normalizers": [], "pre_tokenizers": [], "decoders": [], "tokenizers": []}
for n in NORMALIZERS:
    normalizer = load(normalizer=n).normalizer
    # Split into single code points, so that spans show the alignment of each.
    spans = load(normalizer=n, pre_tokenizer=part("FixedLength", length=1))
    out["normalizers"].append({"component": n, "cases": [[normalizer.normalize_str(t), words(spans, t)] for t in TEXTS]})
for p in PRE_TOKENIZERS:
    tokenizer = load(pre_tokenizer=p)
    out["pre_tokenizers"].append({"component": p, "cases": [[[w for w, _ in tokenizer.pre_tokenizer.pre_tokenize_str(t)], words(tokenizer, t)] for t in TEXTS]})

TOKENS = [
    [], ["a"], ["▁Hello", "▁wor", "ld", "▁", "▁▁x"], ["▁▁", "a▁b"], ["Hel", "##lo", "world", "##", ".", "it", "'", "s", "do", "not", "##'", " n't", " 've x"],
    ["ĠHello", "Ġ", "Ã", "©", "â", "Ĥ", "<|é|>", "ð", "Ł", "ĺ", "Ģ"], ["<0x41>", "<0xE2>", "<0x82>", "<0xAC>", "x", "<0xFF>", "<0xC3>", "▁y", "<0x0a>", "<0xGG>", "<0x41", "<0xé>"],
    ["low</w>", "er</w>", "new", "est</w>"], ["  a  ", " b", "c ", "   "], ["ð", "Ł", "x", "í", "ł", "Ģ", "Ã", "Ã"], ["<unk>", " "], ["", "a", ""],
]
DECODERS = [
    part("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True), part("ByteFallback"), part("Fuse"), part("BPEDecoder", suffix="</w>"),
    part("WordPiece", prefix="##", cleanup=True), part("WordPiece", prefix="##", cleanup=False),
    *(part("Metaspace", replacement="▁", prepend_scheme=s, split=True) for s in ("always", "first", "never")),
    part("Replace", pattern={"String": "▁"}, content=" "), part("Replace", pattern={"Regex": "[ab]+"}, content="<>"),
    part("Strip", content=" ", start=1, stop=0), part("Strip", content=" ", start=2, stop=0),
    part("Sequence", decoders=[part("Replace", pattern={"String": "▁"}, content=" "), part("ByteFallback"), part("Fuse"), part("Strip", content=" ", start=1, stop=0)]),
]
for d in DECODERS:
    decoder = load(decoder=d).decoder
    cases = []
    for tokens in TOKENS:
        if d["type"] == "BPEDecoder" and not tokens:
            continue  # the library counts below zero there
        cases.append([tokens, decoder.decode(tokens)])
    out["decoders"].append({"component": d, "cases": cases})


# Whole tokenizers: added tokens with every flag, models with every switch, processors.
def added(i, content, **flags):
    return {"id": i, "content": content, **{"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}}


ADDED = [
    added(900, "<s>"), added(901, "</s>", lstrip=True), added(902, "<|x|>", rstrip=True, lstrip=True), added(903, "<|y|>", rstrip=True), added(904, "word", single_word=True, special=False),
    added(905, "Hello", normalized=True, special=False), added(906, "[MASK]", lstrip=True), added(907, "<|x|>b", special=False), added(908, "two  spaces", normalized=True, special=False),
    added(909, "\n\n", special=False), added(910, "\t", special=False, normalized=True), added(911, "É", special=True, normalized=True), added(912, "<unk>"),
]
alphabet = sorted({c for t in TEXTS[3:8] for c in t} | set("▁abcdefghijklmnopqrstuvwxyz"))
vocab = {t: i for i, t in enumerate(["<unk>", *alphabet, "he", "ll", "hell", "hello", "▁h", "wor", "ld", "world", "▁w", "is", "it", "▁▁", "▁i", "in", "ine", "an", "and", "▁a", "n▁"])}
merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["i", "s"], ["i", "t"], ["▁", "▁"], ["▁", "h"], ["▁", "w"], ["l", "d"], ["▁", "i"], ["i", "n"], ["in", "e"], ["a", "n"], ["an", "d"], ["▁", "a"], ["n", "▁"]]
fallback = {f"<0x{b:02X}>": len(vocab) + b for b in range(256)}
suffixed = {t: i for i, t in enumerate(["<unk>", *(c + s for c in "abcdefghijklmnopqrstuvwxyz" for s in ("", "</w>")), "he", "ll", "hell", "hello</w>", "it</w>", "is</w>"])}
prefixed = {t: i for i, t in enumerate(["<unk>", *(p + c for c in "abcdefghijklmnopqrstuvwxyz" for p in ("", "@@")), "he", "@@ll", "hell", "hello", "it", "is"])}
bpe = lambda **f: {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges, **f}
pieces = [["<unk>", 0.0], ["<s>", 0.0], *([c, -6.0 - i / 7] for i, c in enumerate(alphabet)), ["he", -5.123456789012345], ["ll", -4.1], ["hell", -7.3], ["hello", -8.5], ["▁hello", -8.9], ["is", -4.0], ["▁is", -5.1], ["it", -4.25], ["▁it", -5.5], ["▁▁", -3.3]]
bytes_pieces = [[f"<0x{b:02X}>", -20.0] for b in range(256)]
space = part("Metaspace", replacement="▁", prepend_scheme="always", split=True)
byte_level = part("ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True)
gpt2 = json.loads((golden / "gpt2/tokenizer.json").read_text())["model"]
wordpiece = json.loads((golden / "wordpiece/tokenizer.json").read_text())["model"]
template = part("TemplateProcessing", single=[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "both", "type_id": 0}}],
                pair=[{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                special_tokens={"<s>": {"id": "<s>", "ids": [900], "tokens": ["<s>"]}, "both": {"id": "both", "ids": [901, 906], "tokens": ["</s>", "[MASK]"]}})
lower = part("Lowercase")
WHOLE = {
    "bpe": dict(model=bpe(), normalizer=lower),
    "bpe-unk": dict(model=bpe(unk_token="<unk>"), normalizer=lower),
    "bpe-fuse-unk": dict(model=bpe(unk_token="<unk>", fuse_unk=True), normalizer=part("Replace", pattern={"String": " "}, content="▁")),
    "bpe-fallback": dict(model=bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True, vocab={**vocab, **fallback}), normalizer=part("Replace", pattern={"String": " "}, content="▁")),
    "bpe-some-fallback": dict(model=bpe(unk_token="<unk>", fuse_unk=True, byte_fallback=True, vocab={**vocab, **{k: v for k, v in fallback.items() if k < "<0xE4>"}}), normalizer=part("Replace", pattern={"String": " "}, content="▁")),
    "bpe-ignore-merges": dict(model=bpe(unk_token="<unk>", ignore_merges=True, merges=merges[:3]), normalizer=lower, pre_tokenizer=part("Whitespace")),
    "bpe-suffix": dict(model=bpe(unk_token="<unk>", end_of_word_suffix="</w>", vocab=suffixed, merges=["h e", "l l", "he ll", "hell o</w>", "i t</w>", "i s</w>"]), normalizer=lower, pre_tokenizer=part("Whitespace")),
    "bpe-prefix": dict(model=bpe(unk_token="<unk>", continuing_subword_prefix="@@", vocab=prefixed, merges=[["h", "@@e"], ["@@l", "@@l"], ["he", "@@ll"], ["hell", "@@o"], ["i", "@@t"], ["i", "@@s"]]), normalizer=lower, pre_tokenizer=part("BertPreTokenizer")),
    "bpe-bytes": dict(model=gpt2, pre_tokenizer=byte_level, post_processor=part("Sequence", processors=[byte_level, template])),
    "bpe-bytes-added": dict(model=gpt2, normalizer=part("NFC"), pre_tokenizer=part("ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=True), added_tokens=ADDED, post_processor=byte_level),
    "bpe-normalizer-bytes": dict(model=gpt2, normalizer=part("Sequence", normalizers=[part("NFKC"), part("ByteLevel")]), added_tokens=ADDED),
    "roberta": dict(model=gpt2, pre_tokenizer=byte_level, added_tokens=ADDED, post_processor=part("RobertaProcessing", sep=["</s>", 901], cls=["<s>", 900], trim_offsets=True, add_prefix_space=True)),
    "bert": dict(model=wordpiece, normalizer=NORMALIZERS[16], pre_tokenizer=part("BertPreTokenizer"), added_tokens=ADDED, post_processor=part("BertProcessing", sep=["[SEP]", 3], cls=["[CLS]", 2])),
    "wordpiece-short": dict(model={**wordpiece, "max_input_chars_per_word": 6}, pre_tokenizer=part("WhitespaceSplit")),
    "unigram": dict(model={"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}, normalizer=lower, pre_tokenizer=space, added_tokens=ADDED),
    "unigram-fallback": dict(model={"type": "Unigram", "unk_id": 0, "vocab": pieces + bytes_pieces, "byte_fallback": True}, normalizer=lower, pre_tokenizer=space, post_processor=template),
    "unigram-precompiled": dict(model={"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}, normalizer=NORMALIZERS[-2], pre_tokenizer=space, added_tokens=[a for a in ADDED if a["content"] != "\t"]),
    "first": dict(model=bpe(unk_token="<unk>"), pre_tokenizer=part("Metaspace", replacement="▁", prepend_scheme="first", split=False), added_tokens=ADDED),
    "level": dict(model={"type": "WordLevel", "vocab": {"<unk>": 0, "it": 1, "is": 2, "!": 3}, "unk_token": "<unk>"}, normalizer=lower, pre_tokenizer=part("Whitespace"), added_tokens=ADDED),
}
for name, parts in WHOLE.items():
    tokenizer = load(**parts)
    cases = []
    for t in TEXTS:
        special, plain = tokenizer.encode(t), tokenizer.encode(t, add_special_tokens=False)
        cases.append([special.ids, byte_spans(t, special.offsets), plain.ids, tokenizer.decode(plain.ids, skip_special_tokens=True)])
    # Golden models are named, not copied.
    named = {**parts, "model": {gpt2["type"]: "gpt2", "WordPiece": "wordpiece"}[parts["model"]["type"]] if parts["model"] in (gpt2, wordpiece) else parts["model"]}
    out["tokenizers"].append({"name": name, "parts": named, "cases": cases})

here = pathlib.Path(__file__).parent
(here / "components.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")).replace('{"component"', '\n{"component"').replace('{"name"', '\n{"name"') + "\n")

spans = {}
for kind in sorted(p.name for p in golden.iterdir()):
    tokenizer = Tokenizer.from_file(str(golden / kind / "tokenizer.json"))
    texts = [c["text"] for c in json.loads((golden / kind / "cases.json").read_text())][::3]
    spans[kind] = [[t, (e := tokenizer.encode(t)).ids, byte_spans(t, e.offsets)] for t in texts]
(here / "spans.json").write_text(json.dumps(spans, ensure_ascii=False, separators=(",", ":")) + "\n")

# Every code point that has properties, by itself, after a letter, and after a mark that others move before.
points = [chr(c) for c in [*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200)]]
digests = []
for n in [part("NFC"), part("NFD"), part("NFKC"), part("NFKD"), part("Lowercase"), part("StripAccents"), part("Nmt"), NORMALIZERS[16]]:
    normalizer = load(normalizer=n).normalizer
    digest = hashlib.sha256()
    for c in points:
        digest.update(normalizer.normalize_str(f"{c} a{c}\u0345{c}").encode() + b"\n")
    digests.append({"component": n, "digest": digest.hexdigest()})
(here / "digests.json").write_text(json.dumps(digests, separators=(",", ":")) + "\n")
