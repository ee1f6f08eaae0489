"""The recipes of scripts/compat: name, YAML, how this program is called, and the reason if the outcome is to differ.

Paths are names of the golden models. "native" recipes run with --arith native, which rounds as the peer does; random methods run with the peer's
generator and seed 7. A reason begins with the part of the outcome that differs: tensors, config, vocabulary, chat template, peer fails, refused here.
"""

SEED = 7


def models(names, **each):
    lines = ["models:"]
    for i, n in enumerate(names):
        lines.append(f"- model: {n}")
        own = {k: v[i] for k, v in each.items() if v[i] is not None}
        if own:
            lines.append("  parameters:")
            lines += [f"    {k}: {v}" for k, v in own.items()]
    return "\n".join(lines)


def recipe(method, body, base=None, shared=None, dtype=None, more=""):
    lines = [f"merge_method: {method}"]
    if base:
        lines.append(f"base_model: {base}")
    lines.append(body)
    if shared:
        lines.append("parameters:")
        lines += [f"  {k}: {v}" for k, v in shared.items()]
    if dtype:
        lines.append(f"dtype: {dtype}")
    return "\n".join(lines) + "\n" + more


def method_recipes():
    """Every method of the peer in float32, and in bfloat16 with the arithmetic of the storage dtype."""
    for dtype, tail in (("float32", ""), ("bfloat16", "-bf16")):
        base, a, b, c = ("base" + tail, "ft1" + tail, "ft2" + tail, "ft3" if not tail else "ft2" + tail)
        w2 = dict(weight=[0.6, 0.4])
        sparse = dict(weight=[0.6, 0.4], density=[0.5, 0.7])
        three = [a, b, c] if not tail else [a, b]
        rows = {
            "linear": recipe("linear", models([a, b], **w2)),
            "slerp": recipe("slerp", models([base, a]), base, dict(t=0.35)),
            "nuslerp": recipe("nuslerp", models([a, b], **w2)),
            "nuslerp_base_rows": recipe("nuslerp", models([a, b], **w2), base, dict(nuslerp_flatten="false", nuslerp_row_wise="true")),
            "multislerp": recipe("multislerp", models(three, weight=[0.5, 0.3, 0.2][: len(three)]), base),
            "karcher": recipe("karcher", models(three), None, dict(max_iter=10)),
            "passthrough_scale": recipe("passthrough", models([a], scale=[0.5])),
            "task_arithmetic": recipe("task_arithmetic", models([a, b], **w2), base, {"lambda": 0.8}),
            "ties": recipe("ties", models([a, b], **sparse), base, dict(normalize="true", int8_mask="true")),
            "dare_ties": recipe("dare_ties", models([a, b], **sparse), base),
            "dare_linear": recipe("dare_linear", models([a, b], **sparse), base),
            "breadcrumbs": recipe("breadcrumbs", models([a, b], gamma=[0.01, 0.05], **sparse), base),
            "breadcrumbs_ties": recipe("breadcrumbs_ties", models([a, b], gamma=[0.01, 0.05], **sparse), base),
            "della": recipe("della", models([a, b], epsilon=[0.1, 0.15], **sparse), base),
            "della_linear": recipe("della_linear", models([a, b], epsilon=[0.1, 0.15], **sparse), base),
            "sce": recipe("sce", models([a, b]), base, dict(select_topk=0.4)),
            "model_stock": recipe("model_stock", models([base, a, b]), base),
            "model_stock_filters": recipe("model_stock", models([base, a, b]), base, dict(filter_wise="true")),
            "nearswap": recipe("nearswap", models([base, a]), base, dict(t=0.001)),
            "arcee_fusion": recipe("arcee_fusion", models([base, a]), base),
            "ram": recipe("ram", models([a, b]), base),
            "ramplus_tl": recipe("ramplus_tl", models([a, b]), base, dict(r=0.1, alpha=0.2)),
        }
        for name, text in rows.items():
            yield f"{name} {dtype}", text + f"dtype: {dtype}\n", dtype != "float32"


SLICES = """merge_method: {method}
{base}slices:
- sources:
{first}
- sources:
{second}
{more}dtype: float32
"""


def source(model, lo, hi, params=None):
    s = f"  - model: {model}\n    layer_range: [{lo}, {hi}]"
    if params:
        s += f"\n    parameters: {{{params}}}"
    return s


