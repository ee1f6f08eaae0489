"""Compare what mergekit trains with what torch and peft make of it.

usage: check_trained.py PROGRAM GOLDEN WORKDIR [CASE...]

Ends with status 1 if anything differs.
"""
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
warnings.filterwarnings("ignore")

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)  # the models are tiny

PROGRAM, GOLDEN, WORK = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]).resolve()
ONLY = set(sys.argv[4:])

LLAMA, BIASED, QWEN, GPT2, GEMMA, MISTRAL, QWEN3, PHI, GEMMA3 = (
    GOLDEN / p for p in ("train/llama-lora-qv/base", "forward/llama-tied-bias", "forward/qwen2", "train/gpt2-lora/base", "train/gemma2-lora/base",
                         "forward/mistral-window", "forward/qwen3", "forward/phi3", "forward/gemma3"))

failures, lines, curves = [], 0, {}


def report(case, what, ok, detail):
    global lines
    lines += 1
    print(f"{'ok  ' if ok else 'FAIL'} {case:22} {what:38} {detail}", flush=True)
    if not ok:
        failures.append(f"{case}: {what}: {detail}")


def run(*args):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def config_of(path):
    return json.loads((path / "config.json").read_text())


def is_classifier(path):
    return "SequenceClassification" in config_of(path)["architectures"][0]


def load(path):
    # Evaluation mode also where torch trains: no dropout but that of the adapter, which the comparisons leave out.
    cls = AutoModelForSequenceClassification if is_classifier(path) else AutoModelForCausalLM
    return cls.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def classifier(name, source):
    """A base that tells three classes, with the tokenizer of its source."""
    folder = WORK / "bases" / name
    if not folder.exists():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_pretrained(GOLDEN / source, dtype=torch.float32, num_labels=3)
        model.config.pad_token_id = 0
        model.save_pretrained(folder)
        for f in (GOLDEN / source).glob("tokenizer*.json"):
            shutil.copy(f, folder)
    return folder


def largest(a, b):
    return (a.double() - b.double()).abs().max().item()


# Training by both.

def rows(count, base, seed):
    """Rows for a base: token ids, of some of which the first are no targets, or texts with a class."""
    rng = random.Random(seed)
    out = []
    if is_classifier(base):
        tokenizer = AutoTokenizer.from_pretrained(base)
        for _ in range(count):
            text = "".join(rng.choice("abcdefghij ") for _ in range(rng.randint(3, 9))).strip() or "a"
            out.append({"text": text, "label": rng.randrange(3), "input_ids": tokenizer(text)["input_ids"]})
        return out
    vocab = config_of(base)["vocab_size"]
    for i in range(count):
        ids = [rng.randrange(3, vocab) for _ in range(rng.randint(5, 16))]
        masked = rng.randrange(3) if i % 3 else 0
        out.append({"input_ids": ids, "labels": [-100] * masked + ids[masked:]})
    return out


MICRO, ACCUM, LENGTH = 4, 2, 16  # two micro batches with unequal numbers of targets, so that normalisation by tokens shows


