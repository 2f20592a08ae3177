"""Every row of docs/faults.md, brought about and compared."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from fault_bench import ATTEMPTS, CONNECT_S, DEADLINE_S, OUTAGE_S, PLACES, PROOF_S, STALL_S, TOKEN, open_bench
from fault_kinds import KINDS
from fault_row import GRACE_S, OUT_OF_REACH, TABLE, Row, carry_out, read_table
from flat_settings import flat_settings
from loopback import Names

ROWS = read_table()
SECRET = re.compile(rf"{TOKEN}|xet_[A-Za-z0-9]{{12,}}|Signature=|sig=|user:secret")


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_row(
    row: Row, tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="xetfs")
    async with open_bench(tmp_path) as bench:
        outcome = await carry_out(bench, tmp_path / "cache", row, monkeypatch)
    assert (outcome.sees, outcome.requests) == (row.sees, row.requests)
    assert outcome.seconds <= row.within_s + GRACE_S
    if row.counters is not None:
        assert outcome.counters == row.counters
    _check_log(caplog, row)


def _check_log(caplog: pytest.LogCaptureFixture, row: Row) -> None:
    """One line for each operation says what failed, none is a traceback, and no secret is in any of them."""
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR and record.name.startswith("xetfs.")]
    told = row.sees not in ("data", "ENOENT") and not row.place.endswith("mount")
    assert {record.name for record in errors} == ({"xetfs.fs.guard"} if told else set())
    assert len(errors) <= 1 or row.sees == OUT_OF_REACH  # where it is asked several times
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("xetfs."))
    assert SECRET.findall(caplog.text) == []


def test_the_table_says_which_settings_it_is_about() -> None:
    usual = flat_settings()
    stalls = (usual.net.stall_timeout_first_s, usual.net.stall_timeout_s)
    limits = (usual.net.connect_timeout_s, usual.reader.proof_timeout_s, usual.net.outage_patience_s, usual.operation_deadline_s)
    assert (usual.net.attempts_max, *stalls, *limits) == (5, 15, 25, 5, 2, 0.06, 30)
    text = " ".join(TABLE.read_text().split())
    assert f"{ATTEMPTS} attempts, a stall of {STALL_S / 2:g} s in the first and of {STALL_S:g} s at most" in text
    assert f"a connection within {CONNECT_S:g} s" in text
    assert f"a range proof within {PROOF_S:g} s" in text
    assert f"a server out of reach after {OUTAGE_S:g} s, a deadline of {DEADLINE_S:g} s" in text
    assert "by default they are 5, 15 s, 25 s, 5 s, 2 s, 0.06 s and 30 s" in text


def test_every_fault_and_place_has_a_row_and_none_has_two() -> None:
    assert {row.fault for row in ROWS} == set(KINDS)
    assert {row.place for row in ROWS} == set(PLACES)
    assert len({(row.place, row.fault, row.times) for row in ROWS}) == len(ROWS) >= 120
    cells = [line for line in TABLE.read_text().splitlines() if re.match(r"\| (?!Place|---)", line)]
    assert len(cells) == len(ROWS)