FORMS = [
    ("stack of two models", SLICES.format(method="passthrough", base="", more="", first=source("base", 0, 3), second=source("ft1", 1, 4))),
    ("stack from a deeper model", SLICES.format(method="passthrough", base="", more="", first=source("base", 0, 2), second=source("deep", 2, 6))),
    ("stack that repeats layers", SLICES.format(method="passthrough", base="", more="", first=source("ft1", 0, 3), second=source("ft1", 2, 4))),
    ("slices that blend", SLICES.format(method="linear", base="", more="", first=source("base", 0, 2, "weight: 0.4") + "\n" + source("ft1", 0, 2, "weight: 0.6"),
                                        second=source("ft2", 2, 4, "weight: 0.5") + "\n" + source("ft1", 2, 4, "weight: 0.5"))),
    ("slices of shifted layers", SLICES.format(method="linear", base="", more="", first=source("base", 0, 2, "weight: 1") + "\n" + source("ft1", 1, 3, "weight: 1"),
                                               second=source("base", 2, 4, "weight: 1") + "\n" + source("ft1", 0, 2, "weight: 3"))),
    ("slerp over slices", SLICES.format(method="slerp", base="base_model: base\n", more="parameters:\n  t: [0, 0.5, 1]\n", first=source("base", 0, 2) + "\n" + source("ft1", 0, 2),
                                        second=source("base", 2, 4) + "\n" + source("ft1", 2, 4))),
    ("a slice of one layer", SLICES.format(method="slerp", base="base_model: base\n", more="parameters:\n  t: [0.1, 0.9]\n", first=source("base", 0, 1) + "\n" + source("ft1", 0, 1),
                                           second=source("base", 1, 4) + "\n" + source("ft1", 1, 4))),
    ("gradient of t", recipe("slerp", models(["base", "ft1"]), "base", {"t": "[0, 0.5, 0.3, 0.7, 1]"}, "float32")),
    ("filters of t", "merge_method: slerp\nbase_model: base\n" + models(["base", "ft1"]) + "\nparameters:\n  t:\n  - filter: self_attn\n    value: [0, 0.5, 0.3, 0.7, 1]\n  - filter: mlp\n    value: [1, 0.5, 0.7, 0.3, 0]\n  - value: 0.5\ndtype: float32\n"),
    ("gradients of weight and density", "merge_method: ties\nbase_model: base\nmodels:\n- model: ft1\n  parameters: {density: [1, 0.7, 0.1], weight: 1.0}\n- model: ft2\n  parameters:\n    density: 0.5\n    weight: [0, 0.3, 0.7, 1]\n- model: ft3\n  parameters:\n    density: 0.33\n    weight:\n    - filter: mlp\n      value: 0.5\n    - value: 0\nparameters:\n  normalize: true\n  int8_mask: true\ndtype: float32\n"),
    ("filters of scale", "merge_method: passthrough\nmodels:\n- model: ft1\n  parameters:\n    scale:\n    - filter: down_proj\n      value: 0.5\n    - filter: o_proj\n      value: [0.2, 0.8]\n    - value: 1.0\ndtype: float32\n"),
    ("weights that are not normalised", recipe("linear", models(["ft1", "ft2", "ft3"], weight=[0.5, 0.5, 0.5]), None, dict(normalize="false"), "float32")),
    ("a weight for all", recipe("linear", models(["ft1", "ft2"]), None, dict(weight=1.0), "float32")),
    ("negative weights", recipe("task_arithmetic", models(["ft1", "ft2"], weight=[1.0, -0.5]), "base", None, "float32")),
    ("no normalisation in ties", recipe("ties", models(["ft1", "ft2"], weight=[0.8, 0.9], density=[0.4, 0.6]), "base", {"normalize": "false", "lambda": 1.3}, "float32")),
    ("ties that rescales", recipe("ties", models(["ft1", "ft2"], weight=[0.8, 0.9], density=[0.4, 0.6]), "base", {"rescale": "true"}, "float32")),
    ("the base among the models", recipe("ties", models(["base", "ft1", "ft2"], weight=[None, 0.5, 0.5], density=[None, 0.5, 0.5]), "base", None, "float32")),
    ("YAML 1.1", "merge_method: ties\nbase_model: base\nmodels:\n- {model: ft1, parameters: {weight: '0.5', density: 5e-1}}\n- {model: ft2, parameters: {weight: 1, density: .5}}\nparameters: {normalize: yes, int8_mask: off}\ndtype: float32\n"),
    ("modules", "merge_method: linear\nmodules:\n  default:\n    models:\n    - {model: ft1, parameters: {weight: 0.3}}\n    - {model: ft2, parameters: {weight: 0.7}}\ndtype: float32\n"),
]

