"""Loading ahead in files whose layout is known: tensors whole, headers alone, and nothing that only lies beside them."""

from __future__ import annotations

import json
import random
from array import array

import pytest
import trio
from conftest_reader import FakeCas, FakeFile, open_bench
from hypothesis import given
from hypothesis import strategies as st

from xetfs.protocol.formats import Layout
from xetfs.protocol.ranges import ByteRange
from xetfs.reader.prefetch import OVERSHOOT_BYTES, Prefetcher, Want
from xetfs.store.memory import MemoryStore
from xetfs.telemetry import Counters
from xetfs.units import KIB, MIB

HEADER = 100 * KIB
PAGE = 4 * KIB
READ = MIB


def make_prefetcher(lengths: list[int], *, awaits_layout: bool = False) -> tuple[Prefetcher, Layout]:
    """A file of a header and units of these lengths, back to back."""
    edges = [HEADER]
    for length in lengths:
        edges.append(edges[-1] + length)
    layout = Layout(ByteRange(0, HEADER), array("Q", edges[:-1]), array("Q", edges[1:]))
    prefetcher = Prefetcher(
        edges[-1],
        window_bytes_min=256 * KIB,
        window_bytes_max=8 * MIB,
        ahead_bytes_max=96 * MIB,
        awaits_layout=awaits_layout,
    )
    if not awaits_layout:
        prefetcher.learn(layout)
    return prefetcher, layout


def read_on(prefetcher: Prefetcher, start: int, end: int, step: int = READ) -> list[Want]:
    return [prefetcher.observe(ByteRange(at, min(at + step, end))) for at in range(start, end, step)]


def reached(wants: list[Want]) -> int:
    return max(max(want.demand.end, want.ahead_until) for want in wants)


def test_a_touch_at_the_beginning_of_a_unit_wants_it_whole() -> None:
    prefetcher, layout = make_prefetcher([5 * MIB, 40 * MIB, 700 * KIB, 500 * MIB, 3 * MIB])
    for unit in (layout.units[1], layout.units[0]):
        want = prefetcher.observe(ByteRange(unit.start, unit.start + PAGE))
        assert (want.demand, want.ahead_until) == (ByteRange(unit.start, unit.start + 256 * KIB), unit.end)
        assert len(unit) // 8 <= want.step <= 8 * MIB
    huge = layout.units[3]
    assert prefetcher.observe(ByteRange(huge.start, huge.start + PAGE)).ahead_until == huge.start + 96 * MIB


def test_a_touch_through_a_mapping_finds_its_unit() -> None:
    """The kernel asks for half a megabyte on both sides of the page."""
    prefetcher, layout = make_prefetcher([30 * MIB, 30 * MIB])
    second = layout.units[1]
    want = prefetcher.observe(ByteRange(second.start - 512 * KIB, second.start + 512 * KIB))
    assert want.ahead_until == second.end


