"""Loads a base with a graft applied in transformers and compares its logits with those that mergekit computes, of the applied checkpoint and
of BASE+GRAFT. Called by scripts/graft-study. Ends with status 1 if they differ by more than float32 arithmetic does.

usage: check_graft.py PROGRAM APPLIED BASE+GRAFT ROWS.jsonl WORKDIR
"""
import json
import os
import pathlib
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

program, applied, reference, rows, work = sys.argv[1:]
work = pathlib.Path(work)
tokenizer = AutoTokenizer.from_pretrained(applied)
model, info = AutoModelForCausalLM.from_pretrained(applied, dtype=torch.float32, output_loading_info=True)
if any(info.values()):
    sys.exit(f"transformers does not load the checkpoint as it is: {info}")
texts = [json.loads(line)["prompt"] for line in pathlib.Path(rows).read_text().splitlines()[:4]]
batch = [tokenizer(t)["input_ids"] for t in texts]
length = min(map(len, batch))
batch = [b[:length] for b in batch]
(work / "batch.json").write_text(json.dumps({"input_ids": batch}))
with torch.no_grad():
    want = model.eval()(torch.tensor(batch)).logits
failed = False
for name in (applied, reference):
    subprocess.run([program, "logits", name, "--input", work / "batch.json", "-o", work / "logits.safetensors", "--quiet"], check=True)
    got = load_file(work / "logits.safetensors")["output"]
    error, size = (got - want).abs().max().item(), want.abs().max().item()
    same = (got.argmax(-1) == want.argmax(-1)).float().mean().item()
    ok = error <= 1e-4 * size and same == 1
    failed |= not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: logits of {len(batch)} rows of {length} tokens differ by at most {error:.2g} of {size:.3g}; {100 * same:.1f}% of the tokens agree")
sys.exit(failed)