def finetune(folder, base, data, steps, tune="lora", lora=None, optim=None, adapter_in=None, mode="continue"):
    """Train with mergekit; returns the directory of the result and the loss of each step."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({k: v for k, v in r.items() if k != "input_ids" or "text" not in r}) + "\n" for r in data))
    model = {"base": str(base), "dtype": "float32"}
    if adapter_in:
        model |= {"adapter_in": str(adapter_in), "adapter_in_mode": mode}
    config = {
        "version": 1, "run": {"output_dir": str(folder / "out"), "seed": 7}, "model": model, "tune": tune, "lora": lora or {},
        "data": {"train": [{"path": str(folder / "rows.jsonl"), "format": "classification" if "text" in data[0] else "tokens"}], "max_length": LENGTH, "buckets": [LENGTH], "packing": "none", "shuffle": False},
        "optim": optim, "schedule": {"kind": "constant", "warmup_ratio": 0.0}, "train": {"max_steps": steps, "micro_batch": MICRO, "grad_accum": ACCUM},
    }
    (folder / "run.yml").write_text(json.dumps(config))  # JSON is YAML
    run("finetune", folder / "run.yml", "--quiet")
    losses = [m["loss"] for m in map(json.loads, (folder / "out/metrics.jsonl").read_text().splitlines()) if "loss" in m]
    return folder / "out" / ("model" if tune == "full" else "adapter"), losses


def batch_loss(model, part):
    """The sum of the losses of a micro batch, padded on the right."""
    longest = max(len(r["input_ids"]) for r in part)
    pad = lambda key, value: torch.tensor([r[key] + [value] * (longest - len(r[key])) for r in part])
    mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (longest - len(r["input_ids"])) for r in part])
    logits = model(input_ids=pad("input_ids", 0), attention_mask=mask).logits
    if "text" in part[0]:
        return torch.nn.functional.cross_entropy(logits, torch.tensor([r["label"] for r in part]), reduction="sum")
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), pad("labels", -100)[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def step_rows(data, step):
    per = MICRO * ACCUM
    at = step * per % len(data)
    return data[at:at + per]


def count_targets(part):
    return len(part) if "text" in part[0] else sum(sum(l != -100 for l in r["labels"][1:]) for r in part)


def mean_loss(model, part):
    with torch.no_grad():
        return batch_loss(model, part).item() / count_targets(part)


def torch_train(model, data, steps, lr, weight_decay, ratio=1.0, clip=1.0):
    """Train with torch as the configuration of finetune says; returns the loss of each step."""
    groups, first, doubles = {lr: [], lr * ratio: []}, {}, []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        # peft ties factors by making the head's views of the embedding's: parameters of their own, which Adam would move one after
        # the other though they are the same memory. One parameter has the sum of the gradients and moves once.
        one = first.setdefault(p.data_ptr(), p)
        if one is not p:
            doubles.append((one, p))
        else:
            groups[lr * ratio if re.search(r"\.lora_(embedding_)?B\b", name) else lr].append(p)
    trained = sum(groups.values(), [])
    optimizer = torch.optim.AdamW([{"params": ps, "lr": rate} for rate, ps in groups.items() if ps], lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)
    losses = []
    for step in range(steps):
        part = step_rows(data, step)
        targets, total = count_targets(part), 0.0
        optimizer.zero_grad()
        for at in range(0, len(part), MICRO):
            loss = batch_loss(model, part[at:at + MICRO]) / targets
            loss.backward()
            total += loss.item()
        for one, other in doubles:
            one.grad += other.grad.T
            other.grad = None
        torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        losses.append(total)
    return losses


def relative(ours, theirs):
    """The largest relative difference of two curves and the step, from 1, where it is."""
    if len(ours) != len(theirs):
        return float("inf"), 0
    return max((abs(a - b) / abs(b), i + 1) for i, (a, b) in enumerate(zip(ours, theirs)))


# Outputs of both.

def random_batches(vocab):
    """Random ids with padding on the right and on the left."""
    g = torch.Generator().manual_seed(11)
    for side in ("right", "left"):
        ids = torch.randint(3, vocab, (4, 13), generator=g)
        mask = torch.ones_like(ids)
        for row, length in enumerate((13, 9, 4, 11)):
            (mask[row, length:] if side == "right" else mask[row, :13 - length]).zero_()
        yield side, ids * mask, mask


def torch_logits(model, ids, mask):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits.float()


def difference(a, b, mask):
    """The largest difference of two outputs; what logits of tokens have at padding does not count."""
    return largest(a, b) if a.dim() == 2 else largest(a[mask.bool()], b[mask.bool()])


def our_logits(folder, base, ids, mask, *flags):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "input.json").write_text(json.dumps({"input_ids": ids.tolist(), "attention_mask": mask.tolist()}))
    run("logits", base, "--input", folder / "input.json", "-o", folder / "output.safetensors", "--dtype", "float32", "--quiet", *flags)
    return load_file(folder / "output.safetensors")["output"]


def compare_logits(case, model, base, *flags):
    worst = {}
    for side, ids, mask in random_batches(model.config.vocab_size):
        if side == "left" and model.config.model_type == "bert":
            continue  # its class is read off the first column, which would be padding
        worst[side] = difference(our_logits(WORK / case / "logits", base, ids, mask, *flags), torch_logits(model, ids, mask), mask)
    report(case, "logits", max(worst.values()) <= 1e-4, ", ".join(f"{side} padding {d:.2g}" for side, d in worst.items()))


def tensors_of(folder):
    out = {}
    for f in sorted(pathlib.Path(folder).glob("model*.safetensors")):
        out.update(load_file(f))
    return out


def peft_tensors(model):
    """What peft saves of a model, without the doubles that bias: all adds of modules that are saved whole."""
    return {k: v for k, v in get_peft_model_state_dict(model, save_embedding_layers=False).items() if not re.search(r"\.(modules_to_save|original_module)\.", k)}


def load_adapter(case, base, folder):
    """Load an adapter of mergekit's in peft; every tensor of its file must find its place, and peft must miss none."""
    wanted = peft_tensors(get_peft_model(load(base), LoraConfig.from_pretrained(folder))).keys()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load(base), folder).eval()
    said = [str(w.message)[:120] for w in seen if re.search("missing|unexpected", str(w.message), re.I)]
    held = load_file(folder / "adapter_model.safetensors")
    loaded = peft_tensors(model)
    wrong = sorted(wanted ^ held.keys()) + [k for k, v in held.items() if k in loaded and not torch.equal(loaded[k], v)]
    with safe_open(folder / "adapter_model.safetensors", "pt") as f:
        if f.metadata() != {"format": "pt"}:
            wrong.append(f"metadata {f.metadata()}")
    report(case, "peft loads it", not said and not wrong, (said + wrong + [f"{len(held)} tensors"])[0])
    return model


