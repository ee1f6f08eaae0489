"""Runs both solvers, and both programs, in turn and reads their figures; called by bench-align."""
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import numpy as np
import scipy
from scipy.optimize import linear_sum_assignment

folder, program, model, mlps = (pathlib.Path(p) for p in sys.argv[1:5])
sizes = [int(n) for n in os.environ.get("SIZES", "512 2048 4096").split()]
runs, whole_runs = int(os.environ.get("RUNS", 5)), int(os.environ.get("WHOLE_RUNS", 3))
large = [int(n) for n in os.environ.get("LARGE", "11008").split()]
kinds = os.environ.get("KINDS", "uniform gaussian correlated copy dead mlp embeddings gates").split()
failures = []


def tensors(path):
    """Arrays of a safetensors file, mapped, float32 only."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    return {name: data[e["data_offsets"][0]:e["data_offsets"][1]].view("<f4").reshape(e["shape"])
            for name, e in header.items() if e["dtype"] == "F32"}


def real_rows(kind):
    """Two sets of rows that networks really have."""
    checkpoint = tensors(model / "model.safetensors")
    if kind == "embeddings":  # frequent tokens against rarer ones
        table = checkpoint["model.embed_tokens.weight"]
        return table[:len(table) // 2], table[len(table) // 2:]
    layers = sorted((n for n in checkpoint if n.endswith("mlp.gate_proj.weight")), key=lambda n: int(n.split(".")[2]))
    half = len(layers) // 2  # gates of the first half of the layers against those of the second
    return [np.concatenate([checkpoint[n] for n in part]) for part in (layers[:half], layers[half:])]


def matrix(kind, n):
    """Scores of a kind, [n, n] float32; None when the kind has none of this size."""
    r = np.random.RandomState(n)
    width = 256
    if kind == "uniform":
        return r.rand(n, n).astype(np.float32)
    if kind in ("gaussian", "correlated", "copy"):
        a = r.randn(n, width).astype(np.float32)
        noise = r.randn(n, width).astype(np.float32)
        rho = dict(gaussian=0.0, correlated=0.3, copy=1.0)[kind]
        return a @ (np.float32(rho) * a[r.permutation(n)] + np.float32((1 - rho**2) ** 0.5) * noise).T
    if kind == "dead":  # half of the units of both networks are
        norms = np.maximum(r.randn(n, 1), 0).astype(np.float32)
        a = norms * r.randn(n, width).astype(np.float32)
        return a @ (a[r.permutation(n)] + np.float32(0.5) * a * r.randn(n, width).astype(np.float32)).T
    if kind == "mlp":  # the first step of weight matching, for the first hidden layer
        if n != 512:
            return None
        a, b = tensors(mlps / "mlp1.safetensors"), tensors(mlps / "mlp2.safetensors")
        return a["0.weight"] @ b["0.weight"].T + np.outer(a["0.bias"], b["0.bias"]) + a["2.weight"].T @ b["2.weight"]
    if not (model / "model.safetensors").exists():
        return None
    a, b = real_rows(kind)
    if n > min(len(a), len(b)):
        return None
    return np.ascontiguousarray(a[:n]) @ np.ascontiguousarray(b[:n]).T


def ours(path, verify):
    env = {**os.environ, "LAP_MATRIX": str(path), **({"LAP_VERIFY": "1"} if verify else {})}
    out = subprocess.run([folder / "lap.test", "-test.run=^$", "-test.bench=^BenchmarkFile$", "-test.benchtime=1x", "-test.timeout=30m"],
                         env=env, capture_output=True, text=True)
    lines = [l.split() for l in out.stdout.splitlines() if l.startswith("solved ")]
    if out.returncode or not lines:
        sys.exit(f"the solver failed:\n{out.stdout}{out.stderr}")
    return float(lines[0][2]), float(lines[0][3])


def theirs(scores):
    start = time.perf_counter()
    rows, cols = linear_sum_assignment(scores, maximize=True)
    seconds = time.perf_counter() - start
    return seconds, scores[rows, cols].sum()


def compare(kind, n):
    scores = matrix(kind, n)
    if scores is None:
        return
    path = folder / "matrix.f32"
    np.ascontiguousarray(scores, "<f4").tofile(path)
    doubles = scores.astype(np.float64)  # scipy computes in float64: the conversion is not counted
    mine, peers = [], []
    for run in range(runs):
        seconds, value = ours(path, verify=run == 0)
        mine.append(seconds)
        seconds, want = theirs(doubles)
        peers.append(seconds)
    path.unlink()
    same = abs(value - want) <= 1e-6 * abs(want)
    ratio = min(peers) / min(mine)
    print(f"| {kind} | {n} | {min(mine):.4f} | {min(peers):.4f} | {ratio:.1f} | {'yes' if same else f'NO: {value} against {want}'} |", flush=True)
    if not same:
        failures.append(f"{kind} {n}: another optimum")
    if ratio < 1:
        failures.append(f"{kind} {n}: slower than scipy")


def machine():
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor()


print(f"{machine()}, {os.cpu_count()} processors; scipy {scipy.__version__}, numpy {np.__version__}; best of {runs} runs in turn, one thread each\n")
if sizes:
    print("| matrix | n | ours s | scipy s | ratio | same optimum |\n|---|---|---|---|---|---|", flush=True)
for kind in kinds:
    for n in sizes:
        compare(kind, n)
if large:
    print("\n| matrix | n | ours s |\n|---|---|---|", flush=True)
for n in large:
    for kind in kinds:
        scores = matrix(kind, n)
        if scores is None:
            continue
        path = folder / "matrix.f32"
        np.ascontiguousarray(scores, "<f4").tofile(path)
        del scores
        seconds, _ = ours(path, verify=True)
        path.unlink()
        print(f"| {kind} | {n} | {seconds:.2f} |", flush=True)
        if seconds > 60:
            failures.append(f"{kind} {n}: {seconds:.0f} s, a minute is the limit")


PEER = '''
import sys, time
start = time.perf_counter()
import json, numpy as np, torch
from rebasin import PermutationCoordinateDescent
torch.set_num_threads(int(sys.argv[4]))
torch.manual_seed(int(sys.argv[3]))


def load(path):
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
        data = f.read()
    header.pop("__metadata__", None)
    state = {n: torch.from_numpy(np.frombuffer(data[slice(*e["data_offsets"])], "<f4").reshape(e["shape"]).copy()) for n, e in header.items()}
    widths = [state[n].shape for n in sorted(state, key=lambda n: int(n.split(".")[0])) if n.endswith("weight")]
    layers = []
    for out, inputs in widths:
        layers += [torch.nn.Linear(inputs, out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    model.load_state_dict(state)
    return model.eval()


a, b = load(sys.argv[1]), load(sys.argv[2])
imported = time.perf_counter()
descent = PermutationCoordinateDescent(a, b, torch.rand(1, a[0].in_features))
descent.rebasin()
done = time.perf_counter()
distance = sum(((x - y).double() ** 2).sum() for x, y in zip(a.parameters(), b.parameters())).sqrt()
print(json.dumps(dict(call=done - imported, distance=distance.item())))
'''


def distance(a, b):
    return sum(((a[n].astype(np.float64) - b[n]) ** 2).sum() for n in a) ** 0.5


def whole():
    """Matches two real MLPs with both programs: seconds and the L2 distance that is left."""
    if subprocess.run([sys.executable, "-c", "import torch, rebasin"], capture_output=True).returncode:
        print("\nrebasin does not run in this Python: whole matching is left out (pip install torch rebasin==0.0.47)")
        return
    if subprocess.run([program, "align", "--help"], capture_output=True).returncode:
        sys.exit(f"{program} has no align command")
    threads = os.environ.get("THREADS", "2")  # permutations only: rebasin knows no scales
    models = []
    for name in ("mlp1", "mlp2"):  # a folder each, as a checkpoint is
        models.append(folder / name)
        models[-1].mkdir(exist_ok=True)
        shutil.copyfile(mlps / f"{name}.safetensors", models[-1] / "model.safetensors")
        layers = []
        for k, (outputs, _) in enumerate(t.shape for n, t in sorted(tensors(models[-1] / "model.safetensors").items()) if n.endswith("weight")):
            layers += [{"type": "relu"}] * (k > 0) + [{"type": "linear", "name": str(2 * k), "out": outputs}]
        (models[-1] / "config.json").write_text(json.dumps({"model_type": "mlp", "input_shape": [784], "layers": layers}))
    out, peer = folder / "aligned", folder / "peer.py"
    peer.write_text(PEER)
    files = [m / "model.safetensors" for m in models]
    results = dict(ours=[], process=[], call=[], distance=[])
    for run in range(whole_runs):
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        subprocess.run([program, "align", *models, "-o", out, "--symmetry", "permutation", "--threads", threads, "--quiet"], check=True)
        results["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        said = subprocess.run([sys.executable, peer, *files, str(run), threads], check=True, capture_output=True, text=True).stdout
        results["process"].append(time.perf_counter() - start)
        said = json.loads(said.splitlines()[-1])
        results["call"].append(said["call"])
        results["distance"].append(said["distance"])  # its order of layers is random: a run each seed
    a, b = (tensors(f) for f in files)
    mine = distance(a, tensors(out / "model.safetensors"))
    print(f"\nWhole matching of two MLPs 784-512-512-512-10, {threads} threads, best of {whole_runs} runs; distance before: {distance(a, b):.4f}\n")
    print("| program | s | L2 distance after |\n|---|---|---|")
    print(f"| mergekit align, files to file | {min(results['ours']):.3f} | {mine:.4f} |")
    print(f"| rebasin, the call alone | {min(results['call']):.3f} | {min(results['distance']):.4f} to {max(results['distance']):.4f} |")
    print(f"| rebasin, the process, nothing written | {min(results['process']):.3f} | |", flush=True)
    if mine > min(results["distance"]) * (1 + 1e-3):
        failures.append("whole matching: rebasin leaves the models closer")


if os.environ.get("WHOLE", "1") != "0":
    whole()
if failures:
    sys.exit("\n" + "\n".join(failures))