DTYPES = [
    ("linear, out in bfloat16", recipe("linear", models(["ft1", "ft2"], weight=[0.5, 0.5]), None, None, "float32", "out_dtype: bfloat16\n")),
    ("linear of float16 and bfloat16", recipe("linear", models(["ft3-f16", "ft1-bf16"], weight=[0.5, 0.5])), "native"),
    ("ties in float32, out in float16", recipe("ties", models(["ft1-bf16", "ft2-bf16"], weight=[0.5, 0.5], density=[0.5, 0.5]), "base-bf16", None, "float32", "out_dtype: float16\n")),
    ("slerp in float64", recipe("slerp", models(["base", "ft1"]), "base", dict(t=0.5), "float64")),
    ("task arithmetic without dtype", recipe("task_arithmetic", models(["ft1-bf16", "ft2-bf16"], weight=[0.5, 0.5]), "base-bf16"), "native"),
]

ARCHITECTURES = [
    ("GPT-2", recipe("linear", models(["gpt2", "gpt2-ft1"], weight=[0.5, 0.5]), None, None, "float32")),
    ("GPT-2, ties", recipe("ties", models(["gpt2-ft1"], weight=[0.7], density=[0.5]), "gpt2", None, "float32")),
    ("Qwen2 with biases", recipe("ties", models(["qwen-ft1"], weight=[0.7], density=[0.5]), "qwen", None, "float32")),
    ("tied embeddings", recipe("slerp", models(["tied", "tied-ft1"]), "tied", dict(t=0.5), "float32")),
    ("tied and untied", recipe("linear", models(["tied", "ft1"], weight=[0.5, 0.5]), None, None, "float32")),
    ("BERT", recipe("linear", models(["bert", "bert-ft1"], weight=[0.5, 0.5]), None, None, "float32")),
    ("an adapter", recipe("linear", models(["base+lora1", "ft1"], weight=[0.5, 0.5]), None, None, "float32")),
    ("two adapters in ties", recipe("ties", models(["base+lora1", "base+lora2"], weight=[0.5, 0.5], density=[0.8, 0.8]), "base", None, "float32")),
]


def vocabulary(more, method="linear", base=None, names=("base", "vocabB", "vocabC")):
    body = models(list(names), weight=[0.5, 0.3, 0.2][: len(names)]) if method == "linear" else models(list(names))
    return recipe(method, body, base, dict(t=0.5) if method == "slerp" else None, "float32", more)


VOCABULARIES = [
    ("tokenizer_source: union", vocabulary("tokenizer_source: union\n", base="base")),
    ("tokenizer_source: base", vocabulary("tokenizer_source: base\n", base="base")),
    ("tokenizer_source: a model", vocabulary("tokenizer_source: vocabB\n", base="base")),
    ("tokenizer: union", vocabulary("tokenizer:\n  source: union\n", base="base")),
    ("tokenizer: without settings", vocabulary("tokenizer: {}\n", base="base")),
    ("tokens from a model", vocabulary("tokenizer:\n  source: union\n  tokens:\n    <|im_start|>:\n      source: vocabB\n", base="base")),
    ("a token that is forced", vocabulary("tokenizer:\n  source: union\n  tokens:\n    <extra_b1>:\n      source: vocabB\n      force: true\n", base="base")),
    ("a token of zeros", vocabulary("tokenizer:\n  source: union\n  tokens:\n    '<brand-new>':\n      source: {kind: zero}\n", base="base")),
    ("a token as another", vocabulary("tokenizer:\n  source: union\n  tokens:\n    '<brand-new>':\n      source: {kind: model_token, model: base, token_id: 42}\n", base="base")),
    ("padding", vocabulary("tokenizer:\n  source: union\n  pad_to_multiple_of: 64\n", base="base")),
    ("slerp over a union", vocabulary("tokenizer:\n  source: union\n", "slerp", "base", ("base", "vocabB"))),
    ("ties over a base", recipe("ties", models(["vocabB", "vocabC"], weight=[0.5, 0.5], density=[0.6, 0.6]), "base", None, "float32", "tokenizer_source: base\n")),
    ("chat_template: chatml", vocabulary("chat_template: chatml\n", names=("base", "ft1"))),
    ("chat_template: auto", vocabulary("chat_template: auto\n", names=("base", "ft1"))),
    ("chat_template: Jinja", vocabulary("chat_template: \"{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}\"\n", names=("base", "ft1"))),
]