def check_effect(case, base, model, folder):
    """An adapter that changes nothing would pass every comparison."""
    _, ids, mask = next(random_batches(model.config.vocab_size))
    moved = largest(torch_logits(model, ids, mask), torch_logits(load(base), ids, mask))
    held = load_file(folder / "adapter_model.safetensors")
    idle = [k for k, v in held.items() if re.search(r"lora_(embedding_)?[AB]", k) and not v.any()]
    report(case, "it changes the base", moved > 1e-2 and not idle, f"logits by {moved:.2g}" + (f"; zero: {idle[0]}" if idle else ""))


def compare_fused(case, base, folder, model, tie, merged_is_reference):
    """fuse against merge_and_unload, tensor by tensor, and its logits against those of the adapter beside its base."""
    fused = WORK / case / "fused"
    run("fuse", "--base", base, "--adapter", folder, "-o", fused, *(["--tie", tie] if tie else []), "--quiet")
    batches = list(random_batches(model.config.vocab_size))
    want = [torch_logits(model, ids, mask) for _, ids, mask in batches]
    again = load(fused)
    d = max(difference(torch_logits(again, ids, mask), w, mask) for (_, ids, mask), w in zip(batches, want))
    report(case, "logits of the fused model", d <= 1e-4, f"largest difference {d:.2g}")
    if not merged_is_reference:
        return
    theirs, ours = {k: v.clone() for k, v in model.merge_and_unload().state_dict().items()}, tensors_of(fused)
    if "lm_head.weight" in theirs and model.config.tie_word_embeddings:
        theirs.pop("lm_head.weight")  # the embedding under its other name
        ours.pop("lm_head.weight", None)
    if ours.keys() != theirs.keys():
        report(case, "fuse = merge_and_unload", False, f"other tensors: {sorted(ours.keys() ^ theirs.keys())[:3]}")
        return
    d = max(largest(ours[k], theirs[k]) for k in theirs)
    report(case, "fuse = merge_and_unload", d <= 1e-5, f"{len(theirs)} tensors, largest difference {d:.2g}")


