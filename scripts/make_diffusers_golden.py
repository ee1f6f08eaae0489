"""Writes testdata/golden/diffusers: two tiny pipelines in the layout of diffusers, one with a sharded component and one of torch.save.

    python scripts/make_diffusers_golden.py testdata/golden/diffusers

The weights are random; names are those of a small part of a UNet, an autoencoder and a text encoder. No diffusers is needed to make them."""

import json
import os
import sys

import torch
from safetensors.torch import save_file

out = sys.argv[1]
index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.35.0", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
         "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"],
         "safety_checker": [None, None], "requires_safety_checker": False}
unet = {"conv_in.weight": (8, 4, 3, 3), "conv_in.bias": (8,), "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (8, 8),
        "down_blocks.0.resnets.0.norm1.weight": (8,), "conv_out.weight": (4, 8, 3, 3), "conv_out.bias": (4,)}
vae = {"encoder.conv_in.weight": (8, 3, 3, 3), "quant_conv.weight": (8, 8, 1, 1), "decoder.conv_out.bias": (3,)}
text = {"text_model.embeddings.token_embedding.weight": (20, 8), "text_model.encoder.layers.0.self_attn.q_proj.weight": (8, 8), "text_model.final_layer_norm.weight": (8,)}


def put(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(data if isinstance(data, str) else json.dumps(data, indent=2) + "\n")


for k, name in enumerate(("a", "b")):
    torch.manual_seed(k)
    d = f"{out}/{name}"
    w = {part: {n: torch.randn(*s).half() for n, s in shapes.items()} for part, shapes in (("unet", unet), ("vae", vae), ("text_encoder", text))}
    put(d + "/model_index.json", index)
    put(d + "/scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000})
    put(d + "/tokenizer/vocab.json", {"a": 0})
    put(d + "/unet/config.json", {"_class_name": "UNet2DConditionModel", "sample_size": 8})
    put(d + "/vae/config.json", {"_class_name": "AutoencoderKL"})
    put(d + "/text_encoder/config.json", {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_size": 8, "torch_dtype": "float16"})
    save_file(w["vae"], d + "/vae/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    if name == "a":
        save_file(w["unet"], d + "/unet/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        save_file(w["text_encoder"], d + "/text_encoder/model.safetensors", metadata={"format": "pt"})
    else:
        names = list(unet)
        files = {"diffusion_pytorch_model-00001-of-00002.safetensors": names[:3], "diffusion_pytorch_model-00002-of-00002.safetensors": names[3:]}
        for file, part in files.items():
            save_file({n: w["unet"][n] for n in part}, f"{d}/unet/{file}", metadata={"format": "pt"})
        put(d + "/unet/diffusion_pytorch_model.safetensors.index.json", {"metadata": {}, "weight_map": {n: file for file, part in files.items() for n in part}})
        torch.save(w["text_encoder"], d + "/text_encoder/pytorch_model.bin")
    for root, _, found in os.walk(d):
        for f in found:
            os.chmod(os.path.join(root, f), 0o644)
