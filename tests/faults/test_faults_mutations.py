"""Answers changed at random, all the way through an engine: right data or an errno in time, and everybody else is served.

A parser that accepts what it should not is found by the properties of its own; here it is what the rooms above do with it. The
loop of events itself must go on: what never gives way is ended by the test's own limit, and is a failure.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import trio
from fault_bench import DEADLINE_S, LENGTH, Bench, User, open_bench, open_user
from pyfuse3 import FUSEError

from xetfs.testhub import Fault

ROUNDS = int(os.environ.get("XETFS_MUTATIONS", "60"))
"""For each kind of answer and level of verification."""
SEED = int(os.environ.get("XETFS_MUTATIONS_SEED", random.SystemRandom().randrange(2**32)))
BATCH = 15
"""Rounds with one cache; after some more the file would be held, and nothing asked."""
ODD_NUMBERS = [-1, 0, 1, 2, 7, 99, 4096, 2**17, 2**24, 2**31, 2**32, 2**46, 2**53, 2**53 + 1, 2**64, 1.5, 1e300, True]
ODD_VALUES = [*ODD_NUMBERS, None, "1", [], {}]


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: a container and a key or index of it."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, key) for key in keys]
    for key in keys:
        found += _spots(value[key])
    return found


def _mutate(value: Any, chance: random.Random) -> Any:
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        spots = _spots(value)
        if not spots:
            return value
        at, key = chance.choice(spots)
        old = at[key]
        match chance.randrange(6):
            case 0 if isinstance(old, int):
                at[key] = max(old + chance.choice([-65536, -1, 1, 65536, old]), -5)
            case 1 if isinstance(old, int):
                at[key] = chance.choice(ODD_VALUES)
            case 2 if isinstance(at, list):
                at.insert(key, at[chance.randrange(len(at))])
            case 3:
                del at[key]
            case 4:
                other, where = chance.choice(spots)
                at[key] = other[where] if not isinstance(other[where], dict | list) else old
            case _:
                at[key] = chance.choice([chance.choice(ODD_VALUES), old])
    return value


async def _read(user: User, bench: Bench, offset: int) -> str:
    with trio.fail_after(DEADLINE_S + 2):
        try:
            data = await user.read("f.bin", offset, LENGTH)
        except FUSEError as error:
            return f"errno {error.errno}"
    return "data" if data == bench.content[offset : offset + LENGTH] else "wrong data"


@pytest.mark.parametrize(
    ("path", "verify"),
    [
        ("/v2/reconstructions/", "auto"),
        ("/v2/reconstructions/", "off"),
        ("/v2/file-chunk-hashes/", "auto"),
        ("/v2/file-chunk-hashes/", "proof"),
    ],
)
async def test_changed_answers_are_refused_or_harmless(tmp_path: Path, path: str, verify: str) -> None:
    # Without proof, a CAS that says which chunks a file has is believed, as long as what it says fits together.
    allowed = {"data", "errno 5", "errno 13", "errno 110"} | ({"wrong data"} if verify == "off" else set())
    async with open_bench(tmp_path) as bench:
        for batch in range(ROUNDS // BATCH):
            async with open_user(bench, tmp_path / f"cache{batch}", verify=verify) as user:
                for number in range(BATCH):
                    chance = random.Random(f"{SEED} {batch} {number}")
                    bench.hub.faults.clear()
                    bench.hub.faults.add(Fault("rewrite", path=path, rewrite=lambda value, chance=chance: _mutate(value, chance)))
                    outcome = await _read(user, bench, chance.randrange(len(bench.content) - LENGTH))
                    assert outcome in allowed, f"XETFS_MUTATIONS_SEED={SEED}, batch {batch}, round {number}"
                    assert (await user.view.lookup(user.view.root, "dir")).is_directory
