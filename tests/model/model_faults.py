"""The ways in which the model's network goes wrong: rules of the hub, each for a few requests.

None changes bytes that nothing vouches for: an LFS object that is not in Xet is only as right as its transfer, until it is whole;
nor takes away proofs, which a daemon remembers.
"""

from __future__ import annotations

from typing import Any, Final

XORBS: Final = "^/xorbs/"
MAPS: Final = "/reconstructions/"
PROOFS: Final = "/file-chunk-hashes/"

FAULTS: Final[dict[str, dict[str, Any]]] = {
    "xorb 500": {"action": "answer", "origin": "transfer", "status": 500, "count": 2},
    "xorb 404": {"action": "answer", "origin": "transfer", "status": 404, "count": 1},
    "xorb 403": {"action": "expire", "origin": "transfer", "path": XORBS, "count": 3},
    "xorb reset at once": {"action": "reset", "origin": "transfer", "count": 3},
    "xorb reset": {"action": "reset", "origin": "transfer", "after_bytes": 5000, "count": 2},
    "xorb cut": {"action": "close", "origin": "transfer", "after_bytes": 1000, "count": 2},
    "xorb short": {"action": "truncate", "origin": "transfer", "after_bytes": 3000, "count": 2},
    "xorb flipped": {"action": "flip", "origin": "transfer", "path": XORBS, "count": 1},
    "xorbs flipped": {"action": "flip", "origin": "transfer", "path": XORBS},
    "xorb flipped now and then": {"action": "flip", "origin": "transfer", "path": XORBS, "probability": 0.3},
    "xorb of elsewhere": {"action": "content_range", "origin": "transfer", "body": "bytes 1-2/3", "count": 1},
    "xorb whole": {"action": "ignore_range", "origin": "transfer", "path": XORBS, "count": 2},
    "xorb packed": {"action": "gzip", "origin": "transfer", "path": XORBS, "count": 1},
    "xorb slow": {"action": "delay", "origin": "transfer", "seconds": 0.05},
    "xorb stalls": {"action": "stall", "origin": "transfer", "after_bytes": 2000, "seconds": 0.3, "count": 3},
    "xorb portal": {"action": "answer", "origin": "transfer", "status": 200, "body": "<html>Log in</html>", "count": 2},
    "map 503": {"action": "answer", "origin": "cas", "path": MAPS, "status": 503, "count": 2},
    "map 401": {"action": "answer", "origin": "cas", "status": 401, "count": 1},
    "map 403": {"action": "answer", "origin": "cas", "path": MAPS, "status": 403, "count": 1},
    "map flipped": {"action": "flip", "origin": "cas", "path": MAPS, "count": 2},
    "map empty": {"action": "rewrite", "origin": "cas", "path": MAPS, "members": {"": {}}, "count": 1},
    "map of wrong lengths": {
        "action": "rewrite", "origin": "cas", "path": MAPS, "members": {"terms.0.unpacked_length": 77}, "count": 2,
    },
    "map shifted": {"action": "rewrite", "origin": "cas", "path": MAPS, "members": {"offset_into_first_range": 1}, "count": 2},
    "proof 500": {"action": "answer", "origin": "cas", "path": PROOFS, "status": 500, "count": 1},
    "proof flipped": {"action": "flip", "origin": "cas", "path": PROOFS, "count": 2},
    "proof empty": {"action": "rewrite", "origin": "cas", "path": PROOFS, "members": {"windows": []}, "count": 1},
    "proof of another size": {"action": "rewrite", "origin": "cas", "path": PROOFS, "members": {"fileSize": 7}, "count": 1},
    "hub 502": {"action": "answer", "origin": "hub", "status": 502, "count": 2},
    "hub reset": {"action": "reset", "origin": "hub", "count": 2},
    "hub too many": {"action": "answer", "origin": "hub", "status": 429, "headers": {"Retry-After": "0"}, "count": 2},
    "everything reset now and then": {"action": "reset", "probability": 0.2},
}  # fmt: skip
