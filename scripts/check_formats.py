"""Compare what `mergekit convert` makes of other formats with what their own programs read of them.

usage: check_formats.py PROGRAM GGUF GOLDEN

Ends with status 1 if anything differs.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

program, gguf_file, golden = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), pathlib.Path(sys.argv[3]).absolute()
work = pathlib.Path(tempfile.mkdtemp(prefix="check-formats-"))
os.environ["MERGEKIT_CACHE"] = str(work / "cache")
failed = 0


def run(*args, status=0):
    p = subprocess.run([program, *map(str, args)], capture_output=True, text=True, cwd=work)
    if p.returncode != status:
        raise SystemExit(f"mergekit {' '.join(map(str, args))}: status {p.returncode}, want {status}\n{p.stdout}{p.stderr}")
    return p.stdout + p.stderr


def load(path):
    path = pathlib.Path(path)
    out = {}
    for f in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        out.update(load_file(f))
    return out


def report(what, have, want):
    """Bit for bit, with the same names."""
    global failed
    wrong = sorted(set(have) ^ set(want))
    for k in set(have) & set(want):
        a, b = have[k].contiguous(), want[k].detach().contiguous()
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8)):
            wrong.append(k)
    failed += bool(wrong)
    total = sum(t.numel() for t in want.values())
    print(f"{'DIFFERS' if wrong else 'equal':8} {what}: {len(want)} tensors, {total:,} values" + (f"; {wrong[:5]}" if wrong else ""), flush=True)


# GGUF, by the gguf package: names, the order of rows of q and k, values.
run("convert", gguf_file, work / "smol", "--dtype", "float32", "--quiet")
reader = gguf.GGUFReader(gguf_file)
field = lambda k: int(reader.get_field(k).contents())
heads = {"attn_q": field("llama.attention.head_count"), "attn_k": field("llama.attention.head_count_kv")}
names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
layer = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
want, kinds = {}, {}
for t in reader.tensors:
    x = gguf.quants.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape.tolist()))).astype(np.float32)
    kinds[t.tensor_type.name] = kinds.get(t.tensor_type.name, 0) + 1
    part = t.name.split(".")
    if part[0] == "blk":
        name = f"model.layers.{part[1]}.{layer[part[2]]}.weight"
        if part[2] in heads:
            n = heads[part[2]]
            x = x.reshape(n, x.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(x.shape)
    else:
        name = names[part[0]] + ".weight"
    want[name] = torch.from_numpy(np.ascontiguousarray(x))
smol = load(work / "smol")
report(f"GGUF ({', '.join(f'{n} {k}' for k, n in kinds.items())}) and the gguf package", smol, want)
tokens = AutoTokenizer.from_pretrained(work / "smol")("The capital of France is", return_tensors="pt").input_ids
ours = AutoModelForCausalLM.from_pretrained(work / "smol", dtype=torch.float32).eval()
with torch.no_grad():
    logits = ours(tokens).logits
try:
    theirs = AutoModelForCausalLM.from_pretrained(os.path.dirname(gguf_file), gguf_file=os.path.basename(gguf_file), dtype=torch.float32).eval()
    with torch.no_grad():
        d = (theirs(tokens).logits - logits).abs().max().item()
    failed += d > 1e-4
    print(f"{'equal' if d <= 1e-4 else 'DIFFERS':8} GGUF and transformers' own reader of it: logits, largest difference {d:.1e}", flush=True)
except Exception as e:  # a version of transformers that cannot
    print(f"skipped  transformers reads no GGUF here: {type(e).__name__}: {str(e)[:100]}", flush=True)

# torch.save: the model whole, of today and of old, in shards, with views and ties.
state = ours.state_dict()
odd = {**{k: v.to(d) for (k, v), d in zip(list(state.items())[:6], [torch.float64, torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2])},
       "t": state["model.embed_tokens.weight"][:100].t(), "rows": state["model.embed_tokens.weight"][5:50, ::3], "i": torch.arange(7), "b": torch.tensor([True, False]), "scalar": torch.tensor(1.5)}
for what, content, options in [("state dict", state, {}), ("state dict, before torch 1.6", state, {"_use_new_zipfile_serialization": False}), ("odd tensors", odd, {}),
                               ("odd tensors, before torch 1.6", {k: v for k, v in odd.items() if "8" not in str(v.dtype) or v.dtype == torch.int64}, {"_use_new_zipfile_serialization": False}),
                               ("training checkpoint", {"state_dict": state, "step": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"params": [0]}]}}, {})]:
    d = work / "pickled"
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir()
    torch.save(content, d / "pytorch_model.bin", **options)
    loaded = torch.load(d / "pytorch_model.bin", weights_only=True)
    shutil.rmtree(work / "unpickled", ignore_errors=True)
    run("convert", d, work / "unpickled", "--quiet")
    report(f"torch.save, {what}, and torch.load", load(work / "unpickled"), loaded.get("state_dict", loaded))

# Hostile pickles.
evil = json.load(open(golden / "torch/evil/evil.json"))
for file, says in evil.items():
    out = run("convert", golden / "torch/evil" / file, work / "bad", status=2)
    if says not in out:
        failed += 1
        print(f"DIFFERS  {file}: {out.strip()}, want {says}")
for d in (work, golden / "torch/evil", pathlib.Path.cwd()):
    if (d / "mergekit-was-here").exists():
        failed += 1
        print("DIFFERS  a hostile file ran something")
print(f"equal    {len(evil)} hostile files refused, nothing ran", flush=True)

# Quantised: fp8 by transformers itself, packed integers by compressed-tensors on layers of the real model.
run("convert", golden / "quantised-models/ft1-fp8", work / "fp8", "--quiet")
plain = AutoModelForCausalLM.from_pretrained(work / "fp8", dtype="auto")
try:
    from transformers import FineGrainedFP8Config

    q = AutoModelForCausalLM.from_pretrained(golden / "quantised-models/ft1-fp8", quantization_config=FineGrainedFP8Config(weight_block_size=(8, 8), dequantize=True), dtype="auto")
    report("blocks of fp8 and transformers", plain.state_dict(), q.state_dict())
except Exception as e:
    print(f"skipped  transformers dequantises no fp8 here: {type(e).__name__}: {str(e)[:100]}", flush=True)
try:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
except ImportError:
    BaseCompressor = None
    print("skipped  compressed-tensors is not installed", flush=True)
if BaseCompressor:
    for form, args in [("pack-quantized", dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=64)), ("pack-quantized", dict(num_bits=4, type="int", symmetric=False, strategy="group", group_size=32)),
                       ("pack-quantized", dict(num_bits=3, type="int", symmetric=True, strategy="channel")), ("int-quantized", dict(num_bits=8, type="int", symmetric=True, strategy="channel")),
                       ("float-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="channel"))]:
        q = QuantizationArgs(**args)
        scheme = QuantizationScheme(targets=["Linear"], weights=q, format=form)
        tool = BaseCompressor.get_value_from_registry(form)
        small, wanted = {}, {}
        for k, w in state.items():
            if "proj" not in k:
                small[k] = wanted[k] = w.to(torch.bfloat16)
                continue
            part = w.reshape(w.shape[0], -1, q.group_size or w.shape[1])
            low, high = part.amin(-1), part.amax(-1)
            one = {"weight": w.to(torch.bfloat16)}
            if q.symmetric:
                top = 448.0 if args["type"] == "float" else 2 ** (q.num_bits - 1) - 0.5
                scale = torch.maximum(high, -low) / top
            else:
                scale = (high - low) / (2**q.num_bits - 1)
                one["weight_zero_point"] = (torch.round(-low / scale) - 2 ** (q.num_bits - 1)).clamp(-2 ** (q.num_bits - 1), 2 ** (q.num_bits - 1) - 1).to(torch.int8)
            one["weight_scale"] = scale.to(torch.bfloat16)
            packed = tool.compress(dict(one), scheme)
            wanted[k] = tool.decompress(dict(packed), scheme)["weight"].to(torch.bfloat16)
            small.update({k.removesuffix("weight") + p: t.data if hasattr(t, "data") else t for p, t in packed.items()})
        d = work / "ct"
        shutil.rmtree(d, ignore_errors=True)
        shutil.rmtree(work / "dense", ignore_errors=True)
        d.mkdir()
        config = json.load(open(work / "smol/config.json"))
        config["torch_dtype"] = "bfloat16"
        config["quantization_config"] = {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": {"targets": ["Linear"], "weights": args, "format": form}}}
        json.dump(config, open(d / "config.json", "w"))
        small.pop("lm_head.weight", None), wanted.pop("lm_head.weight", None)
        save_file({k: v.contiguous() for k, v in small.items()}, d / "model.safetensors")
        run("convert", d, work / "dense", "--quiet")
        report(f"compressed-tensors {form} {args}", load(work / "dense"), wanted)

# 8-bit floats out: transformers loads them, and the values are torch's where nothing is too large.
run("convert", work / "smol", work / "f8", "--dtype", "float8_e4m3fn", "--quiet")
report("float8_e4m3fn out and torch", load(work / "f8"), {k: v.to(torch.float8_e4m3fn) if v.abs().max() <= 448 else v.clamp(-448, 448).to(torch.float8_e4m3fn) for k, v in smol.items()})
config = json.load(open(work / "f8/config.json"))
model = AutoModelForCausalLM.from_pretrained(work / "f8", dtype=torch.float32)
with torch.no_grad():
    print(f"loaded   float8_e4m3fn by transformers; logits move by {(model(tokens).logits - logits).abs().max().item():.2f} at most", flush=True)
shutil.rmtree(work)
sys.exit(1 if failed else 0)
