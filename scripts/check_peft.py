"""Compare mergekit's adapters with peft's, both ways.

usage: check_peft.py PROGRAM GOLDEN WORKDIR [CASE...]

Ends with status 1 if anything differs.
"""
import json
import os
import pathlib
import subprocess
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.filterwarnings("ignore")

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)

PROGRAM, GOLDEN, WORK = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
ONLY = set(sys.argv[4:])
MODELS = GOLDEN / "models"
CAUSAL, BARE, CLASSIFIER = AutoModelForCausalLM, AutoModel, AutoModelForSequenceClassification

failures, lines = [], 0


def report(case, what, ok, detail):
    global lines
    lines += 1
    print(f"{'ok  ' if ok else 'FAIL'} {case:28} {what:34} {detail}", flush=True)
    if not ok:
        failures.append(f"{case}: {what}")


def run(*args):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def load(cls, path, dtype=torch.float32, **kw):
    return cls.from_pretrained(path, dtype=dtype, **kw).eval()


def output(model):
    model.config.pad_token_id = 0  # classifiers look for the last token that is none
    ids = torch.arange(2, 2 + 2 * 9).reshape(2, 9) % model.config.vocab_size
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state).float()


def randomise(model, seed):
    """Give everything that is trained values that training could give it."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        noise = torch.randn(p.shape, generator=g)
        if "magnitude" in name:
            p.data.mul_((1 + 0.1 * noise).to(p.dtype))
        elif "lora_" in name:
            p.data.copy_(0.1 * noise)  # in place: factors of tied modules are views of each other
        else:
            p.data.add_((0.05 * noise).to(p.dtype))


def largest(a, b):
    return (a.double() - b.double()).abs().max().item()


def merged_state(model, dtype):
    merged = model.merge_and_unload().to(dtype)
    return {k: v.clone() for k, v in merged.state_dict().items()}


def compare_weights(case, what, fused, want, exact, base, rounded_twice):
    """Every tensor of the fused checkpoint against peft's; transformers' names are those of the files."""
    got = {}
    for f in sorted(pathlib.Path(fused).glob("*.safetensors")):
        got.update(load_file(f))
    worst, differ, compared = 0.0, 0, 0
    for name, w in want.items():
        if name not in got:
            continue
        compared += 1
        g = got[name]
        if g.shape != w.shape or g.dtype != w.dtype:
            report(case, what, False, f"{name}: {g.dtype} {tuple(g.shape)}, want {w.dtype} {tuple(w.shape)}")
            return
        worst = max(worst, largest(g, w))
        if exact and not torch.equal(g, w):
            if rounded_twice and "embed" in name:
                # peft rounds an embedding's delta to bfloat16 before it adds it: half a unit of the delta, and that may move
                # the sum to the next number.
                delta = w.float() - base[name].float()
                if ((g.float() - w.float()).abs() <= delta.abs() * 2**-8 + w.float().abs() * 2**-7).all():
                    continue
            differ += int((g != w).sum())
    if compared == 0:
        report(case, what, False, "no tensor has the same name")
    elif exact:
        report(case, what, differ == 0, f"{compared} tensors, {differ} values differ")
    else:
        report(case, what, worst <= 1e-6, f"{compared} tensors, largest difference {worst:.2g}")


# name: base, class, configuration of the adapter, options for fuse, keyword arguments for loading the base
CASES = {
    "plain": ("base", CAUSAL, dict(target_modules=["q_proj", "v_proj", "down_proj"]), [], {}),
    "rslora": ("base", CAUSAL, dict(target_modules=["q_proj", "o_proj"], use_rslora=True, r=6, lora_alpha=16), [], {}),
    "dora": ("base", CAUSAL, dict(target_modules=["q_proj", "down_proj"], use_dora=True), [], {}),
    "patterns": ("base", CAUSAL, dict(target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6},
                                      alpha_pattern={"q_proj": 16}), [], {}),
    "regex": ("base", CAUSAL, dict(target_modules=r".*\.[02]\.mlp\.(up|down)_proj"), [], {}),
    "layers_to_transform": ("base", CAUSAL, dict(target_modules=["model.layers.0.self_attn.q_proj", "v_proj"], layers_to_transform=[2]), [], {}),
    "exclude": ("base", CAUSAL, dict(target_modules=["q_proj", "v_proj"], exclude_modules=["layers.1.self_attn.v_proj"]), [], {}),
    "bias_all": ("qwen", CAUSAL, dict(target_modules=["q_proj", "down_proj"], bias="all"), [], {}),
    "bias_lora_only": ("qwen", CAUSAL, dict(target_modules=["q_proj", "down_proj"], bias="lora_only"), [], {}),
    "lora_bias": ("qwen", CAUSAL, dict(target_modules=["q_proj", "v_proj"], lora_bias=True), [], {}),
    "modules_to_save": ("base", CAUSAL, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head", "norm"]), [], {}),
    "all_linear": ("base", CAUSAL, dict(target_modules="all-linear"), [], {}),
    "embedding": ("base", CAUSAL, dict(target_modules=["embed_tokens", "q_proj"]), [], {}),
    "embedding_dora": ("base", CAUSAL, dict(target_modules=["embed_tokens", "q_proj"], use_dora=True), [], {}),
    "lm_head": ("base", CAUSAL, dict(target_modules=["lm_head", "q_proj"]), [], {}),
    "tokens": ("base", CAUSAL, dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 17, 255]}), [], {}),
    "gpt2": ("gpt2", CAUSAL, dict(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True), [], {}),
    "gpt2_all_linear": ("gpt2", CAUSAL, dict(target_modules="all-linear", bias="all"), [], {}),
    "gpt2_dora": ("gpt2", CAUSAL, dict(target_modules=["c_attn", "c_fc"], use_dora=True), [], {}),
    "bert": ("bert", BARE, dict(target_modules=["query", "value", "dense"], task_type="FEATURE_EXTRACTION"), [], {}),
    "bert_classifier": ("bert", CLASSIFIER, dict(target_modules=["query", "value"], task_type="SEQ_CLS"), [], dict(num_labels=3)),
    "llama_classifier": ("base", CLASSIFIER, dict(target_modules=["q_proj"], task_type="SEQ_CLS"), [], dict(num_labels=4)),
    "tied": ("tied", CAUSAL, dict(target_modules=["q_proj", "v_proj"]), [], {}),
    "tied_tokens": ("tied", CAUSAL, dict(target_modules=["q_proj"], trainable_token_indices=[3, 5]), [], {}),
    "tied_lm_head": ("tied", CAUSAL, dict(target_modules=["lm_head", "q_proj"]), ["--tie", "untie"], {}),
    "tied_lm_head_saved": ("tied", CAUSAL, dict(target_modules=["q_proj"], modules_to_save=["lm_head"]), ["--tie", "untie"], {}),
    "tied_kept": ("tied", CAUSAL, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True), [], {}),
    "tied_kept_factors": ("tied", CAUSAL, dict(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True), [], {}),
    "gemma2": ("../train/gemma2-lora/base", CAUSAL, dict(target_modules=["q_proj", "gate_proj"]), [], {}),
    "resized": ("base", CAUSAL, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]), [], {}),
}
# peft merges a delta of a tied head into the matrix that the embedding uses too, so its merged weights are no reference there:
# the logits of the unmerged model are.
NO_MERGE = {"tied_lm_head", "tied_lm_head_saved", "tied_kept_factors"}
# On a bfloat16 base peft's float32 factors of tied modules are copies of each other, no longer one matrix.
ONLY_F32 = {"tied_kept_factors"}


def check_theirs(case, base, cls, config, options, kw):
    """peft writes, mergekit reads."""
    torch.manual_seed(0)
    config = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **config}
    for dtype, exact in ((torch.float32, False), (torch.bfloat16, True)):
        if case in ONLY_F32 and exact:
            continue
        name = "f32" if dtype == torch.float32 else "bf16"
        folder = WORK / case / name
        torch.manual_seed(0)
        model = load(cls, MODELS / base, dtype, **kw)
        if case == "resized":
            model.resize_token_embeddings(model.config.vocab_size + 5, mean_resizing=False)
        source = folder / "base"
        load(cls if "classifier" not in case else BARE if base == "bert" else CAUSAL, MODELS / base, dtype).save_pretrained(source)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model = get_peft_model(model, LoraConfig(**config)).eval()
        randomise(model, 7)
        model.save_pretrained(folder / "adapter")
        want = output(model)
        inspection = json.loads(run("adapters", "inspect", folder / "adapter", "--base", source, "--json"))
        if dtype == torch.float32:
            report(case, "inspect", inspection["non_finite"] == 0 and inspection["idle"] == 0, f"{len(inspection['modules'])} modules, {inspection['parameters']} parameters")
        run("fuse", "--base", source, "--adapter", folder / "adapter", "-o", folder / "fused", *options, "--quiet")
        if dtype == torch.float32:
            got = output(load(cls, folder / "fused", dtype))
            report(case, "logits of the fused model", largest(got, want) <= 1e-4, f"largest difference {largest(got, want):.2g}")
        if case not in NO_MERGE:
            compare_weights(case, f"weights, {name}", folder / "fused", merged_state(model, dtype), exact, before, case == "embedding")


def check_ours(case, base, cls, adapter, options=()):
    """mergekit writes, peft reads."""
    fused = WORK / "ours" / case
    run("fuse", "--base", base, "--adapter", adapter, "-o", fused, *options, "--quiet")
    kw = {}
    model = load(cls, base, **kw)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(model, adapter).eval()
    missing = [str(w.message)[:100] for w in seen if "missing" in str(w.message).lower() or "unexpected" in str(w.message).lower()]
    report(case, "peft loads it", not missing, missing[0] if missing else "no key is missing")
    d = largest(output(loaded), output(load(cls, fused)))
    report(case, "logits, peft against ours fused", d <= 1e-4, f"largest difference {d:.2g}")


def extract_cases():
    for case, base, tuned, cls, flags, options in (
        ("extract", "base", "ft1", CAUSAL, ["-r", 8], []),
        ("extract_energy", "base", "ft2", CAUSAL, ["-r", 32, "--energy", 0.9], []),
        ("extract_embeddings", "base", "ft2", CAUSAL, ["-r", 8, "--embeddings", "lora"], []),
        ("extract_qwen", "qwen", "qwen-ft1", CAUSAL, ["-r", 8], []),
        ("extract_gpt2", "gpt2", "gpt2-ft1", CAUSAL, ["-r", 8], []),
        ("extract_bert", "bert", "bert-ft1", BARE, ["-r", 8], []),
        ("extract_tied", "tied", "tied-ft1", CAUSAL, ["-r", 8], []),
        ("extract_minimal", "base", "ft1", CAUSAL, ["-r", 8, "--compat", "minimal"], []),
    ):
        if ONLY and case not in ONLY:
            continue
        out = WORK / "extracted" / case
        run("adapters", "extract", "--base", MODELS / base, "--tuned", MODELS / tuned, "-o", out, *flags, "--quiet")
        check_ours(case, MODELS / base, cls, out, options)


def deltas_of(model, name):
    return {k: m.get_delta_weight(name).detach() for k, m in model.named_modules() if hasattr(m, "get_delta_weight") and name in getattr(m, "r", {})}


def combine_cases():
    """The same combination by peft and by mergekit."""
    weights = [0.7, -0.3]
    for method, extra in (
        ("cat", {}), ("svd", {"svd_rank": 5}), ("linear", {}), ("ties", {"density": 0.5}), ("magnitude_prune", {"density": 0.6}),
        ("ties_svd", {"density": 0.5, "majority_sign_method": "frequency"}), ("magnitude_prune_svd", {"density": 0.5}),
    ):
        case = f"combine_{method}"
        if ONLY and case not in ONLY:
            continue
        folders = []
        for i, rs in enumerate((False, True)):
            torch.manual_seed(i)
            model = get_peft_model(load(CAUSAL, MODELS / "base"), LoraConfig(r=4, lora_alpha=8 + i, target_modules=["q_proj", "down_proj"], use_rslora=rs, task_type="CAUSAL_LM"))
            randomise(model, 20 + i)
            folders.append(WORK / case / str(i))
            model.save_pretrained(folders[-1])
        model = PeftModel.from_pretrained(load(CAUSAL, MODELS / "base"), folders[0], adapter_name="a")
        model.load_adapter(folders[1], adapter_name="b")
        model.add_weighted_adapter(["a", "b"], weights, "both", combination_type=method, **extra)
        theirs = deltas_of(model, "both")
        out = WORK / case / "ours"
        flags = []
        for key, flag in (("svd_rank", "--rank"), ("density", "--density"), ("majority_sign_method", "--sign")):
            if key in extra:
                flags += [flag, extra[key]]
        run("adapters", "combine", *folders, "--method", method, "--weights", ",".join(map(str, weights)), "-o", out, *flags, "--quiet")
        ours = deltas_of(PeftModel.from_pretrained(load(CAUSAL, MODELS / "base"), out, adapter_name="both"), "both")
        d = max(largest(ours[k], theirs[k]) for k in theirs)
        scale = max(v.abs().max().item() for v in theirs.values())
        report(case, "deltas, peft against ours", ours.keys() == theirs.keys() and d <= 2e-5 * max(scale, 1), f"{len(ours)} modules, largest difference {d:.2g}")
        check_ours(case, MODELS / "base", CAUSAL, out)


def convert_case():
    case = "convert_mlx"
    if ONLY and case not in ONLY:
        return
    run("adapters", "convert", MODELS / "lora1", WORK / "mlx", "--to", "mlx", "--quiet")
    run("adapters", "convert", WORK / "mlx", WORK / "back", "--to", "peft", "--quiet")
    check_ours(case, MODELS / "base", CAUSAL, WORK / "back")
    a, b = load_file(MODELS / "lora1" / "adapter_model.safetensors"), load_file(WORK / "back" / "adapter_model.safetensors")
    report(case, "tensors after both ways", a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), f"{len(a)} tensors")


def main():
    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    for case, args in CASES.items():
        if ONLY and case not in ONLY:
            continue
        try:
            check_theirs(case, *args)
        except Exception as e:  # noqa: BLE001 - one case's failure must not hide the others
            report(case, "runs", False, f"{type(e).__name__}: {e}")
    for part in (extract_cases, combine_cases, convert_case):
        try:
            part()
        except Exception as e:  # noqa: BLE001
            report(part.__name__, "runs", False, f"{type(e).__name__}: {e}")
    print(f"{lines} checks, {len(failures)} failed")
    for f in failures:
        print("  " + f)
    sys.exit(1 if failures else 0)


main()
