"""Compares `mergekit moe` with Python's mergekit-moe and transformers; called by check-moe."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

program, backends = os.path.abspath(sys.argv[1]), sys.argv[2].split()
golden = "--golden" in sys.argv
models = pathlib.Path("testdata/golden/models").resolve()
goldens = pathlib.Path("testdata/golden/moe").resolve()
failed = 0
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

WIDE = """
import sys, torch, transformers
real = transformers.AutoModelForCausalLM.from_pretrained.__func__
def wide(cls, *a, **k):
    for name in ("dtype", "torch_dtype"):
        if name in k:
            k[name] = torch.float32
    return real(cls, *a, **k)
transformers.AutoModelForCausalLM.from_pretrained = classmethod(wide)
from mergekit.scripts.moe import main
main()
"""
PLAIN = "from mergekit.scripts.moe import main; main()"

PROMPTS = {
    "code": '["write a function in python", "def main():"]',
    "story": '["tell me a story"]',
    "maths": '["what is 2 + 2?", "solve the equation for x"]',
    "hello": '["hello there"]',
}


def config(base, experts, gate, shared=(), dtype="float32", architecture=None, per_token=None):
    """experts: (model, positive, negative, extra keys)"""
    lines = [f"base_model: {base}", f"gate_mode: {gate}", f"dtype: {dtype}"]
    if architecture:
        lines.append(f"architecture: {architecture}")
    if per_token:
        lines.append(f"experts_per_token: {per_token}")
    for key, group in (("experts", experts), ("shared_experts", shared)):
        if group:
            lines.append(key + ":")
        for model, positive, negative, extra in group:
            lines.append(f"  - source_model: {model}")
            if positive:
                lines.append(f"    positive_prompts: {PROMPTS[positive]}")
            if negative:
                lines.append(f"    negative_prompts: {PROMPTS[negative]}")
            for k, v in extra.items():
                lines.append(f"    {k}: {v}")
    return "\n".join(lines) + "\n"


def cases(made, m):
    """m: where the small checkpoints are, as configurations name them; made: models that this script has made, or None."""
    three = [(f"{m}/ft1", "code", None, {}), (f"{m}/ft2", "story", "code", {}), (f"{m}/ft3", "maths", None, {})]
    two = [(f"{m}/qwen", "code", None, {}), (f"{m}/qwen-ft1", "story", None, {})]
    yield "mixtral-hidden", config(f"{m}/base", three, "hidden")
    yield "mixtral-cheap-embed", config(f"{m}/base", three, "cheap_embed")
    yield "qwen2-hidden", config(f"{m}/qwen", two, "hidden", [(f"{m}/qwen-ft1", "hello", None, {"residual_scale": 0.5})])
    if made is None:
        return
    yield "mixtral-one-expert", config(f"{m}/base", three, "cheap_embed", per_token=1)
    yield "mixtral-bfloat16", config(f"{m}/base-bf16", [(f"{m}/ft1-bf16", "code", None, {}), (f"{m}/ft2-bf16", "story", None, {})], "cheap_embed", dtype="bfloat16")
    yield "mixtral-tied", config(f"{m}/tied", [(f"{m}/tied", "code", None, {}), (f"{m}/tied-ft1", "story", None, {})], "hidden")
    yield "mixtral-of-mistral", config(f"{made}/mistral0", [(f"{made}/mistral0", "code", None, {}), (f"{made}/mistral1", "story", None, {"residual_scale": 0.25})], "hidden")
    yield "qwen2-of-llama", config(f"{m}/base", three, "cheap_embed", [(f"{m}/base", "hello", None, {})])
    yield "qwen3-hidden", config(f"{made}/qwen30", [(f"{made}/qwen31", "code", None, {}), (f"{made}/qwen32", "story", "maths", {})], "hidden")
    yield "deepseek", config(f"{m}/base", three, "cheap_embed", [(f"{m}/base", None, None, {})], architecture="deepseek")
    yield "hidden-avg", config(f"{m}/base", three, "hidden_avg")


def make(folder):
    torch.manual_seed(0)
    small = dict(vocab_size=300, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=0)
    kinds = {
        "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig(intermediate_size=72, num_hidden_layers=3, sliding_window=8, **small)),
        "qwen3": (transformers.Qwen3ForCausalLM, transformers.Qwen3Config(intermediate_size=48, num_hidden_layers=3, head_dim=16, tie_word_embeddings=True, **small)),
    }
    for name, (cls, c) in kinds.items():
        for i in range(3):
            model = cls(c).float()
            with torch.no_grad():
                for p in model.parameters():
                    p.copy_(1 + 0.1 * torch.randn_like(p) if p.ndim == 1 else 0.15 * torch.randn_like(p))
            out = folder / f"{name}{i}"
            model.save_pretrained(out)
            for f in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(models / "base" / f, out)


def load(folder):
    out = {}
    for f in sorted(folder.glob("*.safetensors")):
        out.update(load_file(f))
    return out


def fused(tensors):
    """Per-expert names to those that transformers 5 has in memory."""
    out, experts = {}, {}
    for k, v in tensors.items():
        k = k.replace("block_sparse_moe", "mlp")
        for a, b in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
            k = k.replace(f".{a}.", f".{b}.")
        found = re.match(r"(.*mlp\.experts\.)(\d+)\.(\w+)\.weight", k)
        if found:
            experts.setdefault(found[1], {})[int(found[2]), found[3]] = v
        else:
            out[k] = v
    for stem, parts in experts.items():
        n = 1 + max(e for e, _ in parts)
        out[stem + "gate_up_proj"] = torch.stack([torch.cat([parts[e, "gate_proj"], parts[e, "up_proj"]]) for e in range(n)])
        out[stem + "down_proj"] = torch.stack([parts[e, "down_proj"] for e in range(n)])
    return out


def gates(tensors):
    keys = sorted((k for k in tensors if k.endswith("mlp.gate.weight")), key=lambda k: int(re.search(r"layers\.(\d+)\.", k)[1]))
    shared = [k.replace("mlp.gate.weight", "mlp.shared_expert_gate.weight") for k in keys]
    out = {"gate": torch.stack([tensors[k].float() for k in keys])}
    if shared[0] in tensors:
        out["shared"] = torch.stack([tensors[k].float() for k in shared])
    return out


def peer(code, path, out, **environment):
    subprocess.run([sys.executable, "-c", code, str(path), str(out), "--quiet"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **environment})
    return fused(load(out))


def worst(a, b):
    return max((a[k].float() - b[k].float()).abs().max().item() for k in a)


def say(ok, label, text):
    global failed
    failed += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {label:20} {text}", flush=True)


def compare(name, text, work):
    path, out = work / "moe.yml", work / "out"
    path.write_text(text)
    for folder in work.glob("out*"):
        shutil.rmtree(folder)
    subprocess.run([program, "moe", str(path), str(out), "--quiet"], check=True, stderr=subprocess.DEVNULL)
    mine = fused(load(out))
    wide, plain = peer(WIDE, path, work / "out-wide"), peer(PLAIN, path, work / "out-plain")
    if set(mine) != set(wide):
        say(False, name, f"other tensors: {sorted(set(mine) ^ set(wide))[:4]}")
        return
    g, gw, gp = gates(mine), gates(wide), gates(plain)
    router = worst(g, gw)
    rest = {k: v for k, v in mine.items() if "gate.weight" not in k}
    if name == "hidden-avg":
        say(True, name, f"router differs by {router:.1e}: Python's tool counts padding in its mean")
    else:
        text = f"router differs by {router:.1e} (Python's tool as it is: {worst(g, gp):.1e}"
        if "gate_mode: hidden" in path.read_text():
            other = gates(peer(PLAIN, path, work / "out-again", ATEN_CPU_CAPABILITY="default"))
            text += f"; that from itself with other kernels: {worst(gp, other):.1e}"
        say(router <= 1e-4, name, text + ")")
    other = worst(rest, wide)
    say(other <= 1e-6, name, f"{len(rest)} other tensors differ by {other:.1e}")
    if name == "deepseek":
        logits_deepseek(name, work, out, mine)
    else:
        logits(name, work, out)
    if golden and (goldens / name).exists() or golden and name in dict(cases(None, "")):
        keep(name, gw, gp, work, out)


def ids():
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    rows = [tokenizer(t).input_ids for t in ("tell me a story about a function", "def f(x): return x ** 2")]
    n = min(len(r) for r in rows)
    return [r[:n] for r in rows]


def ours(name, work, out, want):
    (work / "input.json").write_text(json.dumps({"input_ids": ids()}))
    for backend in backends:
        target = work / "logits.safetensors"
        run = subprocess.run([program, "logits", str(out), "--input", str(work / "input.json"), "-o", str(target), "--backend", backend, "--dtype", "float32", "--quiet"], stderr=subprocess.PIPE, text=True)
        if run.returncode:
            say(False, name, f"{backend}: {run.stderr.strip()}")
            continue
        got = load_file(target)["output"]
        target.unlink()
        d = ((got - want).abs().max() / want.abs().max()).item()
        say(d <= 2e-4, name, f"{backend}: logits differ by {d:.1e} of the largest")


def logits(name, work, out):
    model, info = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    loose = {k: v for k, v in info.items() if v}
    given = torch.tensor(ids())
    with torch.no_grad():
        want = model(given).logits
        text = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=8, do_sample=False, pad_token_id=0)
    say(not loose and text.shape[1] > given.shape[1], name, f"transformers loads {type(model).__name__} ({loose or 'every weight in its place'}) and generates {text.shape[1] - given.shape[1]} tokens")
    ours(name, work, out, want)


def logits_deepseek(name, work, out, tensors):
    """transformers has no class of this family: its feed-forward part, as its own code computes it, in the base's model."""
    c = json.loads((out / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32)

    class Mixture(torch.nn.Module):
        def __init__(self, stem):
            super().__init__()
            self.stem = stem

        def forward(self, x):
            t = lambda n: tensors[self.stem + n]
            flat = x.reshape(-1, x.shape[-1])
            w, e = torch.topk(torch.softmax(flat @ t("gate.weight").T, -1), c["num_experts_per_tok"], -1)
            w = w / (w.sum(-1, keepdim=True) + 1e-20)
            y = torch.zeros_like(flat)
            for i in range(flat.shape[0]):
                for j in range(w.shape[1]):
                    gate, up = (t("experts.gate_up_proj")[e[i, j]] @ flat[i]).chunk(2)
                    y[i] += w[i, j] * (t("experts.down_proj")[e[i, j]] @ (torch.nn.functional.silu(gate) * up))
            if c["n_shared_experts"]:
                s = lambda n: t(f"shared_experts.{n}_proj.weight")
                y = y + (torch.nn.functional.silu(flat @ s("gate").T) * (flat @ s("up").T)) @ s("down").T
            return y.reshape(x.shape)

    for i, layer in enumerate(model.model.layers):
        layer.mlp = Mixture(f"model.layers.{i}.mlp.")
    with torch.no_grad():
        ours(name, work, out, model(torch.tensor(ids())).logits)


def keep(name, wide, plain, work, out):
    folder = goldens / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.joinpath("moe.yml").write_text(dict(cases(None, "../../models"))[name])
    save_file({**{k: v.contiguous() for k, v in wide.items()}, **{k + ".bfloat16": v.contiguous() for k, v in plain.items()}}, folder / "gates.safetensors")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    given = ids()
    with torch.no_grad():
        want = model(torch.tensor(given)).logits
    folder.joinpath("input.json").write_text(json.dumps({"input_ids": given}) + "\n")
    save_file({"output": want.contiguous()}, folder / "expected.safetensors")


with tempfile.TemporaryDirectory() as tmp:
    work = pathlib.Path(tmp)
    make(work)
    for name, text in cases(work, models):
        compare(name, text, work)
print("all equal" if not failed else f"{failed} failed")
sys.exit(failed > 0)
