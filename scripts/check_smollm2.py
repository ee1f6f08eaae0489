"""Compare a converted GGUF model with transformers' own reading of the file, then merge perturbed copies of it.

usage: check_smollm2.py PROGRAM FILE.gguf CONVERTED WORKDIR [--convert-only]

Ends with status 1 if anything differs.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "The capital of France is"
NO_DIGITS = [
    PROMPT,
    "It's a dog's life, they'll say; we've HEARD  that before.\n\n\tTabs\tand   spaces ",
    "def f(x):\n    return {'a': [x, -x]}  # comment\n",
    "Žluťoučký kůň, 東京 and 🙂🏽 — “quotes” …",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
]
DIGITS = ["In 1984, 3.14159 was 20% of 007x9.", "1234567890 ²³ ٣٤", "a1b22c333"]
MERGES = {
    "linear": "  {weight: 0.5}",
    "slerp": None,
    "ties": "  {weight: 0.5, density: 0.5}",
    "breadcrumbs": "  {weight: 0.5, density: 0.9, gamma: 0.01}",
}

failures = []


def check(ok, text):
    print(("ok    " if ok else "FAIL  ") + text, flush=True)
    if not ok:
        failures.append(text)


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    return model.eval(), {k: v for k, v in info.items() if v}


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids])).logits[0, -1]


@torch.no_grad()
def greedy(model, tokenizer, count=24):
    ids = tokenizer(PROMPT, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=count, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    return tokenizer.decode(out[0], skip_special_tokens=True)


def compare_weights(file, folder):
    """Each tensor against transformers' dequantisation, which undoes llama.cpp's order of rows too."""
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    want = theirs.state_dict()
    with safe_open(folder / "model.safetensors", "pt") as f:
        names = set(f.keys())
        tied = {"lm_head.weight"} if theirs.config.tie_word_embeddings else set()
        check(names == set(want) - tied, f"the same {len(names)} tensors as transformers has")
        worst, which, elements = 0.0, "", 0
        for name in sorted(names & set(want)):
            got, ref = f.get_tensor(name).float(), want[name].float()
            if got.shape != ref.shape:
                check(False, f"{name}: shape {tuple(got.shape)}, transformers has {tuple(ref.shape)}")
                continue
            difference = (got - ref).abs().max().item()
            elements += got.numel()
            if difference > worst:
                worst, which = difference, name
            # One rounding of float32 for the product, one for the sum.
            if not torch.allclose(got, ref, rtol=2**-22, atol=2**-24):
                check(False, f"{name}: differs by up to {difference:.3g}")
    check(worst < 1e-6, f"largest difference of {elements} weights: {worst:.3g} {which}")
    return theirs


def compare_config(theirs, ours):
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "head_dim", "vocab_size", "max_position_embeddings", "tie_word_embeddings", "rope_parameters",
                "bos_token_id", "eos_token_id", "hidden_act", "attention_bias", "mlp_bias"):
        a, b = getattr(ours.config, key, None), getattr(theirs.config, key, None)
        if key == "rope_parameters":
            a, b = a["rope_theta"], b["rope_theta"]
        if a != b:
            check(False, f"config {key}: {a!r}, transformers has {b!r}")
    a, b = ours.config.rms_norm_eps, theirs.config.rms_norm_eps
    check(abs(a - b) < 1e-12, f"config agrees (rms_norm_eps {a!r}, transformers {b!r})")


def compare_tokens(file, folder):
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    print(f"      tokenizers: ours {type(ours).__name__}, transformers' {type(theirs).__name__}")
    check(len(ours) == len(theirs), f"{len(ours)} tokens")
    for text in NO_DIGITS:
        a, b = ours(text).input_ids, theirs(text).input_ids
        check(a == b, f"{len(a)} ids of {text!r}" + ("" if a == b else f": {a} instead of {b}"))
        check(ours.decode(a) == text, f"decoded again: {text!r}")
    # The file says that digits stand alone (tokenizer.ggml.pre = smollm); transformers' reader does not know that. With the
    # step put back, ids must agree on numbers as well.
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    for text in DIGITS + NO_DIGITS:
        a, b = ours(text).input_ids, theirs(text).input_ids
        check(a == b, f"{len(a)} ids of {text!r}, digits apart" + ("" if a == b else f": {a} instead of {b}"))
    chat = ours.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True)
    check(chat.endswith("<|im_start|>assistant\n"), "the chat template works")
    check((ours.bos_token, ours.eos_token, ours.unk_token, ours.pad_token)
          == (theirs.bos_token, theirs.eos_token, theirs.unk_token, theirs.pad_token), "the same special tokens")
    return ours


def perturb(folder, to, seed):
    """A copy of the checkpoint with small noise in every matrix, as a fine-tune would have."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for f in folder.iterdir():
        if f.suffix == ".json":
            shutil.copy(f, to / f.name)
    random = np.random.default_rng(seed)
    weights = load_file(folder / "model.safetensors")
    for name in sorted(weights):
        w = weights[name]
        if w.ndim == 2:
            weights[name] = w + random.normal(0, 0.01 * w.std(), w.shape).astype(np.float32)
    save_file(weights, to / "model.safetensors", {"format": "pt"})


def recipe(method, base, a, b):
    lines = [f"merge_method: {method}", "dtype: float32", f"base_model: {json.dumps(str(base))}"]
    if method == "slerp":
        lines[2] = f"base_model: {json.dumps(str(a))}"
        lines += ["parameters: {t: 0.5}", "models:", f"- model: {json.dumps(str(a))}", f"- model: {json.dumps(str(b))}"]
    else:
        if method == "linear":
            del lines[2]
        lines.append("models:")
        for m in (a, b):
            lines += [f"- model: {json.dumps(str(m))}", "  parameters:" + MERGES[method]]
    return "\n".join(lines) + "\n"


def merge_all(program, folder, work, tokenizer):
    work.mkdir(parents=True, exist_ok=True)
    a, b = work / "a", work / "b"
    perturb(folder, a, 1)
    perturb(folder, b, 2)
    for method in MERGES:
        file, out = work / f"{method}.yml", work / method
        file.write_text(recipe(method, folder.resolve(), a.resolve(), b.resolve()))
        done = subprocess.run([program, "merge", "--force", str(file), str(out)], capture_output=True, text=True)
        if done.returncode != 0:
            check(False, f"{method}: {program} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
            continue
        model, problems = load(out)
        text = greedy(model, AutoTokenizer.from_pretrained(out))
        check(not problems, f"{method}: loads without missing or unexpected tensors {problems or ''}")
        check("Paris" in text, f"{method}: {text!r}")
        del model


def main():
    program, file, folder, work = sys.argv[1], *(pathlib.Path(p) for p in sys.argv[2:5])
    program = str(pathlib.Path(program).resolve())
    torch.set_num_threads(min(4, os.cpu_count() or 1))
    theirs = compare_weights(file, folder)
    ours, problems = load(folder)
    check(not problems, f"loads without missing or unexpected tensors {problems or ''}")
    compare_config(theirs, ours)
    tokenizer = compare_tokens(file, folder)
    ids = tokenizer(PROMPT).input_ids
    difference = (logits(ours, ids) - logits(theirs, ids)).abs().max().item()
    check(difference < 1e-3, f"largest difference of logits: {difference:.3g}")
    text = greedy(ours, tokenizer)
    check(text == greedy(theirs, tokenizer), "the same greedy text as transformers' own model")
    check("Paris" in text, repr(text))
    del theirs, ours
    if "--convert-only" not in sys.argv[5:]:
        merge_all(program, folder, work, tokenizer)
    print(f"{len(failures)} failures" if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
