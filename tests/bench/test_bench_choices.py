"""Arguments, the data that is made, scenarios, and what a comparison calls worse."""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from benchlib import command
from benchlib.command import is_named, parse, sizes_of
from benchlib.compare import TOLERANCES, Change, changes, describe, medians
from benchlib.counting import parse_cachegrind, parse_perf
from benchlib.data import GIB, MIB, PARTS, QUICK, Data, Sizes, floats, model, noise, tensor_shapes
from benchlib.lab import Lab, Sample
from benchlib.readers import PAGE, READERS, Watch, pick, scattered_places
from benchlib.records import traffic_of
from benchlib.scenarios import SCALE, XETFS, Scenario, all_scenarios, run_rounds
from benchlib.scenarios_places import PLACES, places
from hypothesis import given
from hypothesis import strategies as st


def test_sizes_are_those_of_the_mode_but_where_said_otherwise() -> None:
    assert sizes_of(parse([])) == Sizes()
    assert sizes_of(parse(["--quick"])) == QUICK
    assert sizes_of(parse(["--quick", "--stream", "64", "--files", "5"])) == Sizes(64 * MIB, QUICK.large, QUICK.model, 5)


def test_different_sizes_are_kept_apart() -> None:
    assert Sizes().name() != QUICK.name() != Sizes(files=1).name()


def test_every_scenario_measures_xetfs_first_and_watches_a_system_that_it_has() -> None:
    for name, scenario in all_scenarios().items():
        assert scenario.name == name
        assert scenario.profiled in {"", *scenario.systems}
        if XETFS in scenario.systems:
            assert next(iter(scenario.systems)) == XETFS


def test_scenarios_name_the_data_that_they_need() -> None:
    needs = {part for scenario in all_scenarios().values() for part in scenario.needs}
    assert needs == set(PARTS)
    with pytest.raises(LookupError, match="model was not prepared"):
        _ = Data(QUICK, Path("hub")).model


def test_what_this_machine_lacks_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    asked: list[object] = []
    monkeypatch.setattr(command, "prepare", lambda base, sizes, parts, say: asked.append(set(parts)))
    monkeypatch.setattr(command, "Hub", lambda directory: pytest.fail("a hub was started"))
    monkeypatch.setenv("XETFS_WITNESS", str(tmp_path / "nothing"))
    arguments = ["--only", "their-server", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    assert command.main(arguments) == 2
    assert "skipping their-server: local_cas_server is not built" in capsys.readouterr().err
    assert asked == []


def test_a_scenario_is_picked_by_its_name_or_its_group() -> None:
    picked = {name for name, scenario in all_scenarios().items() if is_named(scenario, ["cold", SCALE])}
    assert "cold" in picked
    assert "cold-floats" not in picked
    assert {name for name in picked if name.startswith("scale-")} == picked - {"cold"}
    assert len(picked) > 5


def test_systems_take_turns_and_none_is_always_first() -> None:
    calls: list[str] = []
    sample = Sample(1.0, 0, {}, {}, 0, traffic_of([]))

    def taker(name: str) -> Callable[[Lab], Sample]:
        return lambda lab: calls.append(name) or sample

    scenario = Scenario("race", "A race", {name: taker(name) for name in "ab"})
    found = run_rounds(scenario, cast(Lab, None), 3, lambda text: None)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(passes) for name, passes in found.items()} == {"a": 3, "b": 3}


def test_made_data_is_the_same_each_time() -> None:
    assert b"".join(noise(3 * MIB, seed=1)) == b"".join(noise(3 * MIB, seed=1))
    assert b"".join(noise(MIB, seed=1)) != b"".join(noise(MIB, seed=2))
    numbers = np.frombuffer(b"".join(floats(9 * MIB, seed=3)), "<f4")
    assert len(numbers) * 4 == 9 * MIB
    assert abs(float(numbers.std()) - 0.02) < 0.001


@pytest.mark.parametrize("size", [64 * MIB, 512 * MIB, GIB])
def test_a_model_is_about_as_large_as_asked(size: int) -> None:
    total = sum(4 * int(np.prod(shape)) for shape in tensor_shapes(size).values())
    assert 0.7 * size < total <= size


def test_a_written_model_is_read_by_safetensors(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    path.write_bytes(b"".join(model(32 * MIB, seed=4)))
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length % 8 == 0
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(tensor_shapes(32 * MIB))
        assert file.get_tensor("layers.00.attn.q.weight").shape == (512, 512)


def test_readers_give_all_bytes_whatever_the_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(noise(MIB + 5, seed=9)))
    name = str(path)
    assert READERS["sequential"](Watch(), path=name, block=4096) == {"bytes": MIB + 5}
    assert READERS["sequential"](Watch(), path=name, block=70_000, start=10, end=200_000) == {"bytes": 199_990}
    assert READERS["shuffled"](Watch(), path=name, block=4096, seed=1) == {"bytes": MIB + 5}
    assert READERS["together"](Watch(), paths=[name] * 3, threads=2, block=70_000) == {"bytes": 3 * (MIB + 5)}
    assert READERS["scattered"](Watch(), path=name, length=4096, places=9, passes=3, seed=1) == {"bytes": 27 * 4096, "count": 27}
    assert READERS["statuses"](Watch(), directory=str(tmp_path), names=["file"]) == {"bytes": 0, "count": 1}
    assert READERS["by_turns"](Watch(), paths=[name] * 3, block=70_000) == {"bytes": 3 * (MIB + 5)}
    assert READERS["blocks"](Watch(), path=name, block=70_000, threads=3) == {"bytes": MIB + 5, "count": 15}
    assert READERS["blocks"](Watch(), path=name, block=4096, threads=3, count=20) == {"bytes": 20 * 4096, "count": 20}


