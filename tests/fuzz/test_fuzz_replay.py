"""Every target of the fuzzer on its seeds, on what fuzzing has found worth keeping, and on simple damage to both."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
DAMAGED = 400
"""Damaged inputs for each target."""


def inputs(name: str, target: Target) -> Iterator[bytes]:
    yield from (b"", b"\0", b"{}", b"[]", b"null")
    yield from target.seeds()
    for path in sorted((CORPUS / name).glob("*")):
        yield path.read_bytes()


@pytest.mark.parametrize("name", TARGETS)
def test_only_our_errors_escape(name: str) -> None:
    target = TARGETS[name]
    good = list(inputs(name, target))
    for data in good:
        target.run(data)
    choose = random.Random(name)
    for _ in range(DAMAGED):
        target.run(damaged(choose, choose.choice(good)))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_accepted(name: str) -> None:
    assert all(TARGETS[name].run(seed) for seed in TARGETS[name].seeds())


def damaged(choose: random.Random, data: bytes) -> bytes:
    """Cut, flipped, overwritten or doubled somewhere."""
    if not data:
        return choose.randbytes(20)
    spoilt = bytearray(data)
    at = choose.randrange(len(spoilt))
    match choose.randrange(4):
        case 0:
            del spoilt[at:]
        case 1:
            spoilt[at] ^= 1 << choose.randrange(8)
        case 2:
            spoilt[at : at + 4] = choose.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"9999", b"-1, "))
        case _:
            spoilt[at:at] = spoilt[at : at + choose.randrange(1, 64)]
    return bytes(spoilt)


def test_every_folder_of_the_corpus_has_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)
