"""Compares this program with Python's mergekit, recipe by recipe. See scripts/compat."""

import argparse
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import warnings

import torch
import yaml
from safetensors.torch import load_file

import compat_recipes as recipes

CONFIG = ["architectures", "model_type", "vocab_size", "num_hidden_layers", "n_layer", "hidden_size", "n_embd", "tie_word_embeddings"]


def weights(folder):
    out = {}
    for f in sorted(pathlib.Path(folder).glob("model*.safetensors")):
        out.update(load_file(f))
    return out


def config(folder):
    c = json.loads((pathlib.Path(folder) / "config.json").read_text())
    out = {k: c.get(k) for k in CONFIG}
    out["dtype"] = str(c.get("dtype", c.get("torch_dtype"))).replace("torch.", "")
    # What a configuration leaves out is its class's default.
    if out["tie_word_embeddings"] is None:
        out["tie_word_embeddings"] = c.get("model_type") not in ("llama", "qwen2", "mistral")
    return out


def vocabulary(folder):
    f = pathlib.Path(folder) / "tokenizer.json"
    if not f.exists():
        return {}
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(f)).get_vocab(with_added_tokens=True)


def template(folder):
    f = pathlib.Path(folder) / "chat_template.jinja"
    if f.exists():
        return f.read_text().strip()
    f = pathlib.Path(folder) / "tokenizer_config.json"
    return (json.loads(f.read_text()).get("chat_template") or "").strip() if f.exists() else ""


CHATS = [
    [{"role": "user", "content": " Which one? "}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "B\n"}, {"role": "user", "content": "C"}],
    [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}],
]


def renders(text):
    """What a template makes of some conversations, in place of how it is written."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    out = []
    for chat in CHATS if text else []:
        for prompt in (False, True):
            try:
                out.append(_compile_jinja_template(text).render(messages=chat, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"))
            except Exception as e:
                out.append(f"refused: {e}")
    return out


def rows_by_token(x, vocab, size):
    """The rows of a vocabulary tensor in the order of the tokens' texts; padding at the end, sorted by nothing: it is one row, repeated."""
    order = [vocab[t] for t in sorted(vocab) if vocab[t] < size]
    rest = sorted(set(range(size)) - set(order))
    return x[torch.tensor(order + rest)]


def run_peer(text, out, models):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    shutil.rmtree(out, ignore_errors=True)
    here = os.getcwd()
    os.chdir(models)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(out),
                      MergeOptions(copy_tokenizer=True, random_seed=recipes.SEED, quiet=True, lora_merge_cache=str(out.parent / "lora"), write_model_card=False))
    finally:
        os.chdir(here)


def run_ours(program, text, out, models, native):
    shutil.rmtree(out, ignore_errors=True)
    f = models / f".compat-{os.getpid()}.yml"
    f.write_text(text)
    try:
        cmd = [program, "merge", str(f), str(out), "--quiet", "--rng", "mergekit", "--seed", str(recipes.SEED), "--no-provenance"]
        if native:
            cmd += ["--arith", "native"]
        r = subprocess.run(cmd, capture_output=True, text=True)
        return None if r.returncode == 0 else (r.stderr.strip().splitlines() or ["?"])[-1].replace(str(f), "recipe.yml")
    finally:
        f.unlink()


def at_cuts(text, peer, ours, models):
    """Whether all entries that differ have, in some task vector, the magnitude of a cut of its method."""
    r = yaml.safe_load(text)
    base = {k: v for k, v in weights(models / r["base_model"]).items()}
    for name, x in peer.items():
        off = (x != ours[name]).flatten()
        allowed = torch.zeros_like(off)
        for m in r["models"]:
            d = (weights(models / m["model"])[name] - base[name]).float().abs().flatten()
            n, p = d.numel(), m["parameters"]
            keep, top = max(1, int(p["density"] * n)), int(p.get("gamma", 0) * n)
            order = d.sort().values
            low = max(0, n - keep - top)
            for cut in (low, low + keep):
                for at in (cut - 1, cut):
                    if 0 <= at < n:
                        allowed |= d == order[at]
        if (off & ~allowed).any():
            return False
    return True


