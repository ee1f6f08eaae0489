"""The work of scripts/bench-extract; see there."""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time

import numpy as np

HIDDEN, INTER, VOCAB, KV = 2048, 5632, 32000, 256


def shapes(layers):
    yield "lm_head.weight", (VOCAB, HIDDEN)
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, shape in (("input_layernorm", (HIDDEN,)), ("mlp.down_proj", (HIDDEN, INTER)), ("mlp.gate_proj", (INTER, HIDDEN)),
                            ("mlp.up_proj", (INTER, HIDDEN)), ("post_attention_layernorm", (HIDDEN,)), ("self_attn.k_proj", (KV, HIDDEN)),
                            ("self_attn.o_proj", (HIDDEN, HIDDEN)), ("self_attn.q_proj", (HIDDEN, HIDDEN)), ("self_attn.v_proj", (KV, HIDDEN))):
            yield p + name + ".weight", shape
    yield "model.norm.weight", (HIDDEN,)


def bf16(x):
    b = x.view(np.uint32)
    return ((b + 0x7FFF + ((b >> 16) & 1)) >> 16).astype(np.uint16)


def widen(raw):
    return (raw.astype(np.uint32) << 16).view(np.float32)


def change(rng, shape, similar):
    """A fine-tune's difference: noise, or directions whose strength falls like a power law, with noise below."""
    if not similar or len(shape) < 2:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(4e-4)
    k = min(256, min(shape))
    u = rng.standard_normal((shape[0], k), dtype=np.float32)
    v = rng.standard_normal((k, shape[1]), dtype=np.float32)
    s = (np.arange(1, k + 1, dtype=np.float32) ** -0.7)
    d = (u * s) @ v
    return d * np.float32(1e-3 / d.std()) + rng.standard_normal(shape, dtype=np.float32) * np.float32(1e-4)


def write(dir, layers, tuned, similar, dtype="BF16"):
    os.makedirs(dir, exist_ok=True)
    path = os.path.join(dir, "model.safetensors")
    header, at, width = {"__metadata__": {"format": "pt"}}, 0, 2 if dtype == "BF16" else 4
    for name, shape in shapes(layers):
        n = int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for i, (name, shape) in enumerate(shapes(layers)):
            rng = np.random.default_rng(i)
            x = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            if len(shape) == 1:
                x[:] = 1
            if tuned and "embed" not in name and "lm_head" not in name:
                x += change(np.random.default_rng(1000 + i), shape, similar)
            f.write((bf16(x) if dtype == "BF16" else x).tobytes())
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTER, "num_hidden_layers": layers,
              "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16" if dtype == "BF16" else "float32",
              "tie_word_embeddings": False, "max_position_embeddings": 2048, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2}
    with open(os.path.join(dir, "config.json"), "w") as f:
        json.dump(config, f)


class File:
    """A safetensors file, read tensor by tensor."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            n = struct.unpack("<Q", f.read(8))[0]
            self.header = json.loads(f.read(n))
        self.start = 8 + n
        self.header.pop("__metadata__", None)

    def __getitem__(self, name):
        h = self.header[name]
        a, b = h["data_offsets"]
        raw = np.fromfile(self.path, dtype=np.uint8, count=b - a, offset=self.start + a)
        x = widen(raw.view(np.uint16)) if h["dtype"] == "BF16" else raw.view(np.float32)
        return x.reshape(h["shape"])


def run(*cmd):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.time()
    subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.time() - start, after.ru_maxrss / 1024, after.ru_utime - before.ru_utime


def errors(base, tuned, adapter, modules):
    """Relative errors of an adapter's products in the modules."""
    b, t, a = File(f"{base}/model.safetensors"), File(f"{tuned}/model.safetensors"), File(f"{adapter}/adapter_model.safetensors")
    out = {}
    for m in modules:
        d = t[m + ".weight"].astype(np.float64) - b[m + ".weight"]
        prod = a[f"base_model.model.{m}.lora_B.weight"].astype(np.float64) @ a[f"base_model.model.{m}.lora_A.weight"]
        out[m] = np.linalg.norm(d - prod) / np.linalg.norm(d), d
    return out


def main():
    dir, ours, peer, layers, rank, similar = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
    base, tuned = f"{dir}/base", f"{dir}/tuned"
    if not os.path.exists(f"{tuned}/config.json"):
        write(base, layers, False, similar)
        write(tuned, layers, True, similar)
    failed = []
    shutil.rmtree(f"{dir}/ours", ignore_errors=True)
    mine, memory, cpu = run(ours, "adapters", "extract", "--base", base, "--tuned", tuned, "-r", str(rank), "-o", f"{dir}/ours", "--quiet", "--dtype", "native")
    print(f"| mergekit | {mine:.1f} s | {cpu:.0f} s | {memory:.0f} MiB |", flush=True)
    theirs = 0.0
    if peer != "0":
        shutil.rmtree(f"{dir}/peer", ignore_errors=True)
        theirs, memory, cpu = run(peer, "--model", tuned, "--base-model", base, "--out-path", f"{dir}/peer", "--max-rank", str(rank), "--quiet")
        print(f"| mergekit-extract-lora 0.1.5 | {theirs:.1f} s | {cpu:.0f} s | {memory:.0f} MiB |")
        print(f"{theirs / mine:.1f} times as fast", flush=True)
        if theirs < 5 * mine:
            failed.append("less than five times as fast")
    modules = [f"model.layers.{layers // 2}.{m}" for m in ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.k_proj")]
    got = errors(base, tuned, f"{dir}/ours", modules)
    other = errors(base, tuned, f"{dir}/peer", modules) if peer != "0" else {}
    print("| module | best | mergekit | of best | peer |\n|---|---|---|---|---|")
    for m, (e, d) in got.items():
        s = np.linalg.svd(d, compute_uv=False)
        best = float(np.sqrt((s[rank:] ** 2).sum() / (s ** 2).sum()))
        print(f"| {m} | {best:.5f} | {e:.5f} | {e / best - 1:+.3%} | {other[m][0] if other else float('nan'):.5f} |", flush=True)
        if e > 1.01 * best:
            failed.append(f"{m}: error {e} of {best}")
    # Full rank, on one layer in float32.
    small = f"{dir}/one"
    write(f"{small}/base", 1, False, similar, "F32")
    write(f"{small}/tuned", 1, True, similar, "F32")
    for d in ("lora", "fused"):
        shutil.rmtree(f"{small}/{d}", ignore_errors=True)
    run(ours, "adapters", "extract", "--base", f"{small}/base", "--tuned", f"{small}/tuned", "-r", str(HIDDEN), "-o", f"{small}/lora", "--quiet")
    run(ours, "fuse", "--base", f"{small}/base", "--adapter", f"{small}/lora", "-o", f"{small}/fused", "--quiet")
    a, b = File(f"{small}/tuned/model.safetensors"), File(f"{small}/fused/model.safetensors")
    worst = max(float(np.abs(a[n] - b[n]).max()) for n in a.header)
    print(f"full rank: off by at most {worst:.2g}")
    if worst > 1e-5:
        failed.append(f"full rank is off by {worst}")
    shutil.rmtree(small)
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()
