"""One row of docs/faults.md: read from the table, and carried out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from fault_bench import DEADLINE_S, PLACES, PROOF_S, WARM, Bench, User, open_user, perform
from fault_kinds import KINDS

from xetfs.net import sockets
from xetfs.repo import Engine
from xetfs.telemetry import (
    CAS_URL_REFRESHES,
    NET_FAILURES,
    NET_HEDGES,
    NET_RETRIES,
    NET_STALLS,
    READER_CORRUPT_WINDOWS,
)

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"
COUNTED = (NET_RETRIES, NET_FAILURES, NET_STALLS, CAS_URL_REFRESHES, READER_CORRUPT_WINDOWS)
OUT_OF_REACH = "ENETUNREACH"
PROBED_EVERY_S = 0.05
AT_ONCE_S = 0.1
GRACE_S = 2.0
"""What a busy machine may add to any time."""


@dataclass(frozen=True)
class Row:
    place: str
    fault: str
    times: str
    sees: str
    requests: int
    within_s: float
    counters: dict[str, int] | None

    @classmethod
    def of(cls, line: str) -> Row:
        place, fault, times, sees, requests, within, counters = (cell.strip() for cell in line.strip().strip("|").split("|"))
        counted = {name: int(count) for name, count in re.findall(r"`([\w.]+)` (\d+)", counters)}
        told = None if counters == "not counted" else counted
        return cls(place, fault, times, sees.strip("`"), int(requests), float(within), told)

    def __str__(self) -> str:
        return f"{self.place}: {self.fault}, {self.times}"


def read_table() -> list[Row]:
    """The rows that name a place; the table's head and other tables are left out."""
    lines = TABLE.read_text().splitlines()
    return [Row.of(line) for line in lines if line.startswith("| ") and line[2:].partition(" |")[0] in PLACES]


@dataclass(frozen=True)
class Outcome:
    sees: str
    requests: int
    seconds: float
    counters: dict[str, int]


async def carry_out(bench: Bench, cache: Path, row: Row, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Bring about the fault, do what meets it, and assert what holds for every row."""
    place = PLACES[row.place]
    count = {"first": 1, "all": None}[row.times]
    connected: set[tuple[str, int]] = set()
    real = sockets._connect_one

    async def connect(entry: Any) -> Any:
        connected.add(entry[4][:2])
        return await real(entry)

    monkeypatch.setattr(sockets, "_connect_one", connect)
    # A row that does not wait for the timeout of a proof is not to meet it on a busy machine.
    patience = {} if row.within_s > PROOF_S else {"proof_timeout_s": DEADLINE_S}
    async with open_user(bench, cache, **patience) as user:
        assert await user.read("warm.txt", 0, 100) == WARM
        if place.before:
            assert await perform(bench, user, user.engine, place.before) == "data"
        bench.hub.log.reset()
        async with KINDS[row.fault](bench, place, count):
            outcome = await _measure(bench, user, row)
            if outcome.sees == OUT_OF_REACH:
                await _fails_at_once(bench, user, row)
            await _others_go_on(user)
        bench.heal()
        with trio.fail_after(GRACE_S):
            while (sees := await perform(bench, user, user.engine, place.operation)) == OUT_OF_REACH == outcome.sees:
                await trio.testing.wait_all_tasks_blocked(PROBED_EVERY_S)
        assert sees == "data"
    assert {host for host, _ in connected} == {"127.0.0.1"}
    assert {port for _, port in connected} <= bench.ports
    return outcome


async def _measure(bench: Bench, user: User, row: Row) -> Outcome:
    place = PLACES[row.place]
    engine: Engine = user.engine
    asked_before = len(bench.asked(place))
    before = engine.counters.snapshot()
    start = trio.current_time()
    with trio.fail_after(DEADLINE_S + GRACE_S):
        sees = await perform(bench, user, engine, place.operation)
    seconds = trio.current_time() - start
    moved = {name: value - before.get(name, 0) for name, value in engine.counters.snapshot().items()}
    counted = {name: moved[name] for name in COUNTED if moved.get(name)}
    asked = bench.asked(place)[asked_before:]
    if row.place == "reconstruction":  # of what the proof may reach, too; whether that is asked in time is chance
        asked = [record for record in asked if record.range == asked[0].range]
    return Outcome(sees, len(asked) - moved.get(NET_HEDGES, 0), seconds, counted)


async def _fails_at_once(bench: Bench, user: User, row: Row) -> None:
    """Once it is known that a server is out of reach, what needs it fails without being tried."""
    again = await _measure(bench, user, row)
    assert (again.sees, again.counters.keys()) == (OUT_OF_REACH, {NET_FAILURES})
    assert again.seconds <= AT_ONCE_S + GRACE_S


async def _others_go_on(user: User) -> None:
    """Whoever needs nothing of what fails is served."""
    with trio.fail_after(GRACE_S):
        assert await user.read("warm.txt", 0, 100) == WARM
        for name in ("f.bin", "old.bin", "dir"):
            found = await user.operations.lookup(1, name.encode(), None)
            assert (await user.operations.getattr(found.st_ino, None)).st_ino == found.st_ino