CLASSIFIERS = {"bert": "models/bert", "llama": "models/base"}

# name: base (a name is a classifier's), keys of lora, keys of optim
CASES = {
    "plain": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"])),
    "rslora": (LLAMA, dict(target_modules=["q_proj", "o_proj"], use_rslora=True, r=6, alpha=16)),
    "dora": (LLAMA, dict(target_modules=["q_proj", "down_proj"], use_dora=True)),
    "dora_rslora": (LLAMA, dict(target_modules="all-linear", use_dora=True, use_rslora=True)),
    "patterns": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6}, alpha_pattern={"q_proj": 16})),
    "regex": (LLAMA, dict(target_modules=r".*\.[02]\.mlp\.(up|down)_proj")),
    "layers": (LLAMA, dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2], exclude_modules=["layers.2.self_attn.v_proj"])),
    "bias_all": (BIASED, dict(target_modules=["q_proj", "down_proj"], bias="all")),
    "bias_lora_only": (BIASED, dict(target_modules=["q_proj", "down_proj"], bias="lora_only")),
    "bias_all_qwen2": (QWEN, dict(target_modules=["q_proj", "up_proj"], bias="all")),
    "bert": ("bert", dict(target_modules=["query", "value"])),
    "bert_all_linear": ("bert", dict(target_modules="all-linear", bias="all")),
    "bert_dora": ("bert", dict(target_modules=["query", "dense"], use_dora=True)),
    "llama_classes": ("llama", dict(target_modules=["q_proj", "v_proj"])),
    "bias_dora": (BIASED, dict(target_modules=["q_proj", "down_proj"], bias="all", use_dora=True)),
    "saved_head": (LLAMA, dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "saved_many": (LLAMA, dict(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head", "norm"])),
    "all_linear": (LLAMA, dict(target_modules="all-linear")),
    "lm_head": (LLAMA, dict(target_modules=["lm_head", "q_proj"])),
    "embedding": (LLAMA, dict(target_modules=["embed_tokens", "q_proj"])),
    "embedding_dora": (LLAMA, dict(target_modules=["embed_tokens", "q_proj"], use_dora=True)),
    "gpt2": (GPT2, dict(target_modules=["c_attn", "c_proj"])),
    "gpt2_all_linear": (GPT2, dict(target_modules="all-linear", bias="all")),
    "gpt2_dora": (GPT2, dict(target_modules=["c_attn", "c_fc"], use_dora=True)),
    "gemma2": (GEMMA, dict(target_modules=["q_proj", "gate_proj"])),
    "gemma2_dora": (GEMMA, dict(target_modules="all-linear", use_dora=True)),
    "gemma3": (GEMMA3, dict(target_modules="all-linear")),
    "mistral": (MISTRAL, dict(target_modules="all-linear")),
    "qwen3": (QWEN3, dict(target_modules="all-linear", use_rslora=True)),
    "phi3": (PHI, dict(target_modules="all-linear")),
    "untied_head": (BIASED, dict(target_modules=["lm_head", "q_proj"], tie="untie")),
    "untied_head_saved": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["lm_head"], tie="untie")),
    "untied_embedding": (BIASED, dict(target_modules=["embed_tokens", "q_proj"], tie="untie")),
    "untied_embed_saved": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], tie="untie")),
    "untied_both_saved": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], tie="untie")),
    "untied_dora": (BIASED, dict(target_modules=["lm_head", "q_proj"], use_dora=True, tie="untie")),
    "untied_pissa": (BIASED, dict(target_modules=["lm_head", "q_proj"], init="pissa", tie="untie")),
    "untied_gpt2": (GPT2, dict(target_modules=["wte", "c_attn"], tie="untie")),
    "untied_gemma2": (GEMMA, dict(target_modules=["embed_tokens", "q_proj"], tie="untie")),
    "untied_gemma3": (GEMMA3, dict(target_modules=["embed_tokens", "q_proj"], tie="untie")),
    "kept_embedding": (BIASED, dict(target_modules=["embed_tokens", "q_proj"], tie="keep")),
    "kept_head": (BIASED, dict(target_modules=["lm_head", "q_proj"], tie="keep")),
    "kept_gpt2": (GPT2, dict(target_modules=["lm_head", "c_attn"], tie="keep")),
    "kept_gpt2_saved": (GPT2, dict(target_modules=["c_attn"], modules_to_save=["lm_head"], tie="keep")),
    "kept_embed_saved": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], tie="keep")),
    "kept_head_saved": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["lm_head"], tie="keep")),
    "kept_both_saved": (BIASED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], tie="keep")),
    "kept_gemma2": (GEMMA, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], tie="keep")),
    "pissa": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], init="pissa")),
    "pissa_rslora": (LLAMA, dict(target_modules=["q_proj", "up_proj"], init="pissa", use_rslora=True, rank_pattern={"up_proj": 6}, alpha_pattern={"up_proj": 5})),
    "pissa_niter": (LLAMA, dict(target_modules=["q_proj"], init="pissa_niter_4")),
    "pissa_gpt2": (GPT2, dict(target_modules=["c_attn", "c_proj"], init="pissa")),
    "olora": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], init="olora")),
    "orthogonal": (LLAMA, dict(target_modules=["q_proj", "v_proj"], init="orthogonal")),
    "gaussian": (LLAMA, dict(target_modules=["q_proj", "v_proj"], init="gaussian")),
    "dropout": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], dropout=0.3)),
    "dropout_dora": (LLAMA, dict(target_modules=["q_proj", "down_proj"], dropout=0.3, use_dora=True)),
    "lora_plus": (LLAMA, dict(target_modules=["q_proj", "down_proj"]), dict(lora_plus_ratio=16.0, lr=1e-3)),
}
OPTIM = dict(lr=1e-2, weight_decay=0.01, decay_all=True, clip=1.0)
# peft merges a delta of a tied head into the matrix that the embedding uses too, so its merged weights are no reference there:
# the logits of the unmerged model are.
NO_MERGE = {case for case in CASES if case.startswith("untied_")} | {"kept_embedding", "kept_head", "kept_gpt2"}


