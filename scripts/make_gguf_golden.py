"""Writes testdata/golden/gguf: the golden model ft1 as a GGUF file, quantised by the gguf package, and what that package makes of it.

    python scripts/make_gguf_golden.py testdata/golden

Names, metadata and the order of rows of q and k are those of llama.cpp's converter. expected.safetensors has transformers' names and rows."""

import json
import os
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import load_file, save_file

root = sys.argv[1]
source, out = root + "/models/ft1", root + "/gguf"
os.makedirs(out, exist_ok=True)
config = json.load(open(source + "/config.json"))
tokenizer = json.load(open(source + "/tokenizer.json"))
weights = load_file(source + "/model.safetensors")
heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def rename(name):
    stem = name.removesuffix(".weight")
    if stem in names:
        return names[stem] + ".weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{names[rest]}.weight"


def permute(w, n):  # llama.cpp: neighbours are rotated together
    return w.reshape(n, 2, w.shape[0] // n // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, n):
    return w.reshape(n, w.shape[0] // n // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def describe(w):
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_rope_dimension_count(config["head_dim"])
    w.add_vocab_size(config["vocab_size"])
    vocab = tokenizer["model"]["vocab"]
    added = {t["content"]: t for t in tokenizer["added_tokens"]}
    ids = {**vocab, **{c: t["id"] for c, t in added.items()}}
    tokens = sorted(ids, key=ids.get)
    assert [ids[t] for t in tokens] == list(range(len(tokens)))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL if t in added else gguf.TokenType.NORMAL for t in tokens])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    w.add_bos_token_id(config["bos_token_id"])
    w.add_eos_token_id(config["eos_token_id"])


def add(w, name):
    x = weights[name]
    part = name.split(".")[-2]
    if part in heads:
        x = permute(x, heads[part])
    kind = T.Q8_0 if x.ndim == 2 and x.shape[1] % 32 == 0 else T.F32
    data = gguf.quants.quantize(x, kind)
    w.add_tensor(rename(name), data, raw_dtype=kind)
    back = gguf.quants.dequantize(data, kind).reshape(x.shape)
    expected[name] = unpermute(back, heads[part]) if part in heads else back


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


expected = {}
w = gguf.GGUFWriter(out + "/ft1-q8_0.gguf", "llama")
describe(w)
for name in weights:
    add(w, name)
finish(w)
save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, out + "/expected.safetensors", metadata={"format": "pt"})
os.chmod(out + "/expected.safetensors", 0o644)
