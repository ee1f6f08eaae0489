"""Writes tensors/gguf/grids.bin, the lattice points of ggml's IQ quantisations, and vectors for the types that need them.

    python scripts/make_gguf_grids.py tensors/gguf

The tables are ggml's (MIT licence), taken from the gguf package, 0.19. A point is 16 bits: eight numbers of 2 bits for IQ2 and IQ1, four of 3 bits
for IQ3, the first number lowest. Vectors are random blocks and what the package decodes."""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants

out = sys.argv[1]
data = b""
for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ3_XXS", "IQ3_S"):
    c = getattr(quants, name)
    c.init_grid()
    grid = c.grid.reshape(c.grid_shape)
    bits = 2 if grid.shape[1] == 8 else 3
    levels = {float(x): i for i, x in enumerate(c.grid_map)}
    index = np.vectorize(levels.__getitem__)(grid.astype(float)).astype(np.uint16)
    points = (index << (np.arange(grid.shape[1], dtype=np.uint16) * bits)).sum(1).astype("<u2")
    data += points.tobytes()
with open(out + "/grids.bin", "wb") as f:
    f.write(data)
rng = np.random.default_rng(5)
for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "NVFP4"):
    kind = T[name]
    elems, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (12, size), dtype=np.uint8)
    for b in blocks:  # scales that are numbers
        if name.startswith("IQ") and name != "IQ1_M":
            b[:2] = np.frombuffer(np.float16(rng.normal() / 50).tobytes(), np.uint8)
        if name == "IQ1_M":
            d = int(np.float16(abs(rng.normal()) / 50).view(np.uint16))
            s = b[48:56].view(np.uint16)
            for i in range(4):
                s[i] = s[i] & 0x0FFF | (d >> (4 * i) & 15) << 12
    if name == "NVFP4":
        blocks[0, :4] = (0, 0x7F, 0x80, 0xFF)
    blocks.tofile(f"{out}/testdata/vectors/{name}.blocks")
    quants.dequantize(blocks, kind).astype("<f4").tofile(f"{out}/testdata/vectors/{name}.f32")
print(len(data), "bytes of grids")
