"""Lies about a range proof: each changes a case in place; what it cannot be applied to it leaves alone."""

import copy
import random
from typing import Any

from proof_cases import Case, File


def some_gap(choose: random.Random, case: Case) -> dict[str, Any] | None:
    gaps = [gap for gap in case.answer["hashRanges"] if gap is not None and gap["nodes"]]
    return choose.choice(gaps) if gaps else None


def change_node(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None:
        node = choose.choice(gap["nodes"])
        if choose.random() < 0.5:
            node["hash"] = choose.choice((choose.choice(file.leaves)[0].hex(), choose.randbytes(32).hex(), "", 5))
        else:
            size = node["size"] if isinstance(node["size"], int) else 1
            node["size"] = choose.choice(
                (size - 1, size + 1, size + 512, 0, -size, 2**63, 2**64 + 1, 10**30, True, 1.5, "1", None)
            )


def shift_sizes(choose: random.Random, case: Case, file: File) -> None:
    """Keep the sum of a gap, change what makes it up."""
    gap = some_gap(choose, case)
    if gap is not None and len(gap["nodes"]) > 1:
        one, other = choose.sample(gap["nodes"], 2)
        if isinstance(one["size"], int) and isinstance(other["size"], int):
            step = choose.randint(1, 4096)
            one["size"], other["size"] = one["size"] + step, other["size"] - step


def change_order(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None:
        nodes = gap["nodes"]
        a, b = choose.randrange(len(nodes)), choose.randrange(len(nodes))
        match choose.randrange(4):
            case 0:
                nodes[a], nodes[b] = nodes[b], nodes[a]
            case 1:
                nodes.insert(a, copy.deepcopy(nodes[b]))
            case 2:
                del nodes[a]
            case _:
                nodes.reverse()


def change_levels(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None and gap["levels"]:
        levels = gap["levels"]
        match choose.randrange(6):
            case 0:
                levels.insert(choose.randint(0, len(levels)), [0, 0])
            case 1:
                a, b = choose.choice(levels), choose.choice(levels)
                i, j = choose.randrange(2), choose.randrange(2)
                if isinstance(a[i], int) and isinstance(b[j], int):
                    a[i], b[j] = a[i] - 1, b[j] + 1
            case 2:
                choose.shuffle(levels)
            case 3:
                choose.choice(levels).reverse()
            case 4:
                levels.append([0, 0])
            case _:
                choose.choice(levels)[choose.randrange(2)] = choose.choice((-1, 2**70, True, 0.5, None))


def change_flags(choose: random.Random, case: Case, file: File) -> None:
    gap = some_gap(choose, case)
    if gap is not None:
        gap[choose.choice(("at_start", "at_end"))] = choose.choice((True, False, 1, None))


def change_gaps(choose: random.Random, case: Case, file: File) -> None:
    gaps = case.answer["hashRanges"]
    a, b = choose.randrange(len(gaps)), choose.randrange(len(gaps))
    match choose.randrange(4):
        case 0:
            gaps[a], gaps[b] = gaps[b], gaps[a]
        case 1:
            gaps[a] = copy.deepcopy(gaps[b])
        case 2:
            gaps[a] = None
        case _:
            if isinstance(gaps[a], dict) and isinstance(gaps[b], dict) and gaps[a]["nodes"]:  # one node moves to another gap
                node = gaps[a]["nodes"].pop()
                gaps[b]["nodes"].insert(0, node)


def change_windows(choose: random.Random, case: Case, file: File) -> None:
    windows = case.answer["windows"]
    window = choose.choice(windows)["dirtyByteRange"]
    match choose.randrange(4):
        case 0:
            window[choose.randrange(2)] = choose.choice((choose.choice(file.starts), -1, True, 0.0, 2**64, window[0] + 1))
        case 1:
            choose.shuffle(windows)
        case 2:
            windows.append(copy.deepcopy(choose.choice(windows)))
        case _:  # the whole window elsewhere, with its length kept
            step = choose.choice(file.starts) - window[0]
            window[0], window[1] = window[0] + step, window[1] + step


def change_chunks(choose: random.Random, case: Case, file: File) -> None:
    """Deliver other genuine chunks of the file than those of the window."""
    place = choose.randrange(len(case.chunks))
    start, count = choose.randrange(len(file.leaves)), max(1, len(case.chunks[place]) + choose.randint(-1, 1))
    match choose.randrange(3):
        case 0:
            case.chunks[place] = file.leaves[start : start + count]
        case 1:
            choose.shuffle(case.chunks)
        case _:
            case.chunks[place] = case.chunks[place][::-1]


def change_totals(choose: random.Random, case: Case, file: File) -> None:
    name = choose.choice(("fileSize", "totalChunks"))
    case.answer[name] = choose.choice((file.size + 1, 0, -1, 2**64, True, 1.0, None, len(file.leaves)))


LIES = (
    change_node, shift_sizes, change_order, change_levels, change_flags,
    change_gaps, change_windows, change_chunks, change_totals,
)  # fmt: skip
