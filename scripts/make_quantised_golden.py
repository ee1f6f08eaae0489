"""Writes testdata/golden/quantised: small checkpoints quantised in the ways of the field, and what their own programs make of them.

    python scripts/make_quantised_golden.py testdata/golden/quantised

NAME/ has config.json, model.safetensors and expected.safetensors. Quantised and dequantised by compressed-tensors 0.20 (ct-*) and by
transformers 5.23 (fp8-block); GPTQ, AWQ, MXFP4 and the rest packed here, as their papers and programs describe it, and dequantised by
the formula on the codes before they were packed. bitsandbytes, if it is installed, makes bnb-*."""

import json
import os
import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(7)
out = sys.argv[1]
F8, BF = torch.float8_e4m3fn, torch.bfloat16


def write(name, quantisation, tensors, expected, dtype="bfloat16", key="quantization_config", extra=None):
    os.makedirs(f"{out}/{name}", exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": dtype, "hidden_size": 8}
    if quantisation is not None:
        config[key] = quantisation
    with open(f"{out}/{name}/config.json", "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    for file, content in (extra or {}).items():
        with open(f"{out}/{name}/{file}", "w") as f:
            json.dump(content, f)
    plain = {"model.norm.weight": torch.linspace(-1, 1, 8).to(getattr(torch, dtype)), "lm_head.weight": torch.randn(4, 8).to(getattr(torch, dtype))}
    save_file({k: v.contiguous() for k, v in {**tensors, **plain}.items()}, f"{out}/{name}/model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in {**expected, **plain}.items()}, f"{out}/{name}/expected.safetensors", metadata={"format": "pt"})
    for f in ("model", "expected"):
        os.chmod(f"{out}/{name}/{f}.safetensors", 0o644)


# --- blocks of fp8, as DeepSeek keeps them ---
from transformers.integrations.finegrained_fp8 import Fp8Dequantize


def blocks(n, k, bn, bk, scale_dtype=torch.float32, f8=F8):
    w = torch.randn(n, k)
    rows, cols = -(-n // bn), -(-k // bk)
    scale = torch.zeros(rows, cols)
    code = torch.zeros(n, k, dtype=f8)
    top = torch.finfo(f8).max
    for i in range(rows):
        for j in range(cols):
            part = w[i * bn:(i + 1) * bn, j * bk:(j + 1) * bk]
            scale[i, j] = (part.abs().max() / top).to(scale_dtype).float()
            code[i * bn:(i + 1) * bn, j * bk:(j + 1) * bk] = (part / scale[i, j]).to(f8)
    return code, scale.to(scale_dtype)


def spread(scale, n, k, bn, bk):
    return scale.float().repeat_interleave(bn, 0)[:n].repeat_interleave(bk, 1)[:, :k]


tensors, expected = {}, {}
P = "model.layers.0."
for name, n, k, scale_dtype, f8 in [("self_attn.q_proj.weight", 64, 96, torch.float32, F8), ("mlp.up_proj.weight", 70, 50, torch.float32, F8), ("mlp.down_proj.weight", 20, 33, BF, F8),
                                    ("self_attn.k_proj.weight", 64, 32, torch.float32, torch.float8_e5m2)]:
    code, scale = blocks(n, k, 32, 32, scale_dtype, f8)
    tensors[P + name], tensors[P + name + "_scale_inv"] = code, scale
    if n % 32 == 0 and k % 32 == 0:
        expected[P + name] = Fp8Dequantize(None)._dequantize_one(code, scale, output_dtype=BF)
    else:
        expected[P + name] = (code.float() * spread(scale, n, k, 32, 32)).to(BF)
tensors[P + "self_attn.k_proj.k_scale"] = torch.tensor(0.5)
tensors[P + "mlp.up_proj.activation_scale"] = torch.tensor(0.5)
experts = [blocks(40, 64, 32, 32) for _ in range(3)]
tensors[P + "mlp.experts.gate_up_proj"] = torch.stack([e[0] for e in experts])
tensors[P + "mlp.experts.gate_up_proj_scale_inv"] = torch.stack([e[1] for e in experts])
expected[P + "mlp.experts.gate_up_proj"] = torch.stack([(c.float() * spread(s, 40, 64, 32, 32)).to(BF) for c, s in experts])
write("fp8-block", {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}, tensors, expected)

# Scales of exponents (ue8m0), stored as bytes.
w = torch.randn(32, 64)
e = torch.randint(115, 125, (1, 2), dtype=torch.uint8)
c = (w / (e.float() - 127).exp2().repeat_interleave(32, 1)).to(F8)
write("fp8-ue8m0", {"quant_method": "fp8", "weight_block_size": [32, 32]}, {"a.weight": c, "a.weight_scale_inv": e},
      {"a.weight": Fp8Dequantize(None)._dequantize_one(c, e, output_dtype=BF)})

# One scale for a matrix (static fp8), and one for a row (fbgemm).
tensors, expected = {}, {}
for name, shape in [("a.weight", (16, 24)), ("b.weight", (8, 8))]:
    w = torch.randn(*shape)
    s = w.abs().max() / 448
    tensors[name], tensors[name + "_scale"] = (w / s).to(F8), s.reshape(() if name == "a.weight" else (1,))
    tensors[name[0] + ".input_scale"] = torch.tensor(1.5)
    expected[name] = (tensors[name].float() * s).to(BF)
write("fp8-tensor", {"quant_method": "fp8", "activation_scheme": "static"}, tensors, expected)
w = torch.randn(16, 24)
s = w.abs().amax(1, keepdim=True) / 448
write("fp8-rows", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]},
      {"a.weight": (w / s).to(F8), "a.weight_scale": s, "a.input_scale_ub": torch.tensor(1200.0)}, {"a.weight": ((w / s).to(F8).float() * s).to(BF)})

# --- compressed-tensors ---
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme


def text(x):
    return getattr(x, "value", x)


def compressed(name, form, args, shapes, dtype=BF, order=False):
    q = QuantizationArgs(**args)
    scheme = QuantizationScheme(targets=["Linear"], weights=q, format=form)
    tool = BaseCompressor.get_value_from_registry(form)
    tensors, expected = {}, {}
    for stem, (n, k) in shapes.items():
        w = torch.randn(n, k).to(dtype)
        g = q.group_size or k
        strategy = text(q.strategy)
        if strategy == "tensor":
            part = w.float().reshape(1, 1, -1)
        elif strategy == "channel":
            part = w.float().reshape(n, 1, k)
        elif strategy == "block":
            bn, bk = q.block_structure
            part = w.float().reshape(n // bn, bn, k // bk, bk).permute(0, 2, 1, 3).reshape(n // bn, k // bk, bn * bk)
        else:
            part = w.float().reshape(n, k // g, g)
        if order:
            gidx = torch.randperm(k) // g
            part = torch.stack([w.float()[:, gidx == i] for i in range(k // g)], 1)
        low, high = part.amin(-1), part.amax(-1)
        state = {"weight": w}
        if text(q.type) == "float":
            top = {4: 6.0, 8: 448.0}[q.num_bits]
            scale = torch.maximum(high, -low) / top
            if form == "nvfp4-pack-quantized":
                state["weight_global_scale"] = (448 * 6 / w.abs().max().float()).reshape(1)
                scale = (scale * state["weight_global_scale"]).to(F8).to(dtype)
            elif form.startswith("mxfp"):
                scale = torch.exp2(torch.ceil(torch.log2(scale))).to(dtype)
        elif q.symmetric:
            scale = torch.maximum(high, -low) / (2 ** (q.num_bits - 1) - 0.5)
        else:
            scale = (high - low) / (2 ** q.num_bits - 1)
            zero = torch.round(-low / scale) - 2 ** (q.num_bits - 1)
            state["weight_zero_point"] = zero.clamp(-2 ** (q.num_bits - 1), 2 ** (q.num_bits - 1) - 1).to(torch.int8)
        if strategy == "tensor":
            scale = scale.reshape(1)
            if "weight_zero_point" in state:
                state["weight_zero_point"] = state["weight_zero_point"].reshape(1)
        state["weight_scale"] = scale.to(dtype)
        if order:
            # The tool quantises by neighbours; columns are brought into the order of their groups for that, and back.
            perm = torch.argsort(gidx, stable=True)
            from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
            from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
            code = quantize(x=w[:, perm], scale=state["weight_scale"], zero_point=state.get("weight_zero_point"), args=q, dtype=torch.int8)
            back = torch.argsort(perm)
            value = dequantize(x_q=code, scale=state["weight_scale"], zero_point=state.get("weight_zero_point"), args=q)[:, back]
            small = {"weight_packed": pack_to_int32(code[:, back].contiguous(), q.num_bits), "weight_shape": torch.tensor([n, k]), "weight_scale": state["weight_scale"], "weight_g_idx": gidx.to(torch.int32)}
            if "weight_zero_point" in state:
                small["weight_zero_point"] = pack_to_int32(state["weight_zero_point"], q.num_bits, packed_dim=0).contiguous()
        else:
            small = tool.compress(dict(state), scheme)
            value = tool.decompress(dict(small), scheme)["weight"]
        for part_name, t in small.items():
            tensors[f"{stem}.{part_name}"] = t.data if hasattr(t, "data") else t
        expected[stem + ".weight"] = value.to(dtype)
    group = {"targets": ["Linear"], "weights": {"num_bits": q.num_bits, "type": text(q.type), "symmetric": q.symmetric, "strategy": text(q.strategy), "group_size": q.group_size}, "format": form}
    if q.block_structure:
        group["weights"]["block_structure"] = list(q.block_structure)
    write("ct-" + name, {"quant_method": "compressed-tensors", "format": form, "version": "0.20.0", "quantization_status": "compressed", "ignore": ["lm_head"], "config_groups": {"group_0": group}},
          tensors, expected, str(dtype).split(".")[-1])


two = {"model.layers.0.mlp.up_proj": (16, 64), "model.layers.0.mlp.down_proj": (24, 32)}
compressed("int8-channel", "int-quantized", dict(num_bits=8, type="int", symmetric=True, strategy="channel"), two)
compressed("int8-tensor", "int-quantized", dict(num_bits=8, type="int", symmetric=False, strategy="tensor"), two, torch.float16)
compressed("int8-group", "int-quantized", dict(num_bits=8, type="int", symmetric=False, strategy="group", group_size=16), two)
compressed("fp8-channel", "float-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="channel"), two)
compressed("fp8-tensor", "float-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="tensor"), two, torch.float16)
compressed("fp8-block", "float-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="block", block_structure=[8, 16]), two)
compressed("fp8-naive", "naive-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="channel"), two)
compressed("w4-group", "pack-quantized", dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32), two)
compressed("w4-group-zero", "pack-quantized", dict(num_bits=4, type="int", symmetric=False, strategy="group", group_size=16), two, torch.float16)
compressed("w4-channel-odd", "pack-quantized", dict(num_bits=4, type="int", symmetric=False, strategy="channel"), {"a": (9, 21)})
compressed("w8-group", "pack-quantized", dict(num_bits=8, type="int", symmetric=True, strategy="group", group_size=32), two)
compressed("w3-group-zero", "pack-quantized", dict(num_bits=3, type="int", symmetric=False, strategy="group", group_size=32), {"a": (16, 64), "b": (7, 96)})
compressed("w5-channel", "pack-quantized", dict(num_bits=5, type="int", symmetric=False, strategy="channel"), {"a": (11, 45)})
compressed("w4-order", "pack-quantized", dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=16), two, order=True)
compressed("w4-order-zero", "pack-quantized", dict(num_bits=4, type="int", symmetric=False, strategy="group", group_size=16), two, order=True)
compressed("nvfp4", "nvfp4-pack-quantized", dict(num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16), two)
compressed("mxfp4", "mxfp4-pack-quantized", dict(num_bits=4, type="float", symmetric=True, strategy="group", group_size=32, scale_dtype=torch.uint8), two)
compressed("mxfp8", "mxfp8-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="group", group_size=32, scale_dtype=torch.uint8), two)

# --- GPTQ and AWQ ---


def pack(columns_of, bits, order=None):
    """[rows, cols] of small numbers: neighbours in a row into words of 32 bits."""
    per = 32 // bits
    order = order or list(range(per))
    q = columns_of.to(torch.int64).reshape(columns_of.shape[0], -1, per)[:, :, order]
    word = (q << (torch.arange(per) * bits)).sum(-1)
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def gptq(name, bits, group, config, plus, shuffled=False, dtype=torch.float16):
    tensors, expected = {}, {}
    for stem, (n, k) in {"model.layers.0.self_attn.q_proj": (32, 64), "model.layers.0.mlp.down_proj": (64, 32)}.items():
        size = group if group > 0 else k
        q = torch.randint(0, 2**bits, (k, n))
        z = torch.randint(plus, 2**bits, (k // size, n))
        s = (torch.rand(k // size, n) / 8).to(dtype)
        g = torch.arange(k) // size
        if shuffled:
            g = g[torch.randperm(k)]
        tensors[stem + ".qweight"] = pack(q.t(), bits).t()
        tensors[stem + ".qzeros"] = pack(z - plus, bits)
        tensors[stem + ".scales"], tensors[stem + ".g_idx"] = s, g.to(torch.int32)
        tensors[stem + ".bias"] = torch.randn(n).to(dtype)
        expected[stem + ".weight"] = ((q - z[g]).float() * s[g].float()).to(dtype).t()
        expected[stem + ".bias"] = tensors[stem + ".bias"]
    write(name, {"quant_method": "gptq", "bits": bits, "group_size": group, **config}, tensors, expected, "float16")


gptq("gptq-4", 4, 16, {"desc_act": False, "sym": True}, 1)
gptq("gptq-4-order", 4, 16, {"desc_act": True, "checkpoint_format": "gptq"}, 1, True)
gptq("gptq-8-v2", 8, -1, {"checkpoint_format": "gptq_v2"}, 0)
gptq("gptq-2", 2, 32, {}, 1)
tensors, expected = {}, {}
for stem, (n, k) in {"model.layers.0.self_attn.q_proj": (32, 64), "model.layers.0.mlp.down_proj": (64, 32)}.items():
    q, z, s = torch.randint(0, 16, (k, n)), torch.randint(0, 16, (k // 16, n)), (torch.rand(k // 16, n) / 8).half()
    g = torch.arange(k) // 16
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    tensors[stem + ".qweight"], tensors[stem + ".qzeros"], tensors[stem + ".scales"] = pack(q, 4, order), pack(z, 4, order), s
    expected[stem + ".weight"] = ((q - z[g]).float() * s[g].float()).half().t()
write("awq", {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "zero_point": True}, tensors, expected, "float16")
# Before config.json had a place for it.
write("awq-old", None, tensors, expected, "float16", extra={"quant_config.json": {"w_bit": 4, "q_group_size": 16, "version": "GEMM", "zero_point": True}})

# --- MXFP4 as gpt-oss has it ---
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

tensors, expected = {}, {}
for stem, shape in {"model.layers.0.mlp.experts.gate_up_proj": (2, 24, 2, 16), "model.layers.0.mlp.experts.down_proj": (2, 64, 1, 16)}.items():
    blocks_, scales = torch.randint(0, 256, shape, dtype=torch.uint8), torch.randint(100, 140, shape[:3], dtype=torch.uint8)
    tensors[stem + "_blocks"], tensors[stem + "_scales"] = blocks_, scales
    tensors[stem + "_bias"] = expected[stem + "_bias"] = torch.randn(2, 8).to(BF)
    expected[stem] = convert_moe_packed_tensors(blocks_.clone(), scales.clone(), dtype=BF)
write("mxfp4", {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, tensors, expected)

# --- modelopt: the scale of a block times that of the matrix ---
code, s, whole = torch.randint(0, 256, (8, 16), dtype=torch.uint8), (torch.rand(8, 2) * 10).to(F8), torch.tensor(0.013)
level = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
value = torch.stack([level[(code & 15).long()], level[(code >> 4).long()]], -1).reshape(8, 32)
write("modelopt-nvfp4", None, {"a.weight": code, "a.weight_scale": s, "a.weight_scale_2": whole, "a.input_scale": torch.tensor(1.0)},
      {"a.weight": (value * (s.float() * whole).repeat_interleave(16, 1)).to(BF)}, extra={"hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}})

# --- bitsandbytes ---
try:
    import bitsandbytes as bnb
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
except ImportError:
    bnb = None
if bnb:
    for name, kind, nested, dtype in [("bnb-nf4", "nf4", False, BF), ("bnb-nf4-nested", "nf4", True, BF), ("bnb-fp4", "fp4", True, torch.float16)]:
        tensors, expected = {}, {}
        for stem, (n, k) in {"a": (24, 64), "b": (65, 320)}.items():
            w = torch.randn(n, k).to(dtype)
            q, state = quantize_4bit(w, quant_type=kind, compress_statistics=nested, blocksize=64)
            tensors[stem + ".weight"] = q
            for part, t in state.as_dict(packed=True).items():
                tensors[f"{stem}.weight.{part}"] = t
            expected[stem + ".weight"] = dequantize_4bit(q, state)
        write(name, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested}, tensors, expected, str(dtype).split(".")[-1])
w = torch.randn(12, 20)
top = w.abs().amax(1)
code = torch.round(w * 127 / top[:, None]).to(torch.int8)
write("bnb-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True}, {"a.weight": code, "a.SCB": top, "a.weight_format": torch.tensor(0, dtype=torch.uint8)},
      {"a.weight": (code * top.view(-1, 1) * 7.874015718698502e-3).half()}, "float16")
# Whole models: models/ft1 with its matrices in blocks of fp8, and packed by compressed-tensors.
import shutil

from safetensors.torch import load_file

models = out + "/../quantised-models"


def whole(name, quantisation, change):
    d = f"{models}/{name}"
    os.makedirs(d, exist_ok=True)
    source = out + "/../models/ft1/"
    config = json.load(open(source + "config.json"))
    config["dtype"] = "bfloat16"
    config["quantization_config"] = quantisation
    with open(d + "/config.json", "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(source + file, f"{d}/{file}")
    small = {}
    for k, w in load_file(source + "model.safetensors").items():
        w = w.to(BF)
        if w.dim() == 2 and "proj" in k:
            small.update(change(k, w.float()))
        else:
            small[k] = w
    save_file({k: v.contiguous() for k, v in small.items()}, d + "/model.safetensors", metadata={"format": "pt"})
    os.chmod(d + "/model.safetensors", 0o644)


def fp8(k, w):
    n, c = w.shape
    rows, cols = -(-n // 8), -(-c // 8)
    part = torch.zeros(rows * 8, cols * 8)
    part[:n, :c] = w
    scale = part.reshape(rows, 8, cols, 8).abs().amax((1, 3)) / 448
    return {k: (w / spread(scale, n, c, 8, 8)).to(F8), k + "_scale_inv": scale}


def w4(k, w):
    q = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=8)
    scale = (w.reshape(w.shape[0], -1, 8).abs().amax(-1) / 7.5).to(BF)
    tool = BaseCompressor.get_value_from_registry("pack-quantized")
    small = tool.compress({"weight": w.to(BF), "weight_scale": scale}, QuantizationScheme(targets=["Linear"], weights=q, format="pack-quantized"))
    return {k.removesuffix("weight") + part: t for part, t in small.items()}


whole("ft1-fp8", {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [8, 8]}, fp8)
whole("ft1-w4", {"quant_method": "compressed-tensors", "format": "pack-quantized", "version": "0.20.0", "quantization_status": "compressed", "ignore": ["lm_head"],
                 "config_groups": {"group_0": {"targets": ["Linear"], "format": "pack-quantized", "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 8}}}}, w4)
print(sorted(os.listdir(out)))