def untied(text, models, work, program, native):
    """Whether both are equal on models of the same dtype whose task vectors have no two entries of one magnitude in a tensor, as far as the dtype's
    numbers reach: matrices are cut to so few entries, of a width that the dtype tells apart."""
    from safetensors.torch import save_file

    r = yaml.safe_load(text)
    for name in [r["base_model"], *(m["model"] for m in r["models"])]:  # the peer keeps open what it once read under a name
        text = text.replace(f": {name}\n", f": untied-{name}\n")
    small = work / "untied"
    shutil.rmtree(small, ignore_errors=True)
    gen = torch.Generator().manual_seed(5)
    for name in [r["base_model"], *(m["model"] for m in r["models"])]:
        src = models / name
        (small / f"untied-{name}").mkdir(parents=True)
        c = json.loads((src / "config.json").read_text())
        c.update(hidden_size=8, intermediate_size=12, num_attention_heads=2, num_key_value_heads=2, head_dim=4, vocab_size=16, num_hidden_layers=1)
        (small / f"untied-{name}" / "config.json").write_text(json.dumps(c))
        out = {}
        for t, x in weights(src).items():
            if ".layers." in t and ".layers.0." not in t:
                continue
            cut = {1: lambda x: x[:8], 2: lambda x: x[:12 if "gate_proj" in t or "up_proj" in t else 16 if "embed" in t or "lm_head" in t else 8, :12 if "down_proj" in t else 8]}[x.dim()](x)
            if name == r["base_model"]:
                out[t] = torch.zeros_like(cut)
            else:  # distinct magnitudes: powers of the dtype's own resolution, shuffled, with signs
                n = cut.numel()
                mag = (1.0 + torch.arange(n) % 128 / 128.0) * 2.0 ** -(torch.arange(n) // 128 + 3.0)
                x = mag[torch.randperm(n, generator=gen)] * (torch.randint(0, 2, (n,), generator=gen) * 2 - 1)
                out[t] = x.reshape(cut.shape).to(cut.dtype)
        save_file({k: v.contiguous() for k, v in out.items()}, str(small / f"untied-{name}" / "model.safetensors"), metadata={"format": "pt"})
    run_peer(text, work / "untied-peer", small)
    if run_ours(program, text, work / "untied-ours", small, native):
        return False
    a, b = weights(work / "untied-peer"), weights(work / "untied-ours")
    return all(torch.equal(a[k], b[k]) for k in a)


def nearer(text, peer, ours, models):
    """Whether a mean of two models on the sphere is, over all tensors, no further from that in float64 than the peer's."""
    a, b = (weights(models / m["model"]) for m in yaml.safe_load(text)["models"])
    err = [0.0, 0.0]
    for k in peer:
        x, y = a[k].double(), b[k].double()
        m = x / x.norm() + y / y.norm()
        m = m / m.norm() * (x.norm() + y.norm()) / 2
        err[0] += float((ours[k].double() - m).square().sum())
        err[1] += float((peer[k].double() - m).square().sum())
    return err[0] <= err[1]


def choices(text, peer, ours, models):
    """Whether every entry is the base's or the other model's, and at most one in a thousand another choice than the peer's."""
    r = yaml.safe_load(text)
    base, other = weights(models / r["base_model"]), weights(models / r["models"][1]["model"])
    off = all_ = 0
    for k, y in ours.items():
        if ((y != base[k]) & (y != other[k])).any():
            return False
        off += int(((y - peer[k]).abs() > 1e-6).sum())
        all_ += y.numel()
    return off * 1000 <= all_


def holds(check, text, peer, ours, o, native):
    """Whether a reason that can be checked is true."""
    if check == "cuts":
        return at_cuts(text, weights(peer), weights(ours), o.copies)
    if check == "untied":
        return untied(text, o.copies, o.folder, o.program, native)
    if check == "rounded":
        a, b = weights(peer), weights(ours)
        return all(torch.equal(a[k].to(b[k].dtype), b[k]) for k in a)
    if check in ("nearer", "choices"):
        return {"nearer": nearer, "choices": choices}[check](text, weights(peer), weights(ours), o.copies)
    if check == "luck":
        return True
    raise ValueError(check)


def compare(a, b, va, vb):
    """What differs between two sets of tensors: equal, close, or a text."""
    if sorted(a) != sorted(b):
        return f"tensors: only the peer has {sorted(set(a) - set(b))[:3]}, only this {sorted(set(b) - set(a))[:3]}", None
    worst, where, same = 0.0, "", True
    for name in a:
        x, y = a[name], b[name]
        if x.dtype != y.dtype:
            return f"tensors: {name} is {x.dtype} by the peer, {y.dtype} here", None
        if x.shape != y.shape:
            return f"tensors: {name} is {list(x.shape)} by the peer, {list(y.shape)} here", None
        if va and va != vb and x.shape[0] >= len(va):  # ids of new tokens are the peer's luck
            x, y = rows_by_token(x, va, x.shape[0]), rows_by_token(y, vb, y.shape[0])
        if torch.equal(x, y):
            continue
        same = False
        x, y = x.double(), y.double()
        if torch.isnan(x).any() or torch.isnan(y).any():
            return f"tensors: NaN in {name}", None
        d = float((x - y).abs().max() / x.abs().max().clamp(min=1e-30))
        if d > worst:
            worst, where = d, name
    return ("equal" if same else "close"), (worst, where)


# The largest difference, as a share of a tensor's largest magnitude, that is rounding: one step of the dtype's mantissa, and float32's
# own for sums in another order.
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2**-7, "float16": 2**-10}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--program", required=True)
    p.add_argument("--models", required=True)
    p.add_argument("--work", required=True)
    p.add_argument("--page", default="docs/compat.md")
    p.add_argument("names", nargs="*")
    o = p.parse_args()
    logging.disable(logging.ERROR)
    torch.set_num_threads(2)
    program, work = os.path.abspath(o.program), pathlib.Path(o.work).resolve()
    models = work / "models"
    shutil.rmtree(models, ignore_errors=True)
    shutil.copytree(o.models, models)
    o.program, o.folder, o.copies = program, work, models
    rows, bad = [], 0
    for name, text, native in recipes.all_recipes():
        if o.names and not any(n in name for n in o.names):
            continue
        peer, ours = work / "peer", work / "ours"
        reason = recipes.REASONS.get(name)
        failure = None
        try:
            run_peer(text, peer, models)
        except BaseException as e:  # the peer ends with whatever it likes
            failure = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"[:120]
        refusal = run_ours(program, text, ours, models, native)
        findings, figure = [], ""
        if failure:
            findings.append("peer fails")
            figure = failure
        if refusal:
            findings.append("refused here")
            figure = refusal
        if not findings:
            va, vb = vocabulary(peer), vocabulary(ours)
            state, detail = compare(weights(peer), weights(ours), va, vb)
            if state not in ("equal", "close"):
                findings.append("tensors")
                figure = state
            elif detail[0] > 0:
                dtype = str(next(iter(weights(ours).values())).dtype).replace("torch.", "")
                figure = f"{detail[0]:.1e} in {detail[1]}"
                if detail[0] > ROUNDING.get(dtype, 0):
                    findings.append("tensors")
            ca, cb = config(peer), config(ours)
            if ca != cb:
                findings.append("config")
                figure += " " + ", ".join(f"{k}: {ca[k]} by the peer, {cb[k]} here" for k in ca if ca[k] != cb[k])
            if set(va) != set(vb):
                findings.append("vocabulary")
                figure += f" {len(set(va) ^ set(vb))} tokens differ"
            if renders(template(peer)) != renders(template(ours)):
                findings.append("chat template")
        explained = not findings or (reason and findings == [reason[0]])
        if findings and explained and len(reason) > 2 and not holds(reason[2], text, peer, ours, o, native):
            explained, figure = False, figure + ": the reason does not hold"
        if reason and not findings and reason[2:] != ("luck",):
            print(f"{name}: a reason is given, and nothing differs")
            bad += 1
        if not explained:
            bad += 1
        outcome = "equal, bit for bit" if not findings and not figure else "equal but for rounding" if not findings else ", ".join(findings)
        rows.append((name, "native" if native else "float32", outcome, figure.strip(), reason[1] if reason else ""))
        print(f"{'ok  ' if explained else 'BAD '} {name:40s} {outcome} {figure.strip()}", flush=True)
    print(f"{len(rows)} recipes, {sum(r[2] == 'equal, bit for bit' for r in rows)} equal bit for bit, {sum(r[2] == 'equal but for rounding' for r in rows)} but for rounding, "
          f"{sum(not r[2].startswith('equal') for r in rows)} different, {bad} without a reason")
    if not o.names:
        write_page(o.page, rows)
    sys.exit(1 if bad else 0)


def write_page(path, rows):
    begin, end = "<!-- compat: begin -->", "<!-- compat: end -->"
    page = pathlib.Path(path).read_text()
    lines = [begin, "", "| recipe | arithmetic | outcome | largest difference | why |", "|---|---|---|---|---|"]
    for r in rows:
        lines.append("| " + " | ".join(x.replace("|", "\\|") for x in r) + " |")
    n = len(rows)
    lines += ["", f"{n} recipes: {sum(r[2] == 'equal, bit for bit' for r in rows)} equal bit for bit, {sum(r[2] == 'equal but for rounding' for r in rows)} but for rounding, "
              f"{sum(not r[2].startswith('equal') for r in rows)} different.", "", end]
    head, rest = page.split(begin, 1)
    pathlib.Path(path).write_text(head + "\n".join(lines) + rest.split(end, 1)[1])


main()
