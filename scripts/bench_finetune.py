"""Runs both programs in turn and reads their figures; called by bench-finetune."""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

program, model, folder = sys.argv[1:4]
folder = pathlib.Path(folder)
runs, steps = int(os.environ.get("RUNS", 3)), int(os.environ.get("STEPS", 6))
threads = int(os.environ.get("THREADS", 2))
batch, length = int(os.environ.get("BATCH", 4)), int(os.environ.get("LENGTH", 256))
rank = int(os.environ.get("RANK", 16))
targets = os.environ.get("TARGETS", "q_proj v_proj")
backend = os.environ.get("BACKEND", "xla:cpu")

vocab = json.loads((pathlib.Path(model) / "config.json").read_text())["vocab_size"]
state = 12345
rows = []
for _ in range(batch * steps):
    ids = []
    for _ in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % (vocab - 100) + 50)
    rows.append(ids)
data = folder / "rows.jsonl"
data.write_text("".join(json.dumps({"input_ids": r, "labels": r}) + "\n" for r in rows))

peer = folder / "peer.py"
peer.write_text(f'''
import json, resource, sys, time
start = time.perf_counter()
import torch
torch.set_num_threads({threads})
from transformers import AutoModelForCausalLM
from peft import LoraConfig, get_peft_model
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained({str(model)!r}, dtype=torch.float32, attn_implementation="sdpa")
targets = {targets!r}
model = get_peft_model(model, LoraConfig(r={rank}, lora_alpha={2 * rank}, lora_dropout=0.0, task_type="CAUSAL_LM",
    target_modules="all-linear" if targets == "all-linear" else targets.split()))
model.train()
params = [p for p in model.parameters() if p.requires_grad]
optim = torch.optim.AdamW(params, lr=2e-4, weight_decay=0.0)
rows = [json.loads(l)["input_ids"] for l in open({str(data)!r})]
for step in range({steps}):
    t = time.perf_counter()
    ids = torch.tensor(rows[step * {batch}:(step + 1) * {batch}])
    loss = model(input_ids=ids, labels=ids).loss
    optim.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optim.step()
    print(json.dumps(dict(step=step + 1, loss=loss.item(), ms=(time.perf_counter() - t) * 1e3)), flush=True)
print(json.dumps(dict(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)), flush=True)
''')

config = folder / "ours.yml"
config.write_text(f'''version: 1
run: {{output_dir: {folder}/ours, seed: 1, backend: "{backend}", threads: {threads}}}
model: {{base: {model}, dtype: float32}}
method: sft
tune: lora
lora: {{r: {rank}, alpha: {2 * rank}, target_modules: {"all-linear" if targets == "all-linear" else "[" + ", ".join(targets.split()) + "]"}}}
data: {{train: [{{path: {data}, format: tokens}}], max_length: {length}, shuffle: false, packing: none, buckets: [{length}]}}
optim: {{lr: 2.0e-4, weight_decay: 0.0}}
schedule: {{kind: constant, warmup_ratio: 0}}
train: {{max_steps: {steps}, micro_batch: {batch}, grad_accum: 1}}
eval: {{every: 0}}
save: {{every: 0}}
''')


def run(command, env):
    """First step after start (s), step times after the first (ms), losses, peak memory (bytes)."""
    log = open(folder / "last.log", "w")
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **env})
    first, times, losses, peak = None, [], [], 0
    for line in p.stdout:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        m = row.get("metrics", row)
        if "loss" in m and "step" in m and row.get("event", "step") == "step":
            if first is None:
                first = time.perf_counter() - start
            else:
                times.append(m.get("step_ms", m.get("ms")))
            losses.append(m["loss"])
        peak = max(peak, row.get("peak", 0), m.get("mem_peak", 0) or 0)
    if p.wait():
        sys.exit(f"{command} failed:\n" + (folder / "last.log").read_text()[-3000:])
    return first, times, losses, peak


ours_cmd = [program, "finetune", str(config), "--force", "--json"]
# A current torch on this processor is faster without the settings that old builds of OpenBLAS need.
peer_env = {k: "" for k in ()}
for k in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(k, None)
peer_env.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1")
cache = folder / "compiled"
shutil.rmtree(cache, ignore_errors=True)
kinds = {
    "ours": (ours_cmd, dict(MERGEKIT_COMPILE_CACHE=str(cache))),
    "peer": ([sys.executable, str(peer)], peer_env),
    "cold": (ours_cmd + ["--set", "train.max_steps=2"], dict(MERGEKIT_COMPILE_CACHE="off")),
}
figures = {k: dict(first=[], step=[], peak=[], losses=None) for k in kinds}
print(f"{model}: batch {batch} x {length}, LoRA r={rank} on {targets}, float32, {threads} threads, {runs} runs of {steps} steps each, in turn", flush=True)
for i in range(runs + 1):  # the first round fills the page cache and the cache of compiled programs, and does not count
    for name, (command, env) in kinds.items():
        first, times, losses, peak = run(command, env)
        f = figures[name]
        f["losses"] = losses
        if i:
            f["first"].append(first)
            f["step"].append(statistics.median(times))
            f["peak"].append(peak)
            print(f"run {i} {name}: first step after {first:.2f} s, step {statistics.median(times):.0f} ms, peak {peak / 1e9:.2f} GB", flush=True)
shutil.rmtree(folder / "ours", ignore_errors=True)

print(f"\n{'':34} {'ours':>9} {'peer':>9} {'ratio':>7}   ratios of the runs, in pairs")
for label, who, key, scale, unit in (
    ("step time", "ours", "step", 1e-3, "s"),
    ("first finished step, nothing cached", "cold", "first", 1, "s"),
    ("first finished step, compiled before", "ours", "first", 1, "s"),
    ("peak resident memory", "ours", "peak", 1e-9, "GB"),
    ("peak resident memory, compiling", "cold", "peak", 1e-9, "GB"),
):
    mine, theirs = figures[who][key], figures["peer"][key]
    a, b = statistics.median(mine), statistics.median(theirs)
    print(f"{label:38} {a * scale:7.2f} {unit:2}{b * scale:7.2f} {unit:2}{a / b:7.2f}x   " + " ".join(f"{x / y:.2f}" for x, y in zip(mine, theirs)))
print("tokens/s", *(f"{name} {batch * length / statistics.median(figures[name]['step']) * 1e3:.0f}" for name in ("ours", "peer")))
print("losses ours", " ".join(f"{x:.4f}" for x in figures["ours"]["losses"]))
print("losses peer", " ".join(f"{x:.4f}" for x in figures["peer"]["losses"]), "(A is drawn by each program's own generator: the first must agree, later ones nearly)")
