"""The small parts of the store: health, coverage, the form of records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetfs.errors import CorruptData
from xetfs.protocol.ranges import ChunkRange
from xetfs.store import records
from xetfs.store.api import covered_by
from xetfs.store.disk import MAINTENANCE_INTERVAL_S
from xetfs.store.health import PROBE_INTERVAL_S, Health

RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda pair: ChunkRange(pair[0], sum(pair))), max_size=6)


@given(RANGES, RANGES.filter(bool))
def test_a_range_is_covered_when_each_of_its_chunks_is_held(held: list[ChunkRange], wanted: list[ChunkRange]) -> None:
    chunks = {chunk for each in held for chunk in range(each.start, each.end)}
    assert covered_by(wanted[0], sorted(held)) == chunks.issuperset(range(wanted[0].start, wanted[0].end))


def test_health_goes_round(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = [0.0]
    health = Health(lambda: now[0])
    assert health.may_write()
    health.failed("disk")
    assert (health.state, health.failure, health.may_write()) == ("failing", "disk", False)
    now[0] = PROBE_INTERVAL_S / 2
    health.failed("still")  # no news
    now[0] = PROBE_INTERVAL_S
    assert health.may_write()
    assert (health.state, health.may_write()) == ("probing", False)
    health.failed("again")
    assert (health.state, health.may_write()) == ("failing", False)
    now[0] = 2 * PROBE_INTERVAL_S
    assert health.may_write()
    health.undecided()
    assert health.may_write()
    health.succeeded()
    assert (health.state, health.failure, health.may_write()) == ("ok", "", True)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_store_is_in_use_again_within_a_minute_of_its_disk() -> None:
    assert 2 * PROBE_INTERVAL_S + MAINTENANCE_INTERVAL_S < 60


@given(st.text(alphabet="ab-", max_size=4), st.text(max_size=4), st.binary(max_size=40), st.data())
def test_a_record_with_any_bit_changed_is_refused(kind: str, key: str, value: bytes, data: st.DataObject) -> None:
    stored = records.checksum(kind, key, value) + value
    assert records.decode(kind, key, stored) == value
    flipped = bytearray(stored)
    flipped[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for other in (bytes(flipped), stored[:-1], stored + b"x", b""):
        with pytest.raises(CorruptData):
            records.decode(kind, key, other)
    for other_kind, other_key in ((kind + "a", key), (kind, key + "a"), (kind + key[:1], key[1:] + "x")):
        with pytest.raises(CorruptData):
            records.decode(other_kind, other_key, stored)