def trained_case(case, base, lora, optim=None):
    """mergekit trains, peft loads."""
    lora = {"r": 4, "alpha": 8, **lora}
    adapter, losses = finetune(WORK / case / "ours", base, rows(40, base, 1), 5, "lora", lora, {**OPTIM, **(optim or {})})
    model = load_adapter(case, base, adapter)
    check_effect(case, base, model, adapter)
    compare_logits(case, model, base, "--adapter", adapter)
    compare_fused(case, base, adapter, model, lora.get("tie"), case not in NO_MERGE)


def peft_config(base, lora):
    names = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
    config = {names.get(k, k): v for k, v in lora.items() if k not in ("tie", "init")}
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS" if is_classifier(base) else "CAUSAL_LM", "ensure_weight_tying": lora.get("tie") == "keep", **config})


def randomise(model, seed):
    """Give everything that is trained values that training could give it."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        noise = torch.randn(p.shape, generator=g)
        if "magnitude" in name:
            p.data.mul_(1 + 0.1 * noise)
        elif "lora_" in name:
            p.data.copy_(0.1 * noise)
        else:
            p.data.add_(0.05 * noise)


def peft_adapter(folder, base, lora):
    """An adapter that peft wrote, with random values, and the model that it came from.

    Not that model read again: of GPT-2 with tied factors, peft itself reads only the embedding's.
    """
    torch.manual_seed(0)
    config = peft_config(base, lora)
    config.fan_in_fan_out = base == GPT2
    model = get_peft_model(load(base), config)
    randomise(model, 7)
    model.save_pretrained(folder)
    return folder, model.eval()


def continued_case(case, base, lora, optim=None):
    """peft writes, mergekit trains on: the loss of the first step, then the same steps by torch."""
    case, lora, optim = f"{case}+", {k: v for k, v in lora.items() if k != "dropout"}, {**OPTIM, "lr": 1e-3, **(optim or {})}
    start, model = peft_adapter(WORK / case / "start", base, lora)
    data = rows(40, base, 2)
    keep = {"tie": lora["tie"]} if "tie" in lora else {}
    adapter, ours = finetune(WORK / case / "ours", base, data, 5, "lora", keep, optim, start)
    first = mean_loss(model, step_rows(data, 0))
    report(case, "first loss from peft's adapter", abs(ours[0] - first) <= 1e-4, f"{ours[0]:.6f}, peft {first:.6f}")
    theirs = torch_train(model, data, 5, optim["lr"], optim["weight_decay"], optim.get("lora_plus_ratio", 1.0))
    d, at = relative(ours, theirs)
    report(case, "losses of 5 steps, torch", d <= 1e-4, f"largest relative difference {d:.2g}, at step {at}")
    a, b = load_file(adapter / "adapter_model.safetensors"), peft_tensors(model)
    if a.keys() != b.keys():
        report(case, "trained tensors, torch", False, f"other tensors: {sorted(a.keys() ^ b.keys())[:3]}")
        return
    if base == GPT2:
        # Without rotary positions, attention does not depend on the keys' bias: its gradient is rounding, which Adam makes whole steps of.
        for k in b:
            if k.endswith("c_attn.base_layer.bias"):
                third = len(b[k]) // 3
                a[k], b[k] = (torch.cat([v[:third], v[2 * third:]]) for v in (a[k], b[k]))
    worst = max((largest(a[k], b[k]) / max(b[k].abs().max().item(), 1e-6), k) for k in b)
    report(case, "trained tensors, torch", worst[0] <= 1e-3, f"{len(b)} tensors, largest relative difference {worst[0]:.2g}")


def beside_case(case, base, mode):
    """A new adapter beside one of peft's: stacked into one adapter for the base, or for the base that holds peft's already."""
    config = dict(target_modules=["q_proj", "v_proj", "down_proj"])
    start, model = peft_adapter(WORK / case / "start", base, config)
    data = rows(40, base, 5)
    adapter, ours = finetune(WORK / case / "ours", base, data, 5, "lora", {"r": 4, "alpha": 8, "target_modules": ["q_proj", "up_proj"]}, OPTIM, start, mode)
    first = mean_loss(model, step_rows(data, 0))
    report(case, "first loss from peft's adapter", abs(ours[0] - first) <= 1e-4, f"{ours[0]:.6f}, peft {first:.6f}")
    if mode == "merge":
        base = WORK / case / "merged"
        model.merge_and_unload().save_pretrained(base)
    model = load_adapter(case, base, adapter)
    check_effect(case, base, model, adapter)
    compare_logits(case, model, base, "--adapter", adapter)
    last = mean_loss(model, step_rows(data, 0))
    report(case, "both are in the result", last < first, f"loss {first:.4f}, then {last:.4f}")
    compare_fused(case, base, adapter, model, None, True)


def changed_base_case(case, init):
    """peft's factors of a base that it changed at the start must not be used on the base as it is."""
    config = peft_config(LLAMA, dict(target_modules=["q_proj"]))
    config.init_lora_weights = init
    get_peft_model(load(LLAMA), config).save_pretrained(WORK / case)
    done = subprocess.run([PROGRAM, "fuse", "--base", LLAMA, "--adapter", WORK / case, "-o", WORK / case / "fused"], capture_output=True, text=True)
    report(case, "is refused", done.returncode == 2 and "init_lora_weights" in done.stderr, f"status {done.returncode}: {done.stderr.strip()[-60:]}")