def test_copying_a_unit_through_a_mapping_wants_that_and_nothing_beside_it() -> None:
    """A copy touches the first page, then the last one, which both belong to a neighbour as well, then goes on from the first."""
    prefetcher, layout = make_prefetcher([1000 + 6 * MIB] * 40)
    for unit in layout.units[2::4]:
        first, last = (at // PAGE * PAGE for at in (unit.start, unit.end))
        want = prefetcher.observe(ByteRange(first - 512 * KIB, first + 512 * KIB))
        assert want.ahead_until == unit.end
        want = prefetcher.observe(ByteRange(last - 512 * KIB, last + 512 * KIB))
        assert (want.ahead_until, want.demand.end) == (0, last + 512 * KIB)
        wants = read_on(prefetcher, first + 512 * KIB, last - 512 * KIB)
        assert reached(wants) <= unit.end


def read_back(prefetcher: Prefetcher, start: int, end: int) -> list[Want]:
    """As a copy that goes from the last page to the first makes the kernel read: half of its read-ahead lies below each page."""
    wants = [prefetcher.observe(ByteRange(end // PAGE * PAGE - 256 * KIB, end // PAGE * PAGE + 256 * KIB))]
    at = wants[0].demand.start
    while at > start:
        wants.append(prefetcher.observe(ByteRange(max(at - 260 * KIB, start), at)))
        at = wants[-1].demand.start
    return wants


def test_copying_a_unit_backward_loads_it_whole() -> None:
    """With the second request, which shows which way the program goes; nothing below its beginning."""
    prefetcher, layout = make_prefetcher([10 * MIB, 64 * MIB, 10 * MIB])
    prefetcher.observe(ByteRange(0, 512 * KIB))
    unit = layout.units[1]
    wants = read_back(prefetcher, unit.start, unit.end)
    assert [want.down_to for want in wants[:2]] == [-1, unit.start]
    assert all(want.down_to == -1 for want in wants[2:])
    assert all(want.ahead_until <= layout.units[2].end for want in wants)


def test_copying_a_part_of_a_unit_backward_loads_it_downward() -> None:
    """After a few requests, the more the more was read."""
    prefetcher, layout = make_prefetcher([10 * MIB, 64 * MIB, 10 * MIB])
    prefetcher.observe(ByteRange(0, 512 * KIB))
    unit = layout.units[1]
    wants = read_back(prefetcher, unit.start, unit.start + 48 * MIB)
    assert [want.down_to for want in wants[:3]] == [-1, -1, -1]
    said = [(want.demand.start, want.down_to) for want in wants if want.down_to >= 0]
    assert 3 <= len(said) <= 20
    assert said[0][0] - said[0][1] == 8 * 260 * KIB
    assert [down_to for _, down_to in said] == sorted((down_to for _, down_to in said), reverse=True)
    assert said[-1][1] == unit.start


def test_reading_on_from_a_header_wants_the_first_unit_whole() -> None:
    """Its first page came with the header; that the program reads it shows when it has come further than the kernel goes."""
    prefetcher, layout = make_prefetcher([40 * MIB, 40 * MIB], awaits_layout=True)
    prefetcher.observe(ByteRange(0, 512 * KIB))
    prefetcher.learn(layout)
    wants = read_on(prefetcher, 512 * KIB, 3 * MIB, 512 * KIB)
    unit = layout.units[0]
    assert [reached([want]) == unit.end for want in wants].index(True) == 1
    assert reached(wants) == unit.end


def test_copying_unit_after_unit_backward_loads_each_whole_and_those_that_follow() -> None:
    """However many there are: the first page of each is in the page cache with the last one of the unit before it."""
    prefetcher, layout = make_prefetcher([64 * MIB, *[1000 + 4 * MIB] * 40])
    prefetcher.observe(ByteRange(0, 512 * KIB))
    read_back(prefetcher, layout.units[0].start, layout.units[0].end)
    loaded = layout.units[0].end
    wants = read_back(prefetcher, layout.units[1].start, layout.units[1].end)
    assert [want.down_to for want in wants[:2]] == [-1, layout.units[1].start]  # the first request may have meant the next unit
    for unit in layout.units[2:]:
        first, *others = read_back(prefetcher, unit.start, unit.end)
        assert first.down_to == unit.start
        assert first.ahead_until == 0 or first.ahead_until >= min(loaded + 8 * MIB, layout.units[-1].end)
        assert all(want.ahead_until == 0 for want in others)
        loaded = max(loaded, first.ahead_until)
        assert loaded >= min(unit.end + 80 * MIB, layout.units[-1].end)


def test_copying_some_units_backward_wants_those_alone() -> None:
    """The first page of each is touched first, which holds the end of another."""
    prefetcher, layout = make_prefetcher([1000 + 6 * MIB] * 60)
    for unit in layout.units[2::4]:
        first = unit.start // PAGE * PAGE
        want = prefetcher.observe(ByteRange(first - 256 * KIB, first + 256 * KIB))
        assert (want.ahead_until, want.down_to) == (unit.end, -1)
        wants = read_back(prefetcher, first + 256 * KIB, unit.end)
        assert all(want.down_to == -1 or want.down_to >= unit.start for want in wants)
        assert reached(wants) <= unit.end + 512 * KIB


def test_copying_every_other_unit_backward_wants_nothing_of_those_between() -> None:
    """The first page of one that is wanted holds the end of the one that follows what was read."""
    prefetcher, layout = make_prefetcher([1000 + 6 * MIB] * 60)
    prefetcher.observe(ByteRange(0, 512 * KIB))
    read_back(prefetcher, layout.units[0].start, layout.units[0].end)
    for unit in layout.units[2::2]:
        first = unit.start // PAGE * PAGE
        touch = ByteRange(first - 256 * KIB, first + 256 * KIB)
        assert prefetcher.observe(touch)[:2] == (touch, 0)
        wants = read_back(prefetcher, first + 256 * KIB, unit.end)
        assert wants[0].down_to == unit.start
        assert all(want.down_to == -1 or want.down_to >= unit.start for want in wants)
        assert reached(wants) <= unit.end + 512 * KIB


def test_the_last_page_of_a_unit_beside_one_that_was_read_shows_no_way_back() -> None:
    """Of what the kernel reads around that page, the page cache has the part that the other one brought."""
    prefetcher, layout = make_prefetcher([1000 + 20 * MIB, 3 * MIB, 20 * MIB])
    prefetcher.observe(ByteRange(0, 512 * KIB))
    beside = layout.units[1]
    edge = beside.start // PAGE * PAGE + PAGE
    read_on(prefetcher, edge, beside.end, 512 * KIB)
    assert prefetcher.observe(ByteRange(edge - 256 * KIB, edge)).down_to == -1
    assert prefetcher.observe(ByteRange(edge - 512 * KIB, edge - 256 * KIB)).down_to == -1


def test_a_file_without_a_layout_may_be_read_backward_too() -> None:
    prefetcher, _ = make_prefetcher([100 * MIB], awaits_layout=True)
    prefetcher.learn(None)
    wants = [prefetcher.observe(ByteRange(at - 64 * KIB, at)) for at in range(100 * MIB, 20 * MIB, -64 * KIB)]
    said = [want.down_to for want in wants if want.down_to >= 0]
    assert [want.down_to for want in wants[:2]] == [-1, -1]
    assert 5 <= len(said) <= 40
    assert said[-1] == 0
    assert len({want.stream for want in wants}) == 1


def test_requests_that_change_places_are_not_read_backward() -> None:
    """The kernel sends several at once."""
    prefetcher, _ = make_prefetcher([100 * MIB], awaits_layout=True)
    prefetcher.learn(None)
    for at in range(0, 40 * MIB, 2 * MIB):
        for start in (at + MIB, at):
            assert prefetcher.observe(ByteRange(start, start + MIB)).down_to == -1


def test_a_place_that_is_not_known_to_be_touched_wants_no_unit() -> None:
    """What the kernel reads on of its own accord, and what it asks for when it has the rest of its read-ahead already."""
    prefetcher, layout = make_prefetcher([30 * MIB, 700 * KIB] * 12)
    around = ByteRange(layout.units[1].start - READ // 2, layout.units[1].start + READ // 2)
    prefetcher.observe(around)
    for small in layout.units[3::2]:  # whole, so that they want nothing; many, so that the first stream is forgotten
        prefetcher.observe(small)
    assert prefetcher.observe(ByteRange(around.end, around.end + READ)).ahead_until == 0
    large = layout.units[6]
    assert prefetcher.observe(ByteRange(large.start - 100 * KIB, large.start + 212 * KIB)).ahead_until == 0
    large = layout.units[10]
    assert prefetcher.observe(ByteRange(large.start - 100 * KIB, large.start - 100 * KIB + READ)).ahead_until == large.end


def test_looking_at_the_beginning_of_each_unit_wants_none_of_them() -> None:
    """As PyTorch does with the records of a checkpoint: it reads a few bytes, and the kernel 132 KiB."""
    prefetcher, layout = make_prefetcher([9 * MIB] * 20)
    prefetcher.observe(ByteRange(0, 512 * KIB))
    for unit in layout.units[1:]:
        want = prefetcher.observe(ByteRange(unit.start, unit.start + 132 * KIB))
        assert (len(want.demand), want.ahead_until) == (132 * KIB, 0)


def test_going_on_a_few_units_further_is_a_jump() -> None:
    prefetcher, layout = make_prefetcher([20 * MIB, *[150 * KIB] * 10, 30 * MIB, 30 * MIB])
    read_on(prefetcher, layout.units[0].start, layout.units[0].end)
    large = layout.units[11]
    want = prefetcher.observe(ByteRange(large.start // PAGE * PAGE, large.start // PAGE * PAGE + READ))
    assert (want.stream, want.ahead_until) == (2, large.end)
    assert reached(read_on(prefetcher, large.start + READ, large.end)) <= large.end


@pytest.mark.parametrize(("first", "per_read"), [(0, 2), (3, 0.5)])
def test_past_a_unit_is_loaded_by_what_was_read_of_whole_units(first: int, per_read: float) -> None:
    """Twice as much when that was from the first unit on, half as much otherwise."""
    prefetcher, layout = make_prefetcher([3 * MIB] * 10 + [40 * MIB] * 5)
    begin = layout.units[first].start
    most = 0.0
    for at in range(begin, layout.units[-1].start, READ):
        want = prefetcher.observe(ByteRange(at, at + READ))
        past = max(want.demand.end - READ, want.ahead_until) - layout.end_from(at)
        assert past <= per_read * (at - begin)
        most = max(most, past / (at - begin + 1))
    assert most > per_read / 2


def test_copying_all_units_in_order_is_led_ahead_of() -> None:
    """Each copy begins with the last page of its unit: what goes on from there knows what was read before it."""
    prefetcher, layout = make_prefetcher([24 * MIB + 1000, *[150 * KIB] * 10] * 12)
    ahead = 0
    for unit in layout.units[::11]:
        last = unit.end // PAGE * PAGE
        assert ahead >= (unit.start + 2 * MIB if unit.start > 60 * MIB else 0)
        for span in (
            ByteRange(last - 256 * KIB, last + 256 * KIB),
            *(ByteRange(at, at + 512 * KIB) for at in range(unit.start // PAGE * PAGE, last - 768 * KIB, 512 * KIB)),
            ByteRange(last - 768 * KIB, last - 256 * KIB),
            ByteRange(last + 256 * KIB, last + 420 * KIB),
            *(ByteRange(at, at + 512 * KIB) for at in range(last + 420 * KIB, unit.end + 1000 * KIB, 512 * KIB)),
        ):
            ahead = max(ahead, prefetcher.observe(span.clip(layout.ends[-1])).ahead_until)
    assert ahead == layout.ends[-1]


def test_copying_backward_keeps_what_is_known_of_the_reader() -> None:
    """The first page of a unit, its last one, then all between from there: many reads, and one stream."""
    prefetcher, layout = make_prefetcher([24 * MIB] * 12)
    first, second, third = layout.units[:3]
    read_on(prefetcher, first.start, second.start + READ, 512 * KIB)
    prefetcher.observe(ByteRange(second.end - 256 * KIB, second.end + 256 * KIB))
    streams = set()
    for end in range(second.end - 256 * KIB, second.start + READ, -256 * KIB):
        streams.add(prefetcher.observe(ByteRange(end - 256 * KIB, end)).stream)
    assert len(streams) == 1
    assert reached(read_on(prefetcher, third.start + 256 * KIB, third.start + 4 * MIB, 512 * KIB)) >= third.end + 40 * MIB


def test_a_unit_that_is_read_at_once_wants_no_more() -> None:
    prefetcher, layout = make_prefetcher([300 * KIB] * 100)
    for unit in layout.units[::20]:
        want = prefetcher.observe(unit)
        assert (want.demand, want.ahead_until) == (unit, 0)


def test_a_touch_in_the_middle_of_a_long_unit_wants_one_window() -> None:
    prefetcher, layout = make_prefetcher([500 * MIB])
    start = layout.units[0].start + 200 * MIB
    assert prefetcher.observe(ByteRange(start, start + PAGE)).ahead_until == start + 8 * MIB


def test_some_of_the_tensors_cost_little_more_than_these() -> None:
    """Every fourth of 200 tensors, in any order, read by the kernel up to its own read-ahead past their ends."""
    prefetcher, layout = make_prefetcher([12 * MIB] * 200)
    chosen = list(layout.units[::4])
    random.Random(3).shuffle(chosen)
    for unit in chosen:
        wants = read_on(prefetcher, unit.start, unit.end + OVERSHOOT_BYTES)
        assert wants[0].ahead_until == unit.end
        assert reached(wants) <= unit.end + OVERSHOOT_BYTES


def test_reading_all_of_a_file_is_led_ahead_of() -> None:
    prefetcher, layout = make_prefetcher([12 * MIB, 64 * KIB, 30 * MIB, 100 * KIB] * 60)
    end = layout.units[-1].end
    ahead, waited = 0, 0
    for at in range(0, end, 128 * KIB):
        want = prefetcher.observe(ByteRange(at, min(at + 128 * KIB, end)))
        ahead = max(ahead, want.ahead_until)
        waited += at + 128 * KIB > max(ahead, end - 1)
        assert ahead - at <= 96 * MIB + 128 * KIB
    assert ahead == end
    assert waited <= 40  # reads that nothing was ahead of: a few at each of the first borders


def test_jumps_within_a_unit_that_nobody_reads_on_from_cost_nothing_extra() -> None:
    prefetcher, layout = make_prefetcher([2000 * MIB])
    choose = random.Random(1)
    wants = []
    for _ in range(100):
        start = choose.randrange(layout.units[0].start, layout.units[0].end - PAGE)
        span = ByteRange(start, start + PAGE)
        wants.append((span, prefetcher.observe(span)))
    wanted = [want for span, want in wants if want.ahead_until or want.demand != span]
    assert 1 <= len(wanted) <= 10
    again = read_on(prefetcher, layout.units[0].start + 4 * MIB, layout.units[0].start + 20 * MIB)
    assert max(want.ahead_until for want in again) > layout.units[0].start + 20 * MIB


def test_a_header_is_read_without_anything_behind_it() -> None:
    prefetcher, _ = make_prefetcher([50 * MIB] * 3)
    wants = read_on(prefetcher, 0, HEADER, 16 * KIB)
    assert reached(wants[1:]) <= HEADER
    assert reached(wants) <= 256 * KIB


def test_until_the_layout_is_known_what_is_wanted_is_in_proportion_to_what_was_read() -> None:
    prefetcher, _ = make_prefetcher([50 * MIB] * 3, awaits_layout=True)
    for want in read_on(prefetcher, 0, 8 * MIB, 64 * KIB)[4:]:
        assert max(want.demand.end, want.ahead_until) <= 3 * (want.demand.start + 64 * KIB)
    prefetcher.learn(None)
    assert reached(read_on(prefetcher, 8 * MIB, 9 * MIB, 64 * KIB)) >= 30 * MIB


@given(
    st.lists(st.integers(1, 40 * MIB), max_size=30), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 2 * MIB)), max_size=60)
)
def test_what_is_wanted_stays_within_file_and_bounds(lengths: list[int], reads: list[tuple[float, int]]) -> None:
    prefetcher, layout = make_prefetcher(lengths)
    size = layout.end_from(1 << 60)
    for place, length in reads:
        start = int(place * (size - 1))
        span = ByteRange(start, min(start + length, size))
        want = prefetcher.observe(span)
        assert want.demand.start == span.start
        assert span.end <= want.demand.end <= max(span.end, min(span.start + 8 * MIB, size))
        assert want.ahead_until <= min(span.end + 96 * MIB, size)
        assert -1 <= want.down_to <= span.start
        assert want.down_to == -1 or span.start - want.down_to <= 96 * MIB


# Through a FileReader


@pytest.fixture
def model(cas: FakeCas) -> FakeFile:
    """A safetensors file of 24 tensors of 4 MiB."""
    entries = {
        f"layer.{i}": {"dtype": "U8", "shape": [4 * MIB], "data_offsets": [i * 4 * MIB, (i + 1) * 4 * MIB]} for i in range(24)
    }
    text = json.dumps(entries).encode().ljust(50_000)
    content = len(text).to_bytes(8, "little") + text + random.Random(2).randbytes(96 * MIB)
    chunks = [content[at : at + 64 * KIB] for at in range(0, len(content), 64 * KIB)]
    return cas.add_file([(cas.add_xorb(chunks[i : i + 500]), 0, len(chunks[i : i + 500])) for i in range(0, len(chunks), 500)])


def data_at(model: FakeFile) -> int:
    return 8 + int.from_bytes(model.content[:8], "little")


async def test_a_header_alone_moves_little(cas: FakeCas, model: FakeFile, autojump_clock: object) -> None:
    async with open_bench(cas) as bench:
        reader = bench.reader(model, "model.safetensors")
        reader.open()
        for start in range(0, data_at(model), 16 * KIB):
            await reader.read(ByteRange(start, start + 16 * KIB))
        await trio.sleep(10)
        assert cas.fetched_bytes <= 512 * KIB


async def test_a_touch_loads_the_tensor_and_not_its_neighbours(cas: FakeCas, model: FakeFile, autojump_clock: object) -> None:
    async with open_bench(cas) as bench:
        reader = bench.reader(model, "model.safetensors")
        reader.open()
        await reader.read(ByteRange(0, data_at(model)))
        for i in (17, 3, 9):
            before = cas.fetched_bytes
            start = data_at(model) + i * 4 * MIB
            await reader.read(ByteRange(start, start + 512 * KIB))
            await trio.sleep(10)
            held = reader.read_nowait(ByteRange(start, start + 4 * MIB))
            assert held is not None
            assert bytes(held) == model.content[start : start + 4 * MIB]
            assert cas.fetched_bytes - before <= 5 * MIB
            assert reader.map.at(start + 5 * MIB) is None


async def test_neighbours_asked_for_at_the_same_time_bring_no_byte_twice_but_of_a_chunk(
    cas: FakeCas, model: FakeFile, autojump_clock: object
) -> None:
    """The second begins where the first one ends, before anybody knows what that brings."""
    cas.delay_s = 0.05
    async with open_bench(cas) as bench:
        reader = bench.reader(model, "model.bytes")
        reader.open()
        async with trio.open_nursery() as nursery:
            for start in range(40 * MIB, 44 * MIB, MIB):
                nursery.start_soon(reader.read, ByteRange(start, start + MIB))
        distinct = {(xorb, byte // 65544) for xorb, span in cas.fetched for byte in range(span.first, span.last, 65544)}
        edges = sum(kind == "reconstruction" for kind, _ in cas.asked) - 1
        assert len(distinct) * 65544 <= cas.fetched_bytes <= (len(distinct) + edges) * 65544


async def test_reading_all_takes_hardly_longer_than_without_a_layout(
    cas: FakeCas, model: FakeFile, autojump_clock: object
) -> None:
    cas.delay_s = 0.05
    took = {}
    for name in ("model.safetensors", "model.bytes"):
        async with open_bench(cas) as bench:
            reader = bench.reader(model, name)
            reader.open()
            began = trio.current_time()
            for start in range(0, len(model.content), READ):
                await reader.read(ByteRange(start, start + READ))
            took[name] = trio.current_time() - began
    assert took["model.safetensors"] <= took["model.bytes"] + 1.0


async def test_reading_backward_takes_hardly_longer_than_forward(cas: FakeCas, model: FakeFile, autojump_clock: object) -> None:
    cas.delay_s = 0.05
    asked, took = {}, {}
    for direction in (1, -1):
        async with open_bench(cas) as bench:
            reader = bench.reader(model, "model.safetensors")
            reader.open()
            cas.asked.clear()
            began = trio.current_time()
            places = range(0, len(model.content), 256 * KIB)
            found = {}
            for start in (*places[:1], *places[1:][::direction]):
                found[start] = bytes(await reader.read(ByteRange(start, start + 256 * KIB)))
            assert b"".join(found[start] for start in places) == model.content
            asked[direction], took[direction] = len(cas.asked), trio.current_time() - began
    assert asked[-1] <= 3 * asked[1], "each tensor is asked for by itself"
    assert took[-1] <= took[1] + 2.0


async def test_what_was_evicted_is_loaded_ahead_of_a_backward_reader_as_what_is_new(
    cas: FakeCas, model: FakeFile, autojump_clock: object
) -> None:
    store = MemoryStore(Counters())
    async with open_bench(cas, store) as bench:
        reader = bench.reader(model, "model.safetensors")
        reader.open()
        places = range(0, len(model.content), 256 * KIB)
        costs = []
        for _ in range(2):
            cas.asked.clear()
            for start in (*places[:1], *reversed(places[1:])):
                data = bytes(await reader.read(ByteRange(start, start + 256 * KIB)))
                assert data == model.content[start : start + 256 * KIB]
            costs.append(len(cas.asked))
            await bench.shelf.drain()
            bench.shelf.release_idle()
            store.close()  # which leaves it empty
    assert 0 < costs[1] <= 1.5 * costs[0] <= 100


async def test_a_file_that_is_not_what_its_name_says_is_read_all_the_same(cas: FakeCas, autojump_clock: object) -> None:
    chunks = [random.Random(i).randbytes(64 * KIB) for i in range(64)]
    file = cas.add_file([(cas.add_xorb(chunks), 0, 64)])
    for name in ("x.safetensors", "x.gguf", "x.parquet", "x.pt"):
        async with open_bench(cas) as bench:
            reader = bench.reader(file, name)
            found = [bytes(await reader.read(ByteRange(at, at + 100_000))) for at in range(0, len(file.content), 100_000)]
            assert b"".join(found) == file.content
