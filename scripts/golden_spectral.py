"""Makes merge/method/testdata/spectral.json: TSV-M, Iso-C, Iso-CTS and WUDI in NumPy, step by step as the papers' own code has them.

    python scripts/golden_spectral.py > merge/method/testdata/spectral.json

Only NumPy is needed. The decompositions are LAPACK's, in float64, of the float32 values that the file holds.
"""

import json

import numpy as np


def tsv_m(deltas):
    """Gargiulo et al., 2025: compute_and_sum_svd_mem_reduction of the paper's repository."""
    share = min(deltas[0].shape) // len(deltas)
    us, ss, vs = [], [], []
    for d in deltas:
        u, s, v = np.linalg.svd(d, full_matrices=False)
        us.append(u[:, :share])
        ss.append(s[:share])
        vs.append(v[:share])
    u, _, v = np.linalg.svd(np.concatenate(us, 1), full_matrices=False)
    left = u @ v
    u, _, v = np.linalg.svd(np.concatenate(vs, 0), full_matrices=False)
    return left @ np.diag(np.concatenate(ss)) @ (u @ v)


def iso_c(deltas):
    """Marczak et al., 2025, algorithm 1."""
    u, s, v = np.linalg.svd(sum(deltas), full_matrices=False)
    return s.mean() * u @ v


def iso_cts(deltas, fraction):
    """Marczak et al., 2025, algorithm 2, with the numbers of directions of the paper's repository."""
    r, tasks = min(deltas[0].shape), len(deltas)
    common = int(r * fraction)
    own = round((r - common) / tasks)
    common = r - own * tasks
    u, s, v = np.linalg.svd(sum(deltas), full_matrices=False)
    uc = u[:, :common]
    us, ss, vs = [uc], [s[:common]], [v[:common]]
    for d in deltas:
        u, s, v = np.linalg.svd(d - uc @ uc.T @ d, full_matrices=False)
        us.append(u[:, :own])
        ss.append(s[:own])
        vs.append(v[:own])
    u, _, v = np.linalg.svd(np.concatenate(us, 1), full_matrices=False)
    left = u @ v
    u, _, v = np.linalg.svd(np.concatenate(vs, 0), full_matrices=False)
    return np.concatenate(ss).mean() * left @ (u @ v)


def wudi(deltas, ridge, toward):
    """The minimum that Cheng et al., 2025, step towards, plus ridge times the mean diagonal times the squared distance from the start."""
    n = deltas[0].shape[1]
    c = sum(deltas) / (len(deltas) if toward == "mean" else 1)
    grams = [d.T @ d / np.sum(d * d) for d in deltas]
    g = sum(grams)
    right = sum((d - c) @ gi for d, gi in zip(deltas, grams))
    return c + right @ np.linalg.inv(g + ridge * np.trace(g) / n * np.eye(n))


def wudi_adam(deltas, steps, lr):
    """Cheng et al., 2025: get_redundant_task_vector of the paper's repository, the gradient by hand."""
    x = sum(deltas)
    m, s = np.zeros_like(x), np.zeros_like(x)
    for k in range(1, steps + 1):
        grad = sum(2 * (x - d) @ d.T @ d / np.sum(d * d) for d in deltas)
        m = 0.9 * m + 0.1 * grad
        s = 0.999 * s + 0.001 * grad * grad
        x = x - lr * (m / (1 - 0.9**k)) / (np.sqrt(s / (1 - 0.999**k)) + 1e-8)
    return x


def short(x, digits):
    return [float(f"{v:.{digits}g}") for v in x.ravel()]


def main():
    rng = np.random.default_rng(7)
    cases = []
    for rows, cols, tasks in [(12, 20, 3), (20, 12, 2), (16, 16, 4), (9, 40, 3)]:
        base = rng.standard_normal((rows, cols)).astype(np.float32)
        models = []
        for _ in range(tasks):
            u = rng.standard_normal((rows, min(rows, cols)))
            v = rng.standard_normal((min(rows, cols), cols))
            d = u @ np.diag(0.8 ** np.arange(min(rows, cols))) @ v * 0.02
            models.append((base + d).astype(np.float32))
        deltas = [(m - base).astype(np.float64) for m in models]  # subtracted in float32, as merging does
        case = {
            "rows": rows,
            "cols": cols,
            "base": short(base, 9),
            "models": [short(m, 9) for m in models],
            "tsv_m": tsv_m(deltas),
            "iso_c": iso_c(deltas),
            "iso_cts": iso_cts(deltas, 0.8),
            "iso_cts 0.5": iso_cts(deltas, 0.5),
            "wudi": wudi(deltas, 1e-3, "sum"),
            "wudi mean": wudi(deltas, 0.1, "mean"),
            "wudi adam": wudi_adam(deltas, 40, 1e-3),
        }
        cases.append({k: short(v, 8) if isinstance(v, np.ndarray) else v for k, v in case.items()})
    print(json.dumps(cases))


main()
