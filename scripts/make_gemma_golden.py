"""Makes testdata/golden/forward/gemma: a tiny random Gemma and what transformers computes for it.

Usage: make_gemma_golden.py OUT_FOLDER (needs torch and transformers). Weights are spread wider than transformers' own initialisation, so
that a gain in the wrong place shows.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import GemmaConfig, GemmaForCausalLM

out = pathlib.Path(sys.argv[1]) / "gemma"
torch.manual_seed(0)
config = GemmaConfig(hidden_size=32, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, head_dim=16,
                     vocab_size=96, max_position_embeddings=256, attn_implementation="eager")
model = GemmaForCausalLM(config).eval()
with torch.no_grad():
    for p in model.parameters():
        p.add_(torch.randn_like(p) * 0.15)
    ids = torch.randint(3, 96, (2, 21))
    mask = torch.ones_like(ids)
    ids[1, 15:], mask[1, 15:] = 0, 0
    result = model(input_ids=ids, attention_mask=mask).logits
model.save_pretrained(out)
(out / "input.json").write_text(json.dumps(dict(input_ids=ids.tolist(), attention_mask=mask.tolist(), padding="right", output="logits",
                                                compare="rows where attention_mask is 1")))
save_file({"output": result.contiguous()}, out / "expected.safetensors")
