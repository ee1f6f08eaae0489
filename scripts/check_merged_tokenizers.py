#!/usr/bin/env python3
"""Check merged vocabularies with transformers, and with an oracle that is written from the definition.

usage: check_merged_tokenizers.py PROGRAM FOLDER [CASE...]

Ends with status 1 if anything is not as it should be.
"""
import collections
import json
import os
import pathlib
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
import transformers
import yaml
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)

GOLDEN = pathlib.Path(__file__).parent.parent / "testdata/golden/text/tokenizers"
TEXTS = [c["text"] for c in json.loads((GOLDEN / "gpt2/cases.json").read_text())]
TEXTS += ["<|user|> says hi<|end|>", "a<new>b <new> c", "x <|pad|><|pad|>", "call(<tool>, ‘quoted’)\n\n\tif x: y", "The small algebra of differences", "", " ", "zwölf🙂"]


def fast(kind, add=(), drop=0, bos=None, eos=None, shuffle=None, ghosts=0):
    """A tokenizer of a golden kind: tokens added, the last ones dropped, ids in another order, or more ids than the model will have rows."""
    data = json.loads((GOLDEN / kind / "tokenizer.json").read_text())
    model = data["model"]
    if drop or shuffle is not None:
        vocab = model["vocab"]
        words = sorted(vocab, key=vocab.get)
        words = words[: len(words) - drop]
        if shuffle is not None:
            keep = 3 if not shuffle else 0
            order = np.random.default_rng(shuffle).permutation(len(words) - keep) + keep
            words = words[:keep] + [words[i] for i in order]
        have = set(words)
        model["vocab"] = {w: i for i, w in enumerate(words)}
        pairs = [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
        model["merges"] = [[a, b] for a, b in pairs if a in have and b in have and a + b in have]
        for t in data["added_tokens"]:
            t["id"] = model["vocab"][t["content"]]
    t = Tokenizer.from_str(json.dumps(data))
    for token in add:
        (t.add_special_tokens if token.special else t.add_tokens)([token])
    t.add_special_tokens([AddedToken(f"<|ghost{i}|>", special=True, normalized=False) for i in range(ghosts)])
    names = {}
    if bos:
        names["bos_token"] = bos
    if eos:
        names["eos_token"] = eos
    return PreTrainedTokenizerFast(tokenizer_object=t, **names)


def special(text, **more):
    return AddedToken(text, special=True, normalized=False, **more)


def plain(text, **more):
    return AddedToken(text, special=False, normalized=True, **more)


def as_before(path, kind):
    """Rewrites a tokenizer's configuration as versions 4 of transformers write it, which most models of hubs have."""
    data = json.loads((path / "tokenizer.json").read_text())
    old = json.loads((path / "tokenizer_config.json").read_text())
    keys = ("lstrip", "normalized", "rstrip", "single_word", "special")
    config = {"add_prefix_space": False, "added_tokens_decoder": {str(t["id"]): {"content": t["content"], **{k: t[k] for k in keys}} for t in data["added_tokens"]},
              "clean_up_tokenization_spaces": False, "model_max_length": 256, "tokenizer_class": kind, "unk_token": None}
    if kind == "LlamaTokenizer":
        config.update(add_bos_token=True, add_eos_token=False, add_prefix_space=True, legacy=False, unk_token="<unk>")
    names = {k: {"content": old[k], "lstrip": False, "normalized": False, "rstrip": False, "single_word": False} for k in ("bos_token", "eos_token") if k in old}
    config.update({k: old[k] for k in names})
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
    (path / "special_tokens_map.json").write_text(json.dumps(names, indent=2, ensure_ascii=False))
    if "merges" in data["model"] and kind != "LlamaTokenizer":
        (path / "vocab.json").write_text(json.dumps(data["model"]["vocab"], ensure_ascii=False))
        merges = [" ".join(m) if isinstance(m, list) else m for m in data["model"]["merges"]]
        (path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
        extra = {t["content"]: t["id"] for t in data["added_tokens"] if t["content"] not in data["model"]["vocab"]}
        if extra:
            (path / "added_tokens.json").write_text(json.dumps(extra, indent=2))


def build(folder, name, tok, seed, rows=None, tied=False, dtype="float32", family="llama", template=None, before=None):
    """A tiny checkpoint with a tokenizer."""
    torch.manual_seed(seed)
    rows = rows or len(tok)
    ids = {"bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id}
    common = dict(vocab_size=rows, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=256, tie_word_embeddings=tied, **ids)
    config = {"llama": lambda: transformers.LlamaConfig(num_key_value_heads=2, **common), "phi": lambda: transformers.PhiConfig(**common), "qwen2": lambda: transformers.Qwen2Config(num_key_value_heads=2, **common)}[family]()
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p.float()).mul(0.5).to(p.dtype))
    model.tie_weights()
    path = folder / name
    model.save_pretrained(path)
    if template:
        tok.chat_template = template
    tok.save_pretrained(path)
    if before:
        as_before(path, before)


def tensors(path):
    from safetensors import safe_open

    out = {}
    for f in sorted(path.glob("*.safetensors")):
        with safe_open(f, "pt") as s:
            for k in s.keys():
                out[k] = s.get_tensor(k).double().numpy()
    return out


HEADS = {"lm_head.weight", "lm_head.bias"}


class Source:
    """An input: its tokens, its rows, its tensors."""

    def __init__(self, path):
        self.path = path
        self.tok = AutoTokenizer.from_pretrained(path)
        self.vocab = self.tok.get_vocab()
        self.tensors = tensors(path)
        self.rows = self.tensors["model.embed_tokens.weight"].shape[0]
        self.fair = None  # texts that transformers cuts as tokenizer.json says

    def id(self, token):
        i = self.vocab.get(token)
        return i if i is not None and i < self.rows else None

    def get(self, name):
        if name == "lm_head.weight" and name not in self.tensors:
            return self.tensors["model.embed_tokens.weight"]
        return self.tensors[name]

    def added(self):
        return {t.content: t for t in self.tok.added_tokens_decoder.values()}


def settings(recipe):
    """The tokenizer of a recipe in its long form."""
    return {"source": recipe.get("tokenizer_source", "union"), **recipe.get("tokenizer", {})}


def wanted_tokens(recipe, sources, order):
    """The tokens of the output by the definition, with the ids of those that must keep them."""
    kind = settings(recipe)["source"]
    if kind in ("union", "base"):
        base = sources[order[0]]
        tokens = {t: i for t, i in base.vocab.items() if i < base.rows}
        if kind == "union":
            for name in order[1:]:
                for t in sources[name].vocab:
                    if sources[name].id(t) is not None:
                        tokens.setdefault(t, None)
    else:
        tokens = dict(sources[kind].vocab)
    for t in settings(recipe).get("tokens") or {}:
        tokens.setdefault(t, None)
    return tokens


def aligned(recipe, sources, inputs, base, tokens, name):
    """Each input's matrix, row by token, by the definition: a list of dicts token -> row; and the mean for padding."""
    rules = (recipe.get("tokenizer") or {}).get("tokens") or {}
    mats = {m: sources[m].get(name) for m in inputs}
    out = {m: {} for m in inputs}
    for t in tokens:
        have = [m for m in inputs if sources[m].id(t) is not None]
        own = {m: mats[m][sources[m].id(t)] for m in have}
        rule = rules.get(t)
        default = None
        force = bool(rule and rule.get("force"))
        if rule and rule.get("source") is not None:
            src = rule["source"]
            if isinstance(src, str):
                default = sources[src].get(name)[sources[src].id(t)]
            elif src["kind"] == "zero":
                default = np.zeros_like(mats[inputs[0]][0])
            else:
                s = sources[src["model"]]
                default = s.get(name)[src["token_id"] if "token_id" in src else s.id(src["token"])]
        elif not have:
            default = np.zeros_like(mats[inputs[0]][0])
        elif len(have) == 1:
            default = own[have[0]]
        elif base in have:
            default = own[base]
        else:
            default = np.mean([own[m] for m in have], axis=0)
        for m in inputs:
            out[m][t] = own[m] if m in own and not force else default
    return out


def merged(recipe, rows, inputs):
    """The row of a token by the method, for the methods that the cases use."""
    method = recipe["merge_method"]
    weights = [((i.get("parameters") or {}).get("weight", 1.0)) for i in recipe["models"]]
    values = [rows[m] for m in inputs]
    if method == "passthrough":
        return values[0]
    if method == "linear":
        return sum(w * v for w, v in zip(weights, values)) / sum(weights)
    if method == "task_arithmetic":
        b = rows[recipe["base_model"]]
        return b + sum(w * (rows[i["model"]] - b) for w, i in zip(weights, recipe["models"]) if i["model"] != recipe["base_model"])
    raise ValueError(method)


class Check:
    def __init__(self):
        self.bad = []
        self.n = 0

    def __call__(self, ok, what):
        self.n += 1
        if not ok:
            self.bad.append(what)


def check_output(check, recipe, out, sources, dtype_tolerance):
    order = []
    if recipe.get("base_model"):
        order.append(recipe["base_model"])
    for i in recipe["models"]:
        if i["model"] not in order:
            order.append(i["model"])
    inputs = [i["model"] for i in recipe["models"]]
    base = recipe.get("base_model")
    if base and base not in inputs and recipe["merge_method"] != "passthrough":
        inputs.append(base)
    tok = AutoTokenizer.from_pretrained(out)
    vocab = tok.get_vocab()
    tokens = wanted_tokens(recipe, sources, order)
    check(set(vocab) == set(tokens), f"the tokens: {sorted(set(vocab) ^ set(tokens))[:5]}")
    check(all(i is None or vocab.get(t) == i for t, i in tokens.items()), "ids of the source's tokens have changed")
    check(sorted(vocab.values()) == list(range(len(vocab))), "ids are not 0, 1, 2, …")
    spec = settings(recipe)
    kind = spec["source"]
    first = sources[kind if kind not in ("union", "base") else order[0]]
    # Flags: of the first model in which the token is an added one.
    flags = {}
    for m in ([first.path.name] if kind != "union" else []) + (order if kind == "union" else []):
        for t, a in sources[m].added().items():
            flags.setdefault(t, a)
    for t, a in {x.content: x for x in tok.added_tokens_decoder.values()}.items():
        f = flags.get(t, AddedToken(t, normalized=True, special=False))
        check((a.special, a.normalized, a.lstrip, a.rstrip, a.single_word) == (f.special, f.normalized, f.lstrip, f.rstrip, f.single_word), f"flags of {t!r}: {a!r}, want {f!r}")
    rows = len(vocab)
    pad = spec.get("pad_to_multiple_of")
    if pad:
        rows = -(-rows // pad) * pad
    config = json.loads((out / "config.json").read_text())
    check(config["vocab_size"] == rows, f"vocab_size {config['vocab_size']}, want {rows}")
    made = tensors(out)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        if name not in made:
            check(name != "model.embed_tokens.weight", f"{name} is missing")
            continue
        have = [m for m in inputs if name == "lm_head.weight" or name in sources[m].tensors]
        parts = aligned(recipe, sources, have, base, tokens, name)
        check(made[name].shape[0] == rows, f"{name} has {made[name].shape[0]} rows, want {rows}")
        worst, which = 0.0, None
        for t in tokens:
            want = merged(recipe, {m: parts[m][t] for m in have}, have)
            d = np.abs(made[name][vocab[t]] - want).max()
            if d > worst:
                worst, which = d, t
        check(worst <= dtype_tolerance, f"{name}: the row of {which!r} is off by {worst:g}")
        if pad and rows > len(vocab):
            want = merged(recipe, {m: np.mean([parts[m][t] for t in tokens], axis=0) for m in have}, have)
            check(np.abs(made[name][len(vocab):] - want).max() <= dtype_tolerance, f"{name}: padding is off")
    return tok, vocab, first


def tokenized(program, path):
    """The ids of all texts by `mergekit tokenize`."""
    lines = "".join(json.dumps(t, ensure_ascii=False) + "\n" for t in TEXTS)
    done = subprocess.run([program, "tokenize", str(path), "--json", "--json-lines"], input=lines.encode(), capture_output=True)
    if done.returncode:
        return done.stderr.decode()[-300:]
    return [json.loads(line)["ids"] for line in done.stdout.decode().split("\n")[:-1]]


def check_text(check, program, out, tok, first, used):
    ours = tokenized(program, out)
    check(isinstance(ours, list), f"mergekit tokenize: {ours}")
    if not isinstance(ours, list):
        return
    # Some classes of transformers do not cut as the tokenizer.json beside them says, also before any merge.
    for s in used:
        if s.fair is None:
            before = tokenized(program, s.path)
            s.fair = {i for i, t in enumerate(TEXTS) if s.tok(t).input_ids == before[i]}
    fair = sorted(set.intersection(*(s.fair for s in used)))
    check(len(fair) > 100, f"only {len(fair)} texts are cut alike by the inputs")
    differ = [TEXTS[i] for i in fair if tok(TEXTS[i]).input_ids != ours[i]]
    check(not differ, f"`mergekit tokenize` cuts {len(differ)} texts otherwise than transformers: {differ[:2]}")
    new = set(tok.get_vocab()) - set(first.vocab)
    same = [t for t in TEXTS if not any(n in t for n in new)]
    differ = [t for t in same if tok(t).input_ids != first.tok(t).input_ids]
    check(not differ, f"{len(differ)} texts without new tokens are cut otherwise than before: {differ[:2]}")
    for t in sorted(new):
        if t in tok.added_tokens_encoder:
            check(tok.added_tokens_encoder[t] in tok("a" + t + "b", add_special_tokens=False).input_ids or not tok.added_tokens_decoder[tok.added_tokens_encoder[t]].special, f"{t!r} is not found in a text")


def check_model(check, out, tok):
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    check(not info["missing_keys"] and not info["mismatched_keys"] and not info["unexpected_keys"], f"loading: {info}")
    ids = torch.tensor([tok("The small test").input_ids or [0]])
    with torch.no_grad():
        logits = model(ids).logits
        check(bool(torch.isfinite(logits).all()) and logits.shape[-1] == model.config.vocab_size, "logits")
        model.generation_config.eos_token_id = None
        got = model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    check(got.shape[1] == ids.shape[1] + 3, "generate")
    check(model.get_input_embeddings().weight.shape[0] >= len(tok), "the embedding is smaller than the tokenizer")


def compare_peer(check, peer, text, folder, name, out, tok):
    """The peer's output of the same recipe, token by token."""
    file = folder / f"{name}.yml"
    theirs = folder / f"{name}-peer"
    done = subprocess.run([str(pathlib.Path(peer) / "mergekit-yaml"), str(file), str(theirs), "--allow-crimes", "--no-write-model-card"], capture_output=True, cwd=folder)
    if done.returncode or not (theirs / "config.json").exists():
        return "the peer fails: " + done.stderr.decode().strip().splitlines()[-1][:160]
    other = AutoTokenizer.from_pretrained(theirs)
    a, b = tok.get_vocab(), other.get_vocab()
    notes = []
    if set(a) != set(b):
        only, lack = sorted(set(a) - set(b)), sorted(set(b) - set(a))
        notes.append(f"tokens differ: {len(only)} only here {only[:3]}, {len(lack)} only there {lack[:3]}")
    mine = {t.content: t for t in tok.added_tokens_decoder.values()}
    their = {t.content: t for t in other.added_tokens_decoder.values()}
    differ = [t for t in mine if t in their and str(mine[t]) != str(their[t])]
    if set(mine) != set(their) or differ:
        notes.append(f"added tokens differ: {len(set(mine) ^ set(their))} in one, flags of {differ[:3]}")
    x, y = tensors(out), tensors(theirs)
    for k in sorted(set(x) | set(y)):
        if k not in x or k not in y:
            notes.append(f"{k} is in one only")
        elif "embed_tokens" in k or "lm_head" in k:
            shared = [t for t in a if t in b]
            d = np.abs(x[k][[a[t] for t in shared]] - y[k][[b[t] for t in shared]]).max()
            if d > 1e-5:
                notes.append(f"{k}: rows differ by {d:g}")
            if x[k].shape != y[k].shape and set(a) == set(b):
                notes.append(f"{k}: {x[k].shape[0]} rows here, {y[k].shape[0]} there")
        elif np.abs(x[k] - y[k]).max() > 1e-5:
            notes.append(f"{k} differs")
    return "; ".join(notes) or "equal"


def models(folder):
    chatml = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    build(folder, "base", fast("gpt2", bos="<|endoftext|>", eos="<|endoftext|>"), 1)
    build(folder, "chat", fast("gpt2", add=[special("<|user|>"), special("<|end|>", rstrip=True)], bos="<|endoftext|>", eos="<|end|>"), 2, template=chatml)
    build(folder, "tool", fast("gpt2", add=[plain("<tool>", single_word=True), special("<|end|>")], bos="<|endoftext|>", eos="<|endoftext|>"), 3, template=chatml)
    build(folder, "tied", fast("gpt2", add=[special("<|user|>")], bos="<|endoftext|>", eos="<|endoftext|>"), 4, tied=True)
    build(folder, "half", fast("gpt2", add=[special("<|pad|>")], bos="<|endoftext|>", eos="<|endoftext|>"), 5, dtype="bfloat16")
    build(folder, "mixed", fast("gpt2", drop=60, shuffle=7, bos="<|endoftext|>", eos="<|im_end|>"), 6)
    build(folder, "other", fast("smol", bos="<|endoftext|>", eos="<|endoftext|>"), 7)
    build(folder, "padded", fast("gpt2", bos="<|endoftext|>", eos="<|endoftext|>"), 8, rows=1536)
    build(folder, "ghosts", fast("gpt2", ghosts=5, bos="<|endoftext|>", eos="<|endoftext|>"), 9, rows=1502)
    build(folder, "phi", fast("gpt2", bos="<|endoftext|>", eos="<|endoftext|>"), 10, family="phi")
    build(folder, "phichat", fast("gpt2", add=[special("<|user|>")], bos="<|endoftext|>", eos="<|endoftext|>"), 11, family="phi")
    build(folder, "sp", fast("llama2", bos="<s>", eos="</s>"), 12)
    build(folder, "spchat", fast("llama2", add=[special("<|im|>"), plain("<new>")], bos="<s>", eos="</s>"), 13)
    build(folder, "v4llama", fast("llama2", bos="<s>", eos="</s>"), 16, before="LlamaTokenizer")
    build(folder, "v4llamachat", fast("llama2", add=[special("<|im|>"), plain("<new>")], bos="<s>", eos="</s>"), 17, before="LlamaTokenizer")
    build(folder, "v4qwen", fast("qwen", bos="<|endoftext|>", eos="<|im_end|>"), 18, before="Qwen2Tokenizer", family="qwen2")
    build(folder, "v4qwenchat", fast("qwen", add=[special("<|tool|>"), plain("<new>")], bos="<|endoftext|>", eos="<|im_end|>"), 19, before="Qwen2Tokenizer", family="qwen2")
    build(folder, "v4gpt2", fast("gpt2", bos="<|endoftext|>", eos="<|endoftext|>"), 20, before="GPT2Tokenizer")
    build(folder, "v4gpt2chat", fast("gpt2", add=[special("<|user|>"), special("<|end|>")], bos="<|endoftext|>", eos="<|end|>"), 21, before="GPT2Tokenizer")
    build(folder, "uni", fast("unigram", eos="</s>"), 14)
    build(folder, "unichat", fast("unigram", add=[special("<|im|>")], eos="</s>"), 15)


def two(a, b, wa=0.25, wb=0.75, method="linear", **more):
    r = {"merge_method": method, "models": [{"model": a, "parameters": {"weight": wa}}, {"model": b, "parameters": {"weight": wb}}]}
    r.update(more)
    return r


CASES = {
    "union": two("base", "chat", tokenizer_source="union"),
    "union_three": {"merge_method": "linear", "models": [{"model": m, "parameters": {"weight": w}} for m, w in (("base", 1.0), ("chat", 2.0), ("tool", 0.5))], "tokenizer_source": "union"},
    "union_base": two("chat", "tool", method="task_arithmetic", base_model="base", tokenizer={"source": "union"}),
    "union_ids": two("base", "mixed", tokenizer_source="union"),
    "union_reverse": two("mixed", "base", base_model="mixed", tokenizer_source="union"),
    "union_words": two("base", "other", tokenizer_source="union"),
    "base": two("chat", "tool", base_model="base", method="task_arithmetic", tokenizer_source="base"),
    "base_first": two("mixed", "chat", base_model="mixed", tokenizer_source="base"),
    "model": two("base", "mixed", tokenizer_source="mixed"),
    "model_larger": two("base", "chat", tokenizer_source="chat"),
    "empty": two("base", "chat", tokenizer={}),
    "pad": two("base", "chat", tokenizer={"source": "union", "pad_to_multiple_of": 64}),
    "shrinks": two("padded", "base", tokenizer_source="union"),
    "shrinks_pad": two("padded", "chat", tokenizer={"source": "union", "pad_to_multiple_of": 128}),
    "ghosts": two("ghosts", "chat", tokenizer_source="union"),
    "ghosts_other": two("chat", "ghosts", tokenizer_source="union"),
    "ghosts_base": two("ghosts", "base", base_model="ghosts", tokenizer_source="base"),
    "tied": two("tied", "base", tokenizer_source="union"),
    "tied_both": {"merge_method": "passthrough", "models": [{"model": "tied"}], "tokenizer_source": "base"},
    "half": two("half", "chat", tokenizer_source="union", dtype="float32"),
    "rules": two("base", "chat", tokenizer={"source": "union", "pad_to_multiple_of": 8, "tokens": {
        "<|user|>": {"source": {"kind": "model_token", "model": "base", "token": "<|im_start|>"}},
        "<|end|>": {"source": "chat", "force": True},
        "<|im_end|>": {"source": {"kind": "zero"}, "force": True},
        "<|endoftext|>": {"source": {"kind": "model_token", "model": "chat", "token_id": 5}, "force": True},
        "<new>": {"source": {"kind": "model_token", "model": "base", "token": "a"}}}}),
    "rules_zero": two("base", "chat", tokenizer={"source": "union", "tokens": {"<|user|>": {"source": {"kind": "zero"}}}}),
    "reorder": {"merge_method": "passthrough", "models": [{"model": "base"}], "tokenizer_source": "mixed"},
    "phi": two("phi", "phichat", tokenizer={"source": "union", "pad_to_multiple_of": 16}),
    "sentencepiece": two("sp", "spchat", tokenizer_source="union"),
    "sentencepiece_base": two("sp", "spchat", base_model="sp", tokenizer_source="base"),
    "unigram": two("uni", "unichat", tokenizer_source="union"),
    "v4_llama": two("v4llama", "v4llamachat", tokenizer_source="union"),
    "v4_llama_model": two("v4llama", "v4llamachat", tokenizer_source="v4llamachat"),
    "v4_qwen": two("v4qwen", "v4qwenchat", tokenizer={"source": "union", "pad_to_multiple_of": 64}),
    "v4_gpt2": two("v4gpt2", "v4gpt2chat", tokenizer_source="union"),
    "v4_gpt2_new": two("v4gpt2", "v4gpt2chat", tokenizer={"source": "base", "tokens": {"<new>": {"source": {"kind": "model_token", "model": "v4gpt2", "token": "a"}}}}),
    "template_auto": two("chat", "tool", tokenizer_source="union", chat_template="auto"),
    "template_llama3": two("base", "chat", tokenizer_source="union", chat_template="llama3"),
    "template_literal": two("base", "chat", base_model="base", tokenizer_source="base", chat_template="{% for m in messages %}[{{ m['content'] }}]{% endfor %}"),
}
# What the merged checkpoint is stored in decides how near a row can be.
TOLERANCE = collections.defaultdict(lambda: 2e-6)


def main():
    program, folder = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    names = sys.argv[3:] or list(CASES)
    peer = os.environ.get("MERGEKIT_PEER")
    models(folder)
    bad, checks = 0, 0
    sources = {}
    for name in names:
        recipe = CASES[name]
        file = folder / f"{name}.yml"
        file.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        out = folder / f"{name}-out"
        done = subprocess.run([program, "merge", "--quiet", str(file), str(out)], capture_output=True)
        check = Check()
        note = ""
        if done.returncode:
            check(False, done.stderr.decode()[-400:])
        else:
            used = [i["model"] for i in recipe["models"]] + [recipe.get("base_model"), settings(recipe)["source"]]
            for m in used:
                if m and (folder / m).is_dir() and m not in sources:
                    sources[m] = Source(folder / m)
            tok, _, first = check_output(check, recipe, out, sources, TOLERANCE[name])
            check_text(check, program, out, tok, first, [sources[m] for m in used if m in sources])
            check_model(check, out, tok)
            if recipe.get("chat_template"):
                text = tok.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
                want = {"template_auto": "<|im_start|>user\nHi<|im_end|>\n", "template_llama3": "<|endoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "template_literal": "[Hi]"}[name]
                check(text == want, f"the template writes {text!r}")
            if peer:
                note = ", peer: " + compare_peer(check, peer, recipe, folder, name, out, tok)
        checks += check.n
        bad += bool(check.bad)
        print(f"{name}: {'ok' if not check.bad else 'NOT OK'} ({check.n} checks){note}", flush=True)
        for what in check.bad:
            print("  " + what)
    print(f"{len(names)} cases, {checks} checks, {bad} cases not as they should be")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
