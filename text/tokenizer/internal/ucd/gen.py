"""Writes tables.txt: asks the tokenizers library, code point by code point, which sets its parts believe in.

Its parts disagree: its regular expressions know Unicode 16, its normalization Unicode 9, its bert rules Unicode 8, its language the
newest. Only the answers count here, so nothing is taken from a Unicode file.

usage: gen.py > tables.txt, with tokenizers 0.23.3
"""

import sys

from tokenizers import Regex, __version__, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALL = "".join(map(chr, POINTS))

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
SCRIPTS = """Common Inherited Latin Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil
Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Georgian Hangul Ethiopic Cherokee Khmer Mongolian Hiragana Katakana Bopomofo
Han Yi""".split()


def ranges(points):
    out, start, last = [], None, None
    for c in sorted(points):
        if last is not None and (c == last + 1 or (last == 0xD7FF and c == 0xE000)):
            last = c
            continue
        if start is not None:
            out.append((start, last))
        start = last = c
    if start is not None:
        out.append((start, last))
    return out


def emit(name, points):
    print(name, *(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in ranges(points)))


def pattern(p):
    """The code points that a pattern of one character matches."""
    left = set(normalizers.Replace(Regex(p), "").normalize_str(ALL))
    return [c for c in POINTS if chr(c) not in left]


def removed(normalizer):
    """The code points that a normalizer leaves out, asked one by one because a normalizer may also decompose."""
    return [c for c in POINTS if normalizer.normalize_str("a" + chr(c) + "b") == "ab"]


def alone(pre_tokenizer):
    """The code points that a pre-tokenizer cuts out of a word."""
    return [c for c in POINTS if len(pre_tokenizer.pre_tokenize_str("a" + chr(c) + "b")) == 3]


print("# Sets of code points as tokenizers", __version__, "knows them; written by gen.py.")
for c in CATEGORIES:
    emit("category:" + c, pattern(rf"\p{{{c}}}"))
for s in SCRIPTS:
    emit("script:" + s, pattern(rf"\p{{{s}}}"))
# A bracketed \w leaves out some fractions and superscripts that the bare one has.
emit("pattern:word", pattern(r"\w"))
emit("pattern:[word]", pattern(r"[\w]"))
emit("pattern:space", pattern(r"\s"))

# The bert normalizer and pre-tokenizer.
bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
emit("bert:removed", removed(bert))
accents = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
emit("bert:accent", removed(accents))
emit("punctuation", alone(pre_tokenizers.Punctuation()))

# The language's own character functions, and its regular expressions' word.
emit("numeric", alone(pre_tokenizers.Digits(individual_digits=True)))
split = pre_tokenizers.WhitespaceSplit()
emit("space", [c for c in POINTS if len(split.pre_tokenize_str("a" + chr(c) + "b")) == 2])
words = pre_tokenizers.Whitespace()
emit("word", [c for c in POINTS if len(words.pre_tokenize_str("a" + chr(c) + "b")) == 1])
lower = normalizers.Lowercase()
print("lower", *(f"{c:x}:{'+'.join(f'{ord(d):x}' for d in lower.normalize_str(chr(c)))}" for c in POINTS if lower.normalize_str(chr(c)) != chr(c)))

# Normalization: the marks, and every code point that decomposes or that moves.
emit("mark", removed(normalizers.StripAccents()))
nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
emit("canonical", [c for c in POINTS if nfd.normalize_str(chr(c)) != chr(c)])
emit("compatible", [c for c in POINTS if nfkd.normalize_str(chr(c)) != chr(c)])
# U+0345 has the highest class of all, 240: what moves before it has a class.
emit("moves", [c for c in POINTS if c == 0x345 or (nfd.normalize_str(chr(c)) == chr(c) and nfd.normalize_str("\u0345" + chr(c)) == chr(c) + "\u0345")])
print("done", file=sys.stderr)
