"""The form of a record's value: its checksum, then its bytes.

The checksum covers kind and key as well, so that the value of one record cannot stand in for another's.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from xetfs.errors import CorruptData

_CHECKSUM_BYTES: Final = 32
_CHECKSUM_KEY: Final = blake3(b"xetfs: checksum of a record").digest()

OVERHEAD_BYTES: Final = _CHECKSUM_BYTES


def checksum(kind: str, key: str, value: bytes | memoryview) -> bytes:
    """What `encode` puts before a value."""
    name = key.encode("utf-8", "surrogatepass")
    digest = blake3(f"{kind} {len(name)} ".encode() + name, key=_CHECKSUM_KEY)
    return digest.update(value).digest()


def decode(kind: str, key: str, stored: bytes) -> bytes:
    """The value of a record. Raises CorruptData if it is not exactly the one that was put under this kind and key."""
    value = memoryview(stored)[_CHECKSUM_BYTES:]
    if stored[:_CHECKSUM_BYTES] != checksum(kind, key, value):
        raise CorruptData(f"a record of kind {kind} is damaged")
    return bytes(value)
