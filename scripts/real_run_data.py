"""Makes two sets of chat rows from dictionaries that Debian ships; called by real-run.

wordnet  glosses of nouns with one sense (package wordnet-base 3.0, WordNet 3.0 licence, Princeton University)
jargon   first paragraphs of the Jargon File 4.4.7 (package dict-jargon, public domain)

usage: real_run_data.py ROOT OUT     ROOT holds the unpacked packages
"""
import gzip
import hashlib
import json
import pathlib
import re
import sys

root, out = map(pathlib.Path, sys.argv[1:3])
out.mkdir(parents=True, exist_ok=True)


def rank(word):
    """A fixed pseudo-random order that does not depend on Python's generator."""
    return hashlib.sha256(word.encode()).hexdigest()


def wordnet():
    senses = {}
    for line in (root / "usr/share/wordnet/index.noun").read_text().splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0]] = int(fields[2])
    for line in (root / "usr/share/wordnet/data.noun").read_text().splitlines():
        if line.startswith(" "):
            continue
        head, gloss = line.split(" | ", 1)
        word = head.split()[4]
        gloss = gloss.split('; "')[0].strip()
        if senses.get(word.lower()) == 1 and re.fullmatch(r"[a-z_]{4,24}", word) and 20 <= len(gloss) <= 160:
            yield word.replace("_", " "), f'Define the noun "{word.replace("_", " ")}" as a dictionary does.', gloss


def jargon():
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(text):
        n = 0
        for c in text:
            n = n * 64 + digits.index(c)
        return n

    body = gzip.decompress((root / "usr/share/dictd/jargon.dict.dz").read_bytes())
    for line in (root / "usr/share/dictd/jargon.index").read_text().splitlines():
        word, at, length = line.split("\t")
        text = body[number(at):number(at) + number(length)].decode()
        paragraphs = re.split(r"\n\s*\n+", text.strip("\n"))
        if word.startswith("00") or len(paragraphs) < 2:
            continue
        title = paragraphs[0].splitlines()[0].strip()
        answer = re.sub(r"\s+", " ", re.sub(r"\s*[{}]", lambda m: " " if "{" in m[0] else "", paragraphs[1])).strip()
        if 60 <= len(answer) <= 420:
            yield title, f'What does "{title}" mean to hackers?', answer


for name, source, train, valid in (("wordnet", wordnet, 2000, 200), ("jargon", jargon, 1300, 200)):
    rows = {}
    for word, question, answer in source():
        rows.setdefault(word, (question, answer))
    words = sorted(rows, key=rank)[: train + valid]
    for part, chosen in (("valid", words[:valid]), ("train", words[valid:])):
        with open(out / f"{name}.{part}.jsonl", "w") as f:
            for word in chosen:
                question, answer = rows[word]
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                f.write(json.dumps({"messages": messages, "domain": name}, ensure_ascii=False) + "\n")
    print(f"{name}: {len(words) - valid} rows to train on, {valid} held out")
