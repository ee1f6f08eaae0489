"""Runs both programs in turn and samples their memory; called by bench-merge."""
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

directory, peer, threads, backend, runs, peer_runs = sys.argv[1:7]
size = os.path.getsize(f"{directory}/m0/model.safetensors")


def status(pid):
    anon = rss = 0
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("RssAnon:"):
                anon = int(line.split()[1]) << 10
            elif line.startswith("VmRSS:"):
                rss = int(line.split()[1]) << 10
    return anon, rss


def measure(command, env=None):
    """Wall seconds, peak RssAnon and peak RSS (bytes) of a command."""
    log = open(f"{directory}/last.log", "w")
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
    peaks = [0, 0]

    def sample():
        while p.poll() is None:
            try:
                a, r = status(p.pid)
            except (FileNotFoundError, ProcessLookupError):
                break
            peaks[0], peaks[1] = max(peaks[0], a), max(peaks[1], r)
            time.sleep(0.01)

    t = threading.Thread(target=sample)
    t.start()
    code = p.wait()
    seconds = time.perf_counter() - start
    t.join()
    if code:
        sys.exit(f"{command} failed:\n" + open(f"{directory}/last.log").read()[-2000:])
    return seconds, peaks[0], peaks[1]


def copy():
    """A plain copy of one checkpoint's bytes, the limit for anything that writes a result."""
    start = time.perf_counter()
    shutil.copyfile(f"{directory}/m0/model.safetensors", f"{directory}/copy")
    seconds = time.perf_counter() - start
    os.remove(f"{directory}/copy")
    return 2 * size / seconds / 1e9


print(f"checkpoints of {size / 1e9:.2f} GB; {threads} threads; backend {backend}", flush=True)
print(f"{'recipe':12} {'ours s':>8} {'peer s':>8} {'faster':>7} {'ours anon':>10} {'peer anon':>10} {'less':>6} {'ours GB/s':>9} {'copy GB/s':>9}", flush=True)
for recipe in sys.stdin.read().split():
    inputs = {"linear": 3, "slerp": 2}.get(recipe, 4)
    ours, theirs, copies = [], [], []
    for i in range(int(runs)):
        copies.append(copy())
        shutil.rmtree(f"{directory}/out", ignore_errors=True)
        ours.append(measure(["bin/mergekit", "merge", f"{directory}/{recipe}.yml", f"{directory}/out", "--quiet", "--threads", threads, "--backend", backend]))
        if i < int(peer_runs):
            shutil.rmtree(f"{directory}/out-peer", ignore_errors=True)
            theirs.append(measure([peer, f"{directory}/{recipe}.yml", f"{directory}/out-peer", "--quiet", "--random-seed", "1", "-j", threads],
                                  {"HF_HUB_OFFLINE": "1"}))
    shutil.rmtree(f"{directory}/out-peer", ignore_errors=True)
    o = [statistics.median(x) for x in zip(*ours)]
    t = [statistics.median(x) for x in zip(*theirs)] if theirs else [float("nan")] * 3
    rate = (inputs + 1) * size / o[0] / 1e9
    print(f"{recipe:12} {o[0]:8.2f} {t[0]:8.1f} {t[0] / o[0]:6.1f}x {o[1] / 1e6:7.0f} MB {t[1] / 1e6:7.0f} MB {t[1] / o[1]:5.1f}x {rate:9.2f} {statistics.median(copies):9.2f}", flush=True)
