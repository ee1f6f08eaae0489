"""Repeats testdata/golden/train/gpt2-lora with PEFT and torch, with the model's dropouts at 0.

The case in golden/ was trained with GPT-2's own dropouts at 0.1 and torch's random stream (its first loss is 5.1467, that of the
same batch without dropout is 5.0889), so only torch can repeat it. This one can be repeated by any program.

usage: golden_gpt2.py testdata/golden/train/gpt2-lora finetune/train/testdata/gpt2-lora
"""
import json
import pathlib
import shutil
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

source, target = map(pathlib.Path, sys.argv[1:3])
case = json.loads((source / "case.json").read_text())
off = dict(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
model = AutoModelForCausalLM.from_pretrained(source / "base", attn_implementation="eager", dtype=torch.float32, **off)
model = PeftModel.from_pretrained(model, source / "init", is_trainable=True)
model.train()
params = [p for p in model.parameters() if p.requires_grad]
optim = torch.optim.AdamW(params, lr=case["lr"], betas=case["betas"], eps=case["eps"], weight_decay=case["weight_decay"])
losses, norms = [], []
for step in range(case["steps"]):
    batch = case["batches"][step]
    ids, labels = torch.tensor(batch["input_ids"]), torch.tensor(batch["labels"])
    logits = model(input_ids=ids).logits[:, :-1].reshape(-1, model.config.vocab_size)
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1), ignore_index=-100)
    optim.zero_grad()
    loss.backward()
    norms.append(float(torch.nn.utils.clip_grad_norm_(params, case["clip"])))
    for group in optim.param_groups:
        group["lr"] = case["lr_of_step"][step]
    optim.step()
    losses.append(loss.item())
target.mkdir(parents=True, exist_ok=True)
case.update(loss=losses, grad_norm_before_clip=norms, peer=case["peer"] + ", dropouts of the model 0")
(target / "case.json").write_text(json.dumps(case))
model.save_pretrained(target / "expected")
(target / "expected" / "README.md").unlink(missing_ok=True)
for name in ("base", "init"):
    shutil.copytree(source / name, target / name, dirs_exist_ok=True)
print(losses)
