"""Compares `mergekit logits` with transformers; called by check-forward."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

program, smol, backends = sys.argv[1], sys.argv[2], sys.argv[3].split()
failed = 0


def peer(folder, given):
    config = AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, config.architectures[0])
    model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        out = model(**{k: torch.tensor(v) for k, v in given.items()})
    return out.logits if hasattr(out, "logits") else out.last_hidden_state


def compare(label, folder, given, work):
    global failed
    want = peer(folder, given)
    (work / "input.json").write_text(json.dumps(given))
    for backend in backends:
        subprocess.run([program, "logits", str(folder), "--input", str(work / "input.json"), "-o", str(work / "out.safetensors"), "--backend", backend, "--dtype", "float32", "--quiet"], check=True)
        got = load_file(work / "out.safetensors")["output"]
        (work / "out.safetensors").unlink()
        masked = want.dim() == 3 and "attention_mask" in given
        rows = torch.tensor(given["attention_mask"]).bool() if masked else torch.ones(want.shape[:-1]).bool()
        a, b = got[rows], want[rows]
        worst, same = ((a - b).abs().max() / b.abs().max()).item(), (a.argmax(-1) == b.argmax(-1)).float().mean().item()
        ok = worst <= 2e-4 and same == 1
        failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {label:28} {backend:8} difference {worst:.1e} of the largest magnitude, argmax equal in {100 * same:.1f}% of {a.shape[0]} rows", flush=True)


with tempfile.TemporaryDirectory() as tmp:
    work = pathlib.Path(tmp)
    for case in sorted(pathlib.Path("testdata/golden/forward").iterdir()):
        folder = work / case.name
        folder.mkdir()
        config = json.loads((case / "config.json").read_text())
        config["dtype"] = "bfloat16"
        (folder / "config.json").write_text(json.dumps(config))
        save_file({k: v.to(torch.bfloat16) for k, v in load_file(case / "model.safetensors").items()}, folder / "model.safetensors", {"format": "pt"})
        given = json.loads((case / "input.json").read_text())
        compare(case.name + " in bf16", folder, {k: given[k] for k in ("input_ids", "attention_mask", "pixel_values") if k in given}, work)
        shutil.rmtree(folder)
    tokenizer = AutoTokenizer.from_pretrained(smol)
    ids = tokenizer("The capital of France is Paris. In Rome, on the other hand, def f(x): return x ** 2 — 12345 €").input_ids
    compare("SmolLM2-135M-Instruct", pathlib.Path(smol), dict(input_ids=[ids], attention_mask=[[1] * len(ids)]), work)
print("all equal" if not failed else f"{failed} failed")
sys.exit(failed > 0)
