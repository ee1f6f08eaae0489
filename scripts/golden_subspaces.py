"""Writes merge/method/testdata/subspaces.json: KnOTS and Core Space in numpy, float64, as the papers have them.

Stoica et al., 2025, "Model merging with SVD to tie the KnOTS"; Panariello et al., 2025, "Accurate and efficient low-rank model merging in
core space". TIES is that of merge_method ties: largest entries, sign of the weighted sum, average by the weights that agree.

usage: python scripts/golden_subspaces.py
"""
import json
import pathlib

import numpy as np

rng = np.random.default_rng(0)
OUT, IN, RANKS = 12, 10, (2, 3, 2)
base = rng.normal(size=(OUT, IN)).astype(np.float32) * np.float32(0.1)
factors = [(rng.normal(size=(OUT, r)), rng.normal(size=(r, IN)) / np.sqrt(IN)) for r in RANKS]
models = [(base + (b @ a)).astype(np.float32) for b, a in factors]
deltas = []
for m, r in zip(models, RANKS):  # what rounding to float32 adds to the rank is left out
    u, s, v = np.linalg.svd(m.astype(np.float64) - base.astype(np.float64), full_matrices=False)
    deltas.append((u[:, :r] * s[:r]) @ v[:r])


def orthonormal(x):
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    return u[:, s > 5e-6 * s[0]]


def ties(list_, weights, density):
    kept = []
    for x in list_:
        n = x.size if density >= 1 else max(1, int(density * x.size))
        cut = np.sort(np.abs(x).ravel())[-n]
        kept.append(np.where(np.abs(x) >= cut, x, 0))
    terms = [w * x for w, x in zip(weights, kept)]
    sign = np.where(sum(terms) >= 0, 1, -1)
    agree = [t * sign > 0 for t in terms]
    total = sum(np.where(g, t, 0) for g, t in zip(agree, terms))
    share = sum(np.where(g, w, 0.0) for g, w in zip(agree, weights))
    return np.divide(total, share, out=np.zeros_like(total), where=share != 0)


def tsv(list_):
    side = min(list_[0].shape)
    each = max(1, side // len(list_))
    us, ss, vs = [], [], []
    for m in list_:
        u, s, v = np.linalg.svd(m, full_matrices=False)
        k = min(each, int((s > 5e-6 * s[0]).sum()))
        us.append(u[:, :k]), ss.append(s[:k]), vs.append(v[:k].T)

    def apart(x):
        p, _, q = np.linalg.svd(np.hstack(x), full_matrices=False)
        return p @ q

    return (apart(us) * np.concatenate(ss)) @ apart(vs).T


def iso(m):
    u, s, v = np.linalg.svd(m, full_matrices=False)
    k = int((s > 5e-6 * s[0]).sum())
    return s.mean() * (u[:, :k] @ v[:k])


def knots(merge, weights, density):
    u, s, v = np.linalg.svd(np.hstack(deltas), full_matrices=False)
    k = int((s > 5e-6 * s[0]).sum())
    parts = [v[:k, i * IN : (i + 1) * IN] for i in range(len(deltas))]
    merged = ties(parts, weights, density) if merge == "ties" else sum(w * p for w, p in zip(weights, parts))
    return (u[:, :k] * s[:k]) @ merged


def core(merge, weights, density):
    bs, as_ = [], []
    for d, r in zip(deltas, RANKS):
        u, s, v = np.linalg.svd(d, full_matrices=False)
        bs.append(u[:, :r] * np.sqrt(s[:r])), as_.append(v[:r].T * np.sqrt(s[:r]))
    p, q = orthonormal(np.hstack(bs)), orthonormal(np.hstack(as_))
    cores = [p.T @ d @ q for d in deltas]
    weighted = [w * m for w, m in zip(weights, cores)]
    merged = {"sum": lambda: sum(weighted), "ties": lambda: ties(cores, weights, density), "iso": lambda: iso(sum(weighted)), "tsv": lambda: tsv(weighted)}[merge]()
    return p @ merged @ q.T


cases = []
for method, merge, weights, density, lam in [
    ("knots", "sum", (1.0, 0.5, -0.25), 1.0, 0.8),
    ("knots", "ties", (1.0, 1.0, 1.0), 1.0, 1.0),
    ("knots", "ties", (0.7, 0.4, 1.0), 0.3, 1.1),
    ("core_space", "sum", (1.0, 0.5, -0.25), 1.0, 0.8),
    ("core_space", "ties", (1.0, 1.0, 1.0), 1.0, 1.0),
    ("core_space", "ties", (0.7, 0.4, 1.0), 0.4, 1.1),
    ("core_space", "iso", (1.0, 1.0, 1.0), 1.0, 1.5),
    ("core_space", "tsv", (1.0, 1.0, 1.0), 1.0, 1.0),
]:
    change = (knots if method == "knots" else core)(merge, weights, density)
    want = base.astype(np.float64) + lam * change
    cases.append({"method": method, "merge": merge, "weights": weights, "density": density, "lambda": lam, "want": [round(x, 7) for x in want.ravel().tolist()]})

to = pathlib.Path(__file__).parent.parent / "merge/method/testdata/subspaces.json"
to.write_text(json.dumps({"shape": [OUT, IN], "base": base.ravel().tolist(), "models": [m.ravel().tolist() for m in models], "cases": cases}) + "\n")
