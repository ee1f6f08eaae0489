"""Makes the rows of the graft study from WordNet 3.0 (Debian package wordnet-base); called by scripts/graft-study.

A row is the gloss of a noun and the question which of six kinds of things it is: WordNet's own lexicographer files. Answers are letters.

usage: graft_study_data.py DATA.NOUN OUT
"""
import hashlib
import json
import pathlib
import re
import sys

source, out = map(pathlib.Path, sys.argv[1:3])
out.mkdir(parents=True, exist_ok=True)
kinds = {"05": "animal", "20": "plant", "18": "person", "15": "place", "13": "food", "06": "tool"}
names = list(kinds.values())
letters = "ABCDEF"
question = ", ".join(f"{l} {n}" for l, n in zip(letters, names))

rows = {n: [] for n in names}
for line in source.read_text().splitlines():
    if line.startswith(" "):
        continue
    head, gloss = line.split(" | ", 1)
    kind = kinds.get(head.split()[1])
    gloss = re.sub(r"\([^)]*\)", "", gloss.split("; ")[0]).strip()
    if kind and 20 <= len(gloss) <= 80:
        rows[kind].append(gloss)
# A fixed pseudo-random order that does not depend on Python's generator; glosses that stand twice count once.
picked = []
for kind, list_ in rows.items():
    order = sorted(set(list_), key=lambda g: hashlib.sha256(g.encode()).hexdigest())
    picked.append([(g, kind) for g in order[:340]])
mixed = [row for group in zip(*picked) for row in group]
for name, part in {"train": mixed[:1200], "heldout": mixed[1200:1500], "test": mixed[1500:1980]}.items():
    with (out / f"{name}.jsonl").open("w") as f:
        for gloss, kind in part:
            f.write(json.dumps({"prompt": f"{question}\n{gloss}:", "completion": f" {letters[names.index(kind)]}"}) + "\n")
