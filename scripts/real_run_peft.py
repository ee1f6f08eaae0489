"""Loads a base and an adapter in PEFT and prints the loss on the assistant's tokens of chat rows; called by real-run.

usage: real_run_peft.py BASE ADAPTER ROWS [LIMIT]      LIMIT: only so many rows
"""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, rows = sys.argv[1:4]
limit = int(sys.argv[4]) if len(sys.argv) > 4 else None
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
total = count = 0
with torch.no_grad():
    for line in open(rows).readlines()[:limit]:
        messages = json.loads(line)["messages"]
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        start = len(tokenizer(prompt, add_special_tokens=False).input_ids)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        end = len(ids) - 1 if text.endswith("\n") else len(ids)  # the newline after the end of the turn is not learnt
        logits = model(torch.tensor([ids])).logits[0].float()
        loss = torch.nn.functional.cross_entropy(logits[start - 1:end - 1], torch.tensor(ids[start:end]), reduction="sum")
        total, count = total + loss.item(), count + end - start
print(f"PEFT: {adapter} on {rows}: loss {total / count:.4f} over {count} tokens")