# After the examples of the peer's documentation, on models of the size of its tests.
EXAMPLES = [
    ("example: gradient slerp", "slices:\n  - sources:\n      - model: base\n        layer_range: [0, 4]\n      - model: ft1\n        layer_range: [0, 4]\nmerge_method: slerp\nbase_model: base\nparameters:\n  t:\n    - filter: self_attn\n      value: [0, 0.5, 0.3, 0.7, 1]\n    - filter: mlp\n      value: [1, 0.5, 0.7, 0.3, 0]\n    - value: 0.5\ndtype: float16\n", "native"),
    ("example: linear of three", "models:\n  - model: ft1\n    parameters:\n      weight: 1.0\n  - model: ft2\n    parameters:\n      weight: 0.3\n  - model: ft3\n    parameters:\n      weight: 0.5\nmerge_method: linear\ndtype: float16\n", "native"),
    ("example: passthrough to more layers", "slices:\n  - sources:\n    - model: ft1\n      layer_range: [0, 3]\n  - sources:\n    - model: ft2\n      layer_range: [1, 4]\n  - sources:\n    - model: ft1\n      layer_range: [2, 4]\nmerge_method: passthrough\ndtype: float16\n", "native"),
    ("example: model stock", "models:\n  - model: ft1\n  - model: ft2\n  - model: ft3\nbase_model: base\nmerge_method: model_stock\ndtype: float32\n"),
    ("example: scaled copies of layers", "slices:\n  - sources:\n    - model: base\n      layer_range: [0, 3]\n  - sources:\n    - model: base\n      layer_range: [2, 4]\n      parameters:\n        scale:\n          - filter: o_proj\n            value: 0.0\n          - filter: down_proj\n            value: 0.0\n          - value: 1.0\nmerge_method: passthrough\ndtype: float32\n"),
]

TIES = "many entries of bfloat16 task vectors have the same magnitude, and of those at a cut the peer keeps arbitrary ones, here the lower index: "
AT_CUT = ("tensors", TIES + "checked, only entries at a cut differ")

# name: what differs, why, and how that is checked (see compat.py).
REASONS = {
    "BERT": ("peer fails", "its description of BertModel has optional weights with aliases, which its planner cannot take"),
    "tied and untied": ("config", "the peer writes an lm_head and leaves tie_word_embeddings true, so that loaders ignore it; here it becomes false", "luck"),
    "ties bfloat16": (*AT_CUT, "cuts"),
    "ties in float32, out in float16": (*AT_CUT, "cuts"),
    "breadcrumbs bfloat16": (*AT_CUT, "cuts"),
    "breadcrumbs_ties bfloat16": (*AT_CUT, "cuts"),
    "della bfloat16": ("tensors", TIES.replace("of those at a cut the peer keeps arbitrary ones, here the lower index", "the peer ranks equal ones arbitrarily, here by index")
                       + "checked, without such entries both are equal", "untied"),
    "della_linear bfloat16": ("tensors", TIES.replace("of those at a cut the peer keeps arbitrary ones, here the lower index", "the peer ranks equal ones arbitrarily, here by index")
                              + "checked, without such entries both are equal", "untied"),
    "sce bfloat16": ("tensors", TIES.replace("magnitude", "variance") + "checked, without such entries both are equal", "untied"),
    "karcher bfloat16": ("tensors", "ten iterations in bfloat16 carry on roundings of sums that are taken in another order; checked, over all tensors this program is no further from the mean on the sphere in float64 than the peer", "nearer"),
    "arcee_fusion float32": ("tensors", "divergences of close rows nearly cancel, and in float32 a few entries fall on the other side of the threshold; here they are float64; checked, "
                             "at most one entry in a thousand is another choice, and every one is the base's or the model's", "choices"),
    "arcee_fusion bfloat16": ("tensors", "the peer writes float32 where config.json says bfloat16; here the file has the dtype of config.json; checked, rounded to it both are equal", "rounded"),
    "ramplus_tl bfloat16": ("tensors", "the peer writes float32 where config.json says bfloat16; here the file has the dtype of config.json; checked, rounded to it both are equal", "rounded"),
    "linear of float16 and bfloat16": ("config", "without a base the peer takes the configuration of any model, another one in other runs, and its dtype; here it is the dtype that the tensors have", "luck"),
}


def all_recipes():
    for name, text, native in method_recipes():
        yield name, text, native
    for group in (FORMS, DTYPES, ARCHITECTURES, VOCABULARIES, EXAMPLES):
        for row in group:
            yield row[0], row[1], len(row) > 2
