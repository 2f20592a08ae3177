"""The vectors, and the contents of the files that they speak of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())
FILES: list[dict[str, Any]] = VECTORS["files"]


def xof(seed: str, length: int) -> bytes:
    return blake3(seed.encode()).digest(length=length)


def content(name: str) -> bytes:
    """What the file of this name holds, as VECTORS["generators"] defines it."""
    file = next(file for file in FILES if file["name"] == name)
    kind, seed, length = file["kind"], file["seed"], file["length"]
    if kind == "rand":
        data = xof(seed, length)
    elif kind == "zeros":
        data = bytes(length)
    elif kind == "pat":
        data = (bytes(range(251)) * (length // 251 + 1))[:length]
    elif kind == "csv":
        numbers = np.frombuffer(xof(seed, 8 * (length // 12 + 2)), "<u8").tolist()
        data = "".join(f"{i},{n % 1000},{(n >> 32) % 97},row{n % 13}\n" for i, n in enumerate(numbers)).encode()[:length]
    else:
        rows = np.frombuffer(xof(seed, 8 * (length // (4 if kind == "f32" else 2) + 1)), "<u2").reshape(-1, 4)
        values = ((rows.sum(1, dtype=np.int64) - 131070) / 65536).astype("<f4")
        data = (values if kind == "f32" else values.view("<u2")[1::2]).tobytes()[:length]
    assert blake3(data).hexdigest() == file["input_blake3"]
    return data