# name: base, keys of lora (None: full), steps, learning rate
CURVES = {
    "curve_lora": (LLAMA, dict(target_modules=["q_proj", "v_proj", "down_proj"], r=8, alpha=16), 200, 3e-3),
    "curve_dora": (LLAMA, dict(target_modules="all-linear", r=8, alpha=16, use_dora=True), 200, 3e-3),
    "curve_gpt2": (GPT2, dict(target_modules="all-linear", bias="all", r=8, alpha=16), 200, 3e-3),
    "curve_gemma2": (GEMMA, dict(target_modules="all-linear", r=8, alpha=16), 200, 3e-3),
    "curve_full": (LLAMA, None, 100, 1e-3),
    "curve_full_gpt2": (GPT2, None, 100, 1e-3),
    "curve_full_gemma2": (GEMMA, None, 100, 1e-3),
    "curve_full_qwen2": (QWEN, None, 100, 1e-3),
}


def curve_case(case, base, lora, steps, lr):
    """A long run on few rows, which both learn by heart in the same way, in the file's order."""
    data, optim = rows(64, base, 3), {**OPTIM, "lr": lr}
    if lora is None:
        result, ours = finetune(WORK / case / "ours", base, data, steps, "full", None, optim)
        model = load(base)
    else:
        start, model = peft_adapter(WORK / case / "start", base, lora)
        result, ours = finetune(WORK / case / "ours", base, data, steps, "lora", {}, optim, start)
    theirs = torch_train(model, data, steps, lr, optim["weight_decay"])
    d, at = relative(ours, theirs)
    curves[case] = d
    report(case, f"losses of {steps} steps, torch", d <= 0.01, f"{theirs[0]:.4f} to {theirs[-1]:.4f}, largest relative difference {d:.2g}, at step {at}")
    if lora is None:
        check_full(case, base, result)


