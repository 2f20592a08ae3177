"""Ways to alter one thing in a true range proof, each of which must be noticed."""

from __future__ import annotations

import random
from typing import Any


def _gaps(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [gap for gap in answer["hashRanges"] if gap is not None]


def another_hash(answer: dict[str, Any], chance: random.Random) -> bool:
    nodes = [node for gap in _gaps(answer) for node in gap["nodes"]]
    if nodes:
        node = chance.choice(nodes)
        node["hash"] = ("1" if node["hash"][0] == "0" else "0") + node["hash"][1:]
    return bool(nodes)


def another_size(answer: dict[str, Any], chance: random.Random) -> bool:
    """One node is a byte longer and another a byte shorter, so that the gap is as long as before."""
    gaps = [gap for gap in _gaps(answer) if len(gap["nodes"]) > 1 and any(node["size"] > 1 for node in gap["nodes"])]
    if gaps:
        nodes = chance.choice(gaps)["nodes"]
        shorter = chance.choice([node for node in nodes if node["size"] > 1])
        longer = chance.choice([node for node in nodes if node is not shorter])
        shorter["size"] -= 1
        longer["size"] += 1
    return bool(gaps)


def a_node_less(answer: dict[str, Any], chance: random.Random) -> bool:
    gaps = [gap for gap in _gaps(answer) if gap["levels"][0][0] > 1]
    if gaps:
        gap = chance.choice(gaps)
        removed = gap["nodes"].pop(0)
        gap["levels"][0][0] -= 1
        gap["nodes"][0]["size"] += removed["size"]
    return bool(gaps)


def a_window_moved(answer: dict[str, Any], chance: random.Random) -> bool:
    """By the size of a node of the gap before it, which goes behind it: all sums stay right."""
    before, after = answer["hashRanges"][0], answer["hashRanges"][1]
    if before is None or after is None or len(before["nodes"]) < 2:
        return False
    if not before["levels"][0][0] or not after["levels"]:
        return False
    moved = before["nodes"].pop(before["levels"][0][0] - 1)
    before["levels"][0][0] -= 1
    after["nodes"].insert(0, moved)
    after["levels"][0][0] += 1
    window = answer["windows"][0]["dirtyByteRange"]
    answer["windows"][0]["dirtyByteRange"] = [window[0] - moved["size"], window[1] - moved["size"]]
    return True


def a_level_up(answer: dict[str, Any], chance: random.Random) -> bool:
    """The nodes of a gap claim to be one level higher than they are."""
    gaps = [gap for gap in _gaps(answer) if sum(map(sum, gap["levels"])) > 1]
    if gaps:
        chance.choice(gaps)["levels"].insert(0, [0, 0])
    return bool(gaps)


ALTERATIONS = (another_hash, another_size, a_node_less, a_window_moved, a_level_up)
"""Each changes an answer in place and returns whether there was anything to change."""
