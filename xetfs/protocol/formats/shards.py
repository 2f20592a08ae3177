"""The index of a model that is split into several safetensors files: a JSON object whose member weight_map says, for the name of
each tensor, in which file beside the index it is.

Source: huggingface_hub, serialization/_base.py (`model.safetensors.index.json`); transformers, modeling_utils.py.
"""

from __future__ import annotations

from typing import Final

from xetfs.errors import ProtocolViolation
from xetfs.protocol.json_values import as_object, load_json

INDEX_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest index that is worth reading: one of 100,000 tensors has 9 MB."""
_SUFFIX: Final = ".safetensors.index.json"


def is_shard_index(name: str) -> bool:
    """Whether a file of this name, or at this path, is such an index."""
    return name.endswith(_SUFFIX)


def shards_of(index: bytes) -> tuple[str, ...]:
    """The names of a model's files in the order in which the index first has them; none if it is not what its name says.

    index: at most INDEX_BYTES_MAX; takes up to a second of that.
    """
    try:
        places = as_object(as_object(load_json(index, "a shard index"), "a shard index").get("weight_map"), "its weight_map")
    except ProtocolViolation:
        return ()
    return tuple(dict.fromkeys(name for name in places.values() if isinstance(name, str) and name and "/" not in name))