@given(st.integers(1, 5 * PAGE), st.integers(1, 20), st.integers(0, 50 * PAGE), st.integers())
def test_scattered_blocks_lie_in_the_file_and_have_no_byte_in_common(block: int, count: int, more: int, seed: int) -> None:
    size = count * (-(-block // PAGE) * PAGE) + more
    found = scattered_places(size, block, count, seed)
    assert len(found) == count
    ordered = sorted(found)
    assert all(place % PAGE == 0 for place in found)
    assert ordered[0] >= 0
    assert ordered[-1] + block <= size
    assert all(before + block <= after for before, after in itertools.pairwise(ordered))
    with pytest.raises(ValueError, match="do not fit"):
        scattered_places(count * block - 1, block, count, seed)


def test_a_watch_adds_up_what_it_saw() -> None:
    watch = Watch()
    with watch.running():
        pass
    once = watch.seconds
    with watch.running():
        pass
    assert watch.seconds > once > 0


@given(st.lists(st.text(), unique=True, min_size=1), st.integers(0, 5), st.data())
def test_picked_names_keep_their_order(names: list[str], seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(names)))
    picked = pick(names, count, seed)
    assert len(picked) == count
    assert [name for name in names if name in picked] == picked


def test_places_are_far_from_each_other_and_within_the_file() -> None:
    found = sorted(places(GIB, seed=6))
    assert len(found) == PLACES
    assert found[0] > 0
    assert found[-1] < GIB - MIB
    assert all(after - before > 16 * MIB for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("kind", sorted(TOLERANCES))
def test_each_kind_of_count_may_grow_by_its_tolerance_and_no_more(kind: str) -> None:
    allowed = TOLERANCES[kind]
    most = 1000 * (1 + allowed.share) + allowed.amount
    assert not Change(f"what: {kind}", 1000, most).grew
    assert Change(f"what: {kind}", 1000, most + 1).grew
    assert Change(f"what: {kind}", 1000, most + 1).worse == (not allowed.is_hint)
    assert Change(f"what: {kind}", most + 1, 1000).verdict == "better"
    assert Change(f"what: {kind}", 1000, 1000).verdict == ""


def test_time_is_a_hint_and_decides_nothing() -> None:
    slower = Change("a: CPU s", 1, 100)
    assert slower.verdict == "more, a hint"
    assert "nothing got worse" in describe([slower], "v0.1")


def test_only_what_both_counted_is_compared() -> None:
    found = changes({"a: requests": 10, "gone: bytes": 5}, {"a: requests": 90, "new: bytes": 5})
    assert found == [Change("a: requests", 10, 90)]
    text = describe(found, "v0.1")
    assert re.search(r"a: requests +10 +90 +13 +WORSE", text)
    assert "1 of 1 got worse" in text
    assert "worse: a: requests: 10 → 90 (≤ 13)" in text
    assert "nothing got worse" in describe(changes({"a: bytes": 1}, {"a: bytes": 1}), "v0.1")


def test_a_comparison_fails_only_if_something_got_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "prepare", lambda *arguments: None)
    found = {"good": [Change("a: requests", 10, 10)], "bad": [Change("a: requests", 10, 10), Change("b: bytes", 10**6, 10**7)]}
    monkeypatch.setattr(command, "compare", lambda root, revision, *_: found[revision])
    for revision, code in (("good", 0), ("bad", 1)):
        arguments = ["--quick", "--compare", revision, "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
        assert command.main(arguments) == code
        assert capsys.readouterr().out == (tmp_path / "out" / "compare.txt").read_text()
        assert ("worse: b: bytes" in (tmp_path / "out" / "compare.txt").read_text()) == bool(code)


def test_the_median_of_each_count() -> None:
    assert medians([{"a": 1, "b": 9}, {"a": 3, "b": 7}, {"a": 2, "b": 8}]) == {"a": 2, "b": 8}


def test_counts_of_instructions_are_understood() -> None:
    assert parse_perf("# started\n\n123456,,instructions:u,1000,100.00,,\n") == 123456
    assert parse_perf("<not supported>,,instructions:u,0,100.00,,\n") is None
    assert parse_perf("") is None
    assert parse_cachegrind("==1== \n==1== I   refs:      1,234,567\n") == 1234567
    with pytest.raises(ValueError, match="no count"):
        parse_cachegrind("==1== Killed\n")
