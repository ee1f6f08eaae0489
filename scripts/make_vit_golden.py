"""Makes testdata/golden/forward/vit and vit-encoder: tiny random Vision Transformers and what transformers computes for them.

Usage: make_vit_golden.py OUT_FOLDER (needs torch and transformers). Weights are spread wider than transformers' own initialisation, so
that a gain, a bias or a position in the wrong place shows.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

out = pathlib.Path(sys.argv[1])
cases = {
    "vit": (ViTForImageClassification, dict(image_size=16, patch_size=4, num_labels=5)),
    "vit-encoder": (ViTModel, dict(image_size=[8, 16], patch_size=[4, 2], num_channels=1, qkv_bias=False, hidden_act="gelu_new")),
}
for seed, (name, (cls, keys)) in enumerate(cases.items()):
    torch.manual_seed(seed)
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **keys)
    model = cls(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
        height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
        pixels = torch.round(torch.randn(2, config.num_channels, height, width) * 1000) / 1000
        result = model(pixel_values=pixels)
    model.save_pretrained(out / name)
    (out / name / "input.json").write_text(json.dumps(dict(pixel_values=[[[[round(v, 3) for v in r] for r in c] for c in i] for i in pixels.tolist()])))
    save_file({"output": (result.logits if hasattr(result, "logits") else result.last_hidden_state).contiguous()}, out / name / "expected.safetensors")
