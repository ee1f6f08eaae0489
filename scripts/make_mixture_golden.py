"""Makes testdata/golden/forward/{mixtral,mixtral-fused,qwen2-moe,qwen3-moe}: tiny random mixtures of experts and what transformers
computes for them.

Usage: make_mixture_golden.py OUT_FOLDER (needs torch and transformers). Weights are spread wider than transformers' own initialisation,
so that routing is decided and a gain in the wrong place shows. mixtral-fused is mixtral with the experts of a layer in two tensors, as
transformers 5 has them in memory.
"""
import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

root = pathlib.Path(sys.argv[1])
common = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, vocab_size=96, max_position_embeddings=256, num_hidden_layers=2,
              bos_token_id=0, eos_token_id=1, pad_token_id=2, attn_implementation="eager")
# Of 16 experts a single token meets 2: few enough to be gathered. Of 4 it meets 2, and windows of 8 are shorter than the texts.
kinds = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, sliding_window=8, **common)),
    "qwen2-moe": (Qwen2MoeForCausalLM, Qwen2MoeConfig(intermediate_size=48, moe_intermediate_size=16, shared_expert_intermediate_size=40, num_experts=6, num_experts_per_tok=3,
                                                      norm_topk_prob=False, tie_word_embeddings=True, **common)),
    "qwen3-moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig(intermediate_size=48, moe_intermediate_size=8, num_experts=16, num_experts_per_tok=2, norm_topk_prob=True, head_dim=16, **common)),
}
for name, (cls, config) in kinds.items():
    torch.manual_seed(0)
    out = root / name
    shutil.rmtree(out, ignore_errors=True)
    model = cls(config).eval().float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.6 if key.endswith("gate.weight") else 0.15))
        ids = torch.randint(3, 96, (2, 21))
        mask = torch.ones_like(ids)
        ids[1, 15:], mask[1, 15:] = 0, 0
        result = model(input_ids=ids, attention_mask=mask).logits
    model.save_pretrained(out)
    (out / "input.json").write_text(json.dumps(dict(input_ids=ids.tolist(), attention_mask=mask.tolist(), padding="right", output="logits",
                                                    compare="rows where attention_mask is 1")))
    save_file({"output": result.contiguous()}, out / "expected.safetensors")
    if name == "mixtral":
        fused = root / "mixtral-fused"
        shutil.rmtree(fused, ignore_errors=True)
        shutil.copytree(out, fused)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, fused / "model.safetensors", {"format": "pt"})
