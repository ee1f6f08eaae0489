"""Makes testdata/golden/sparse: a pytorch_diff.bin as composable-sft writes it (the list of steps begins with a number of numpy, sizes are
torch.Size, heads are parameters), its dense values, and a file that names a function to call. Needs torch and numpy.

usage: make_sparse_golden.py [OUT]
"""
import json
import pathlib
import sys

import numpy as np
import torch

out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "testdata/golden/sparse")
out.mkdir(parents=True, exist_ok=True)

entries = {
    "a.weight": ((3, 5), {(0, 1): 0.5, (2, 0): -0.25, (2, 4): 1.5, (1, 3): 2.0}),
    "b.bias": ((7,), {(6,): 1e-3, (0,): 2.0, (3,): -3.0}),
    "c.weight": ((2, 3, 400), {(1, 2, 399): 1.0, (0, 0, 0): 2.0, (0, 1, 300): 3.0}),
}


def encode(size, values):
    """The first axis runs fastest; places are written as steps from one to the next."""
    multipliers = np.cumprod([1] + list(size)[:-1], dtype=np.int64)
    at = np.matmul(np.array(list(values), dtype=np.int64), multipliers)
    order = np.argsort(at)
    at = at[order]
    steps = [at[0]] + (at[1:] - at[:-1]).tolist()  # the first stays a number of numpy
    return {"size": torch.Size(size), "index_steps": steps, "values": torch.tensor(list(values.values()))[order]}


head = torch.nn.Parameter(torch.arange(6, dtype=torch.float32).reshape(2, 3).t().clone())
view = torch.arange(12, dtype=torch.float32).reshape(3, 4)[:, 1:3]  # not contiguous
diffs = {name: encode(size, values) for name, (size, values) in entries.items()}
diffs["e.bias"] = {"size": torch.Size((4,)), "index_steps": [], "values": torch.zeros(0)}
torch.save({"diffs": diffs, "abs": {"head.weight": head, "head.view": view, "head.half": torch.ones(2, dtype=torch.bfloat16)}}, out / "pytorch_diff.bin")

dense = {}
for name, (size, values) in entries.items():
    x = np.zeros(size, dtype=np.float32)
    for at, v in values.items():
        x[at] = v
    flat = x.reshape(-1)
    dense[name] = {int(i): float(flat[i]) for i in np.nonzero(flat)[0]}
wanted = {"diffs": dense, "head.weight": head.detach().reshape(-1).tolist(), "head.view": view.reshape(-1).tolist()}
(out / "pytorch_diff.json").write_text(json.dumps(wanted, indent=1) + "\n")


class Call:
    def __reduce__(self):
        return print, ("this must not run",)


torch.save({"diffs": {"a": Call()}}, out / "evil.bin")
