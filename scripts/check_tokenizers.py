"""Compare `mergekit tokenize` with transformers on awkward strings.

usage: check_tokenizers.py PROGRAM MODEL...

Ends with status 1 if anything differs.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from transformers import AutoTokenizer

COUNT = 500

FIXED = [
    "", " ", "  ", "\n", "\t", "\r\n", "\0", "\x7f", "\x1b[31mred\x1b[0m", "\ufeffBOM", "\u00a0", "\u2028\u2029", "\u200b\u200c\u200d", "\u00ad",
    "It's a dog's life; they'll say we've 'heard' THAT'S it, I'd've.", "don''t 'S 'LL 're'VE'm'D", "…and… — “so” ‘on’ «x» ¿qué? ¡no!",
    "1234567890" * 20, "3.14159e-10 0xDEADBEEF 1_000_000 ½ ² Ⅷ ٣٤٥ १२३ 一二三 ㊿ 𝟙𝟚", "-1 +2 ±3 №4 #5 @6 $7 €8 ¥9 £10 %11",
    "def f(x):\n    return {'a': [x, -x]}  # comment\n\n\nclass A(B):\n\tpass\n", "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 1 << 3); return 0; }",
    "SELECT * FROM t WHERE a='b' AND c<>1; -- x", "<div class=\"a\">&nbsp;&lt;b&gt;</div>", "https://example.org/a/b?c=d&e=%20f#g", "C:\\path\\to\\file.txt ~/.bashrc", "$\\frac{a}{b} = \\sum_{i=0}^{n} x_i$",
    "camelCase PascalCase snake_case kebab-case SCREAMING_CASE XMLHttpRequest iPhone15Pro", "a" * 300, "A" * 100, "ab" * 150, "!" * 80, " " * 70 + "x", "\n" * 40, "\t\t\t\tx\t\ty", "_" * 60, "=-" * 40,
    "Žluťoučký kůň úpěl ďábelské ódy", "Zażółć gęślą jaźń", "Привет, мир! Съешь ещё этих мягких французских булок", "Καλημέρα κόσμε, ΟΔΥΣΣΕΥΣ", "שלום עולם", "مرحبا بالعالم، كيف الحال؟", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก", "こんにちは、世界。カタカナとひらがな", "你好，世界！中文字符测试", "안녕하세요 세계 각 \u1100\u1161\u11a8", "ሰላም ዓለም", "გამარჯობა", "Բարեւ", "ខ្មែរ", "မြန်မာ", "བོད་སྐད", "ᚠᛇᚻ", "𓀀𓂀", "𐍈𐌰",
    "🙂🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☕️ ❤️‍🔥 1️⃣ \U0001fae8", "e\u0301 é e\u0301\u0323 a\u0308\u0304 \u1e69 s\u0323\u0307", "Z̴̡̛͎a̸͓͝l̵̨͠g̶͎̿o̷͖͑" * 5, "ﬁne ﬂow ﬃ ﬀ ĳ ǆ ß ẞ ſ İ ı Å K Ω", "①②③ ㍿ ㋿ ㎏ ﷺ ﷽", "Ｆｕｌｌ　ｗｉｄｔｈ１２３", "ｶﾀｶﾅ ﾊﾝｶｸ", "\u0378\U000e0001\ue000\ufffd\ufffe\U0010ffff",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|><|endoftext|> <|im_end|>x", "<|im_start|", "<| im_start |>", "[CLS] a [SEP] b [MASK] c [PAD][UNK]", "[cls] [sep]", " [MASK] ,[MASK].", "<s></s><unk><pad>", "##ing ## un##able", "▁under▁score▁",
    "can't cannot do not don't won't 's 're", "Mr. O'Neill-Smith's A.B.C. U.S.A. e.g., i.e., etc.", "supercalifragilisticexpialidocious antidisestablishmentarianism " * 2, "x" * 99 + " " + "y" * 100 + " " + "z" * 101, "naïve café résumé coöperate façade Ångström", "THE QUICK BROWN FOX Jumps Over", "tab\tseparated\tvalues\r\nwith\rmixed\nends", "trailing space ", " leading", "double  space", "a\u3000b\u2003c\u2009d\u202fe\u205ff\u1680g\u0085h",
]
PARTS = [
    *"abcxyzABCXYZ0123456789", *" \n\t\r.,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`", " ", "  ", "   ", "\n\n", "\r\n", "    ", "the", " the", "ing", "tion", "HTTP", "don't", "'s", "'LL", "123", "4567", "3.14",
    "é", "e\u0301", "ü", "ñ", "ß", "İ", "ſ", "Å", "ω", "Ж", "ш", "א", "ع", "٣", "ह", "्", "ก", "ำ", "日", "本", "語", "カ", "ー", "한", "국", "ᄀ", "ᅡ", "、", "。", "　", "！", "🙂", "🏽", "\u200d", "👩", "🇩", "\ufe0f", "𝒳", "½", "²", "Ⅷ",
    "\u0301", "\u0323", "\u0345", "\u200b", "\u00ad", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\0", "\x01", "\x1f", "\x7f", "\x85", "\U000e0001", "\ue000", "—", "…", "“", "’", "€", "№", "▁", "##", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "<s>", "</s>",
]


def strings():
    """The fixed strings, and mixtures of their parts: the same ones every time."""
    out = list(dict.fromkeys(FIXED))
    draw = random.Random("awkward strings")
    while len(out) < COUNT:
        kind = draw.random()
        if kind < 0.6:
            s = "".join(draw.choice(PARTS) for _ in range(draw.randint(2, 40)))
        elif kind < 0.8:
            s = "".join(draw.choice(FIXED)[: draw.randint(1, 12)] for _ in range(draw.randint(2, 8)))
        else:  # any code points
            s = "".join(chr(c) for c in (draw.choice((draw.randrange(0x20, 0x3000), draw.randrange(0x20, 0x800), draw.randrange(0x10000, 0x1FB00))) for _ in range(draw.randint(1, 20))))
        if s not in out:
            out.append(s)
    return out


def run(program, model, lines, *flags):
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    done = subprocess.run([program, "tokenize", model, "--json", *flags], input=text.encode(), capture_output=True)
    if done.returncode:
        sys.exit(f"mergekit tokenize {' '.join(flags)}: status {done.returncode}: {done.stderr.decode()}{done.stdout.decode()[-500:]}")
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


def byte_spans(text, spans):
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [[at[a], at[b]] for a, b in spans]


def main():
    program, models = sys.argv[1], sys.argv[2:]
    texts = strings()
    failed = False
    for model in models:
        tokenizer = AutoTokenizer.from_pretrained(model)
        start = time.time()
        special = run(program, model, texts, "--json-lines", "--spans")
        plain = run(program, model, texts, "--json-lines", "--plain")
        want = [tokenizer(t, return_offsets_mapping=True) for t in texts]
        want_plain = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
        back = run(program, model, [w["input_ids"] for w in want], "--decode")
        back_plain = run(program, model, want_plain, "--decode", "--skip-special")
        results = {
            "ids": [(s["ids"], w["input_ids"]) for s, w in zip(special, want)],
            "ids without special tokens": list(zip((p["ids"] for p in plain), want_plain)),
            "spans": [(s["spans"], byte_spans(t, w["offset_mapping"])) for s, w, t in zip(special, want, texts)],
            "text": [(b["text"], tokenizer.decode(w["input_ids"])) for b, w in zip(back, want)],
            "text without special tokens": [(b["text"], tokenizer.decode(w, skip_special_tokens=True)) for b, w in zip(back_plain, want_plain)],
        }
        name = pathlib.Path(model).name
        print(f"{name}: {type(tokenizer).__name__}, {len(tokenizer)} tokens, {len(texts)} strings, {sum(map(len, want_plain))} ids")
        for what, pairs in results.items():
            wrong = [(t, g, w) for t, (g, w) in zip(texts, pairs) if g != w]
            assert len(pairs) == len(texts)
            print(f"{'FAIL' if wrong else 'ok  '}  {what}: {len(pairs) - len(wrong)} of {len(pairs)} equal")
            for t, g, w in wrong[:5]:
                print(f"      {t!r}\n        got  {g!r}\n        want {w!r}")
            failed |= bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
