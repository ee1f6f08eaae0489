"""Writes matches.json: what the patterns of tokenizer.json match, by the library tokenizers (Oniguruma). Usage: gen.py > matches.json"""

import json

from tokenizers import Regex, pre_tokenizers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
PATTERNS = [
    GPT2, LLAMA3, QWEN2, O200K,
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}", r"\p{N}+", "[0-9][0-9][0-9]",
    r"[\p{Han}]+", r"[\p{Lu}\p{Lo}&&[^\p{Han}]]+", r"[^\p{Han}&&\p{L}]+", r"\p{Hiragana}+|\p{Katakana}+", r"\p{Cyrillic}+", r"\p{^L}+",
    " {2,}", r"\s+", r"\S+", r"\w+|[^\w\s]+", r"\d{1,3}(?=(?:\d{3})*\b)", r"(?<=\s)\p{L}", r"(?<!\p{L})\p{L}", r"(?<=ab|c)\w", r"\b", r"\B",
    r"^\s*", r"\s*$", r"\A\w+", r"\w+\z", r"\w+\Z", r"(?m).+", r".+", r"(?i)the|[k-s]+", r"(?i:straSe)", r"(?x) \p{L} + # letters",
    r"\p{L}++\d", r"\p{L}*+", r"(?>a|ab)c", r"(?:ab|a)(?:c|bcd)?", r"a*?b", r"(?:\p{L}\d){2,3}?", r"(?:xy)+", r"(?:xy|z){1,2}", r"x{2}", r"x{,2}y", r"{|}",
    r"[\w&&[^\d_]]+", r"[a-c\-\]]+", r"[^a-z]", r"[é-ü]+", r"A?", r"\h+", r"[\h]+|\H", r"\x41|é|\x{1F600}", r"\t|\n", r"a|b|", r"(a)(?<name>b)",
    r"(?=[A-Z])", r"(?!^)(?=\p{Lu})", r"\p{M}+", r"\p{S}|\p{P}", r"\p{Sc}\p{Nd}+", r"\p{Z}+", r"\p{C}", r"\p{Cn}", r"\p{Cf}", r"'(?:[sdmt]|ll|ve|re)",
]
TEXTS = [
    "", "a", " ", "\n", "Hello world! It's 2024, isn't it?\n\n  done\t ", "  leading and   many    spaces   ", "\r\n\r\n a\n \n\nb  \n",
    "abc abcd abab xyxyz xxx xxy y {|} a-b]c", "I'LL we'Re they'VE 'S 'ſ K the THE sK", "straße STRASE strase ſtraſe",
    "x1y2z3 1234567 12,345 ١٢٣٤ Ⅷ ½ 一二三 3²", "日本語のテキスト、カタカナ。漢字kanji 한국어 русский язык ελληνικά עברית العربية हिन्दी ไทย", "é è ü ÄÖ ñ a\u0301 e\u0301\u0302 \u0301",
    "emoji 😀👍🏽 👩‍👩‍👧 🇩🇪 ☕️", "$12 €5 £7 100% a_b __init__ #tag @user", "\u00a0\u2003\u3000x\u0085y\u200bz\u00ad\ufeff", "camelCaseHTTPServer ClassName XMLParser2",
    "def f(x):\n\treturn x**2  # ok\n\n\nclass A:\n    pass\n", "\u0378\U000e0001\ue000 \ufffd \U0001fadd \u1c89\u1c8a \U00010d40", "0xDEADbeef 7f/ gG //\n//\r\n", "aaaa aab b ab\n^ab$ ba\n",
]

out = []
for p in PATTERNS:
    split = pre_tokenizers.Split(Regex(p), "removed", invert=True)
    out.append({"pattern": p, "matches": [[[m, *span] for m, span in split.pre_tokenize_str(t)] for t in TEXTS]})
print(json.dumps({"texts": TEXTS, "patterns": out}, ensure_ascii=False, separators=(",", ":")))