def check_full(case, base, result):
    """A checkpoint that was tuned whole loads in transformers as it is."""
    model, info = AutoModelForCausalLM.from_pretrained(result, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = {k: v for k, v in info.items() if v}
    report(case, "transformers loads it", not wrong, str(wrong)[:100] if wrong else "no key missing or unexpected")
    same = json.loads((base / "config.json").read_text()) == json.loads((result / "config.json").read_text())
    report(case, "config.json is the base's", same, "unchanged" if same else "changed")
    before, after = tensors_of(base), tensors_of(result)
    as_before = before.keys() == after.keys() and all(before[k].shape == v.shape and before[k].dtype == v.dtype for k, v in after.items())
    still = [k for k in after if k in before and torch.equal(before[k], after[k])]
    report(case, "every tensor is there and trained", as_before and not still, f"{len(after)} tensors" + (f"; as before: {still[:3]}" if still else ""))
    compare_logits(case, model.eval(), result)


def attempt(case, check, *args):
    try:
        check(case, *args)
    except Exception as e:  # noqa: BLE001 - one case's failure must not hide the others
        report(case, "runs", False, f"{type(e).__name__}: {e}")


def main():
    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    cases = {case: (classifier(base, CLASSIFIERS[base]) if base in CLASSIFIERS else base, *rest) for case, (base, *rest) in CASES.items()}
    for case, args in cases.items():
        if not ONLY or case in ONLY:
            attempt(case, trained_case, *args)
    for case, args in cases.items():
        if "init" not in args[1] and (not ONLY or case in ONLY):  # where an adapter began does not matter once it is written
            attempt(case, continued_case, *args)
    for mode in ("stack", "merge"):
        if not ONLY or mode in ONLY:
            attempt(mode, beside_case, LLAMA, mode)
    for init in ("pissa", "olora"):
        if not ONLY or f"changed_{init}" in ONLY:
            attempt(f"changed_{init}", changed_base_case, init)
    for case, args in CURVES.items():
        if not ONLY or case in ONLY:
            attempt(case, curve_case, *args)
    if curves:
        worst = max(curves, key=curves.get)
        print(f"largest relative difference of {len(curves)} curves of losses: {curves[worst]:.2g} ({worst})")
    print(f"{lines} checks, {len(failures)} failed")
    for f in failures:
        print("  " + f)
    sys.exit(1 if failures else 0)


main()
