"""Models and tables as people have them, a little smaller: made in a folder with the libraries themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import safetensors.numpy

KIB: Final = 1024
MIB: Final = 1024 * KIB

MODEL: Final = "model.safetensors"
INDEX: Final = "sharded/model.safetensors.index.json"
GGUF: Final = "model.gguf"
TABLE: Final = "table.parquet"
LAYERS: Final = 16
SHARDS: Final = 8
ROW_GROUPS: Final = 6
COLUMNS: Final = 8
ROWS: Final = 60_000
"""Of a row group: a column chunk is half a megabyte."""
CUT_BYTES: Final = (16 * KIB, 128 * KIB)
"""Between which lengths chunks are when files are cut up, about as content-defined chunking does it."""


def make(folder: Path) -> None:
    chance = np.random.default_rng(2026)
    folder.mkdir()
    _make_model(folder / MODEL, chance)
    _make_shards(folder / INDEX, chance)
    _make_gguf(folder / GGUF, chance)
    _make_table(folder / TABLE, chance)


def shard(number: int) -> str:
    return f"sharded/model-{number + 1:05}-of-{SHARDS:05}.safetensors"


def _noise(chance: np.random.Generator, size: int) -> np.ndarray:
    return np.frombuffer(chance.bytes(size), np.uint8)


def _make_model(path: Path, chance: np.random.Generator) -> None:
    """Of each layer one tensor of 16 to 24 MiB, and four small ones beside it."""
    tensors = {}
    for layer in range(LAYERS):
        tensors[f"layers.{layer:02}.mlp.weight"] = _noise(chance, int(chance.integers(16 * MIB, 24 * MIB)))
        for number in range(4):
            tensors[f"layers.{layer:02}.norm{number}.weight"] = _noise(chance, int(chance.integers(4 * KIB, 300 * KIB)))
    safetensors.numpy.save_file(tensors, path)


def _make_shards(index: Path, chance: np.random.Generator) -> None:
    """Shards with headers as long as those of large models, which have hundreds of tensors in each."""
    index.parent.mkdir()
    places = {}
    for number in range(SHARDS):
        names = [f"model.layers.{number}.experts.{expert}.down_proj.weight" for expert in range(500)]
        tensors = {name: _noise(chance, int(chance.integers(4 * KIB, 16 * KIB))) for name in names}
        safetensors.numpy.save_file(tensors, index.parent.parent / shard(number), metadata={"format": "pt"})
        places |= dict.fromkeys(names, shard(number).rpartition("/")[2])
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _make_gguf(path: Path, chance: np.random.Generator) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_token_list([f"token{number}" for number in range(20_000)])
    writer.add_token_scores([0.5] * 20_000)
    for layer in range(LAYERS):
        writer.add_tensor(f"blk.{layer}.attn.weight", chance.standard_normal((512, 1024 + 64 * layer), np.float32))
        writer.add_tensor(f"blk.{layer}.norm.weight", chance.standard_normal(1024, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _make_table(path: Path, chance: np.random.Generator) -> None:
    table = pa.table({f"column{number}": chance.random(ROWS * ROW_GROUPS) for number in range(COLUMNS)})
    pyarrow.parquet.write_table(table, path, row_group_size=ROWS, compression="none", use_dictionary=False)
