"""Model Breadcrumbs by rows, in numpy: the numbers of merge/method/testdata/breadcrumbs_rows.json.

The masks follow the paper's code (Davari and Belilovsky, 2024): per row of the last axis, int(cols*remove) largest magnitudes are zeroed,
then of what is left the int(cols*keep) largest stay. A stable sort makes ties fall to the earlier entry. Written for this test; no
code of the paper is in it.

usage: python scripts/golden_breadcrumbs.py > merge/method/testdata/breadcrumbs_rows.json
"""
import json

import numpy as np


def mask(tau, keep, remove):
    rows = tau.reshape(-1, tau.shape[-1]) if tau.ndim > 1 else tau.reshape(1, -1)
    out = np.zeros_like(rows)
    cols = rows.shape[1]
    for r, row in enumerate(rows):
        left = row.copy()
        top = np.argsort(-np.abs(left), kind="stable")[: int(cols * remove)]
        left[top] = 0
        stay = np.argsort(-np.abs(left), kind="stable")[: int(cols * keep)]
        out[r, stay] = left[stay]
    return out.reshape(tau.shape)


def elect(terms):
    total = np.sum(terms, axis=0)
    sign = np.where(total >= 0, 1.0, -1.0)
    return np.sum([np.where(t * sign > 0, t, 0) for t in terms], axis=0)


cases = []
rng = np.random.default_rng(2312)
for shape in [(8,), (5, 40), (3, 2, 24), (40,), (12, 3)]:
    # Multiples of 1/64: float32 adds and subtracts them without rounding, and there are many ties.
    base = np.round(rng.normal(0, 2, shape) * 64) / 64
    tuned = [base + np.round(rng.normal(0, 0.3, shape) * 64) / 64 for _ in range(2)]
    for keep, remove, weight in [(0.15, 0.006, [0.5, 0.25]), (0.25, 0.125, [1, 1]), (1.0, 0.1, [0.5, -1]), (0.05, 0.01, [2, 1]), (0.5, 0.75, [1, 1])]:
        left = [mask(x - base, keep, remove) for x in tuned]
        terms = [w * d for w, d in zip(weight, left)]
        cases.append({"shape": shape, "density": keep, "gamma": remove, "weight": weight, "base": base.ravel().tolist(), "tuned": [x.ravel().tolist() for x in tuned],
                      "kept": [int(np.count_nonzero(d)) for d in left], "sum": (base + np.sum(terms, axis=0)).ravel().tolist(), "elected": (base + elect(terms)).ravel().tolist()})
print("[" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]")
