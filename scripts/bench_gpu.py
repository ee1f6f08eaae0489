"""Trains LoRA on one GPU with both programs in turn; called by bench-gpu. Weights are random: throughput does not depend on them."""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time

program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
backend = os.environ.get("BACKEND", "xla:cuda")
runs, steps = int(os.environ.get("RUNS", 2)), int(os.environ.get("STEPS", 16))
rank = int(os.environ.get("RANK", 16))
settings = os.environ.get("SETTINGS", "")  # further settings of ours, separated by spaces

LLAMA3 = dict(rope_type="llama3", factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192)
# name: hidden, FFN, layers, heads, KV heads, head width, vocabulary, tied, rope; rows, length; the target in tokens/s
SHAPES = {
    "smollm2-135m": (576, 1536, 30, 9, 3, 64, 49152, True, None),
    "llama-3.2-1b": (2048, 8192, 16, 32, 8, 64, 128256, True, LLAMA3),
    "llama-3.1-8b": (4096, 14336, 32, 32, 8, 128, 128256, False, dict(LLAMA3, factor=8.0)),
}
TARGETS = {"smollm2-135m": 140e3, "llama-3.2-1b": 35e3, "llama-3.1-8b": 6.5e3}
cases = os.environ.get("CASES", "smollm2-135m:8x1024 smollm2-135m:8x2048 llama-3.2-1b:4x2048 llama-3.1-8b:2x2048").split()

MAKE = '''
import sys, json, torch
from transformers import LlamaConfig, LlamaForCausalLM
c = json.loads(sys.argv[1])
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
with torch.device("cuda"):
    m = LlamaForCausalLM(LlamaConfig(**c))
m.save_pretrained(sys.argv[2], max_shard_size="5GB")
'''

PEER = '''
import json, sys, time
import torch
from transformers import AutoModelForCausalLM
from peft import LoraConfig, get_peft_model
model_dir, data, rank, steps, batch, checkpointing, compiled = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:8])
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16, attn_implementation="sdpa").cuda()
if checkpointing:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules="all-linear"))
model.train()
model.config.use_cache = False
params = [p for p in model.parameters() if p.requires_grad]
optim = torch.optim.AdamW(params, lr=2e-4, weight_decay=0.0, fused=True)
run = torch.compile(model) if compiled else model
rows = [json.loads(l)["input_ids"] for l in open(data)]
for step in range(steps):
    torch.cuda.synchronize()
    t = time.perf_counter()
    ids = torch.tensor(rows[step * batch:(step + 1) * batch], device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = run(input_ids=ids, labels=ids).loss
    optim.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optim.step()
    value = loss.item()
    torch.cuda.synchronize()
    print(json.dumps(dict(step=step + 1, loss=value, ms=(time.perf_counter() - t) * 1e3)), flush=True)
print(json.dumps(dict(peak=torch.cuda.max_memory_allocated())), flush=True)
'''


def used():
    out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True).stdout
    return int(out.split()[0]) << 20


def run(command):
    """Step times after the third (ms), losses, first step after (s), peak of the card's memory (bytes)."""
    peak, over = [used()], threading.Event()
    floor = peak[0]

    def watch():
        while not over.wait(0.2):
            peak[0] = max(peak[0], used())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    with open(folder / "last.log", "w") as log:
        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        first, times, losses = None, [], []
        for line in p.stdout:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            m = row.get("metrics", row)
            if "loss" in m and "step" in m and row.get("event", "step") == "step":
                first = first or time.perf_counter() - start
                times.append(m.get("step_ms", m.get("ms")))
                losses.append(m["loss"])
        code = p.wait()
    over.set()
    watcher.join()
    if code:
        print(f"{command} failed ({code}):\n" + (folder / "last.log").read_text()[-1500:], flush=True)
        return None
    return times[3:], losses, first, peak[0] - floor


folder.mkdir(parents=True, exist_ok=True)
(folder / "make.py").write_text(MAKE)
(folder / "peer.py").write_text(PEER)
print(subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip())
print(f"LoRA r={rank} on every linear map, bfloat16, {runs} runs of {steps} steps each, in turn; medians of the steps after the third")
print(f"{'case':24} {'who':16} {'tokens/s':>9} {'ms/step':>8} {'first step':>10} {'card GB':>8}  losses")
for case in cases:
    name, shape = case.split(":")
    rows, length = map(int, shape.split("x"))
    hidden, ffn, layers, heads, kv, width, vocab, tied, rope = SHAPES[name]
    model = folder / name
    if not (model / "config.json").exists():
        config = dict(hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv,
                      head_dim=width, vocab_size=vocab, tie_word_embeddings=tied, max_position_embeddings=8192, initializer_range=0.02, rms_norm_eps=1e-5,
                      rope_theta=500000.0, **(dict(rope_scaling=rope) if rope else {}))
        subprocess.run([sys.executable, folder / "make.py", json.dumps(config), model], check=True, stderr=subprocess.DEVNULL)
    data, state = folder / "rows.jsonl", 12345
    with open(data, "w") as f:
        for _ in range(rows * steps):
            ids = []
            for _ in range(length):
                state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
                ids.append((state >> 33) % (vocab - 100) + 50)
            f.write(json.dumps(dict(input_ids=ids, labels=ids)) + "\n")
    (folder / "ours.yml").write_text(f'''version: 1
run: {{output_dir: {folder}/ours, seed: 1, backend: "{backend}"}}
model: {{base: {model}, dtype: bfloat16}}
method: sft
tune: lora
lora: {{r: {rank}, alpha: {2 * rank}, target_modules: all-linear}}
data: {{train: [{{path: {data}, format: tokens}}], max_length: {length}, shuffle: false, packing: none, buckets: [{length}]}}
optim: {{lr: 2.0e-4, weight_decay: 0.0}}
schedule: {{kind: constant, warmup_ratio: 0}}
train: {{max_steps: {steps}, micro_batch: {rows}, grad_accum: 1}}
eval: {{every: 0}}
save: {{every: 0}}
''')
    ours = [program, "finetune", str(folder / "ours.yml"), "--force", "--json"]
    for s in settings.split():
        ours += ["--set", s]
    whole = [sys.executable, str(folder / "peer.py"), str(model), str(data), str(rank), str(steps), str(rows)]
    kinds = {"ours": ours, "torch.compile": whole + ["0", "1"], "torch eager": whole + ["0", "0"]}
    kinds = {k: v for k, v in kinds.items() if not os.environ.get("ONLY") or k in os.environ["ONLY"].split(",")}
    best = {}
    for i in range(runs):
        for who, command in kinds.items():
            got = run(command)
            if got is None:
                continue
            times, losses, first, peak = got
            ms = statistics.median(times)
            rate = rows * length / ms * 1e3
            best.setdefault(who, []).append(rate)
            print(f"{case:24} {who:16} {rate:9.0f} {ms:8.1f} {first:8.1f} s {peak / 1e9:8.2f}  " + " ".join(f"{x:.4f}" for x in losses[:3]), flush=True)
    if "ours" in best:
        mine = statistics.median(best["ours"])
        theirs = max((statistics.median(v) for k, v in best.items() if k != "ours"), default=float("nan"))
        print(f"{case:24} ours {mine:.0f} tokens/s, {mine / theirs:.2f}x of the peer's best, {mine / TARGETS[name]:.2f}x of the target of {TARGETS[name]:.0f}", flush=True)
shutil.rmtree(folder / "ours", ignore_errors=True)
