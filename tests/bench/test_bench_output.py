"""Tables, pictures and profiles: what is drawn, and that any name may stand in it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchlib.figures import Figure, at_least, at_most
from benchlib.picture import MISSED, REACHED, bars
from benchlib.report import BEGIN, END, as_json, markdown, ratios_first, table, with_figures
from benchlib.stacks import flame_graph, parse_stacks, top_self, top_total
from hypothesis import given
from hypothesis import strategies as st

from xetfs.settings import MIB, Settings

TITLES = {"cold": "Cold <read> & more", "idle": "Idle"}
FIGURES = [
    Figure("cold", "rate", "how it was", "MB/s", (900.0, 1000.0, 1100.0)),
    Figure("cold", "CPU", "how it was", "s/GB", (3.0, 2.5, 2.0), at_most(2)),
    Figure("cold", "rate / peer", 'a "quoted" <how>', "×", (1.4, 1.2, 1.3), at_least(1)),
]
SVG = "{http://www.w3.org/2000/svg}"
STACKS = ["thread (12): Trio thread 3;work (a.py:1);decode (b.py:2) 3", "thread (13): Trio thread 4;work (a.py:1) 1"]


def test_a_table_has_ratios_first_and_says_what_is_missed() -> None:
    text = table(FIGURES, TITLES)
    assert text.index("rate / peer") < text.index("CPU") < text.index("MB/s")
    assert "1.3 ×" in text
    assert "1 of 2 targets reached" in text
    assert "missed: cold, CPU: 2.5 s/GB (≤ 2)" in text
    assert "Idle" not in text


def test_what_has_a_target_comes_before_what_has_none() -> None:
    assert [figure.name for figure in ratios_first(FIGURES)] == ["rate / peer", "CPU", "rate"]


def test_documents_show_what_has_a_target() -> None:
    rows = markdown(FIGURES, TITLES).splitlines()
    assert len(rows) == 2 + 2
    assert all(row.count("|") == 6 for row in rows)


def test_figures_take_the_place_of_those_before() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = with_figures(page, "new\n")
    assert new == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert with_figures(new, "new") == new
    with pytest.raises(ValueError, match="no place"):
        with_figures("before", "new")


def test_json_holds_every_value() -> None:
    found = as_json(FIGURES, {"cold": {"xetfs": []}}, {"cpus": 2})
    assert found["figures"][2] == {
        "scenario": "cold",
        "name": "rate / peer",
        "how": 'a "quoted" <how>',
        "unit": "×",
        "median": 1.3,
        "low": 1.2,
        "high": 1.4,
        "values": [1.4, 1.2, 1.3],
        "target": "≥ 1",
        "reached": True,
    }


def test_a_picture_has_a_bar_for_each_target_and_is_well_formed() -> None:
    root = ElementTree.fromstring(bars(FIGURES, TITLES, title="A & B", note="<note>"))
    colours = [bar.get("fill") for bar in root.iter(f"{SVG}rect")]
    assert colours == ["#ffffff", MISSED, REACHED]
    texts = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    assert "Cold <read> & more" in texts
    assert "Idle" not in texts
    assert "2.5 s/GB (≤ 2)" in texts


def test_bars_are_as_long_as_what_is_reached() -> None:
    figures = [Figure("cold", str(value), "", "", (value,), at_least(1)) for value in (0.5, 1.0, 2.0, 50.0, 70.0)]
    root = ElementTree.fromstring(bars(figures, TITLES, title="", note=""))
    half, one, two, *cut = [float(bar.get("width", "")) for bar in root.iter(f"{SVG}rect")][1:]
    assert 2 * half == pytest.approx(one, abs=0.2)
    assert 2 * one == pytest.approx(two, abs=0.2)
    assert cut[0] == cut[1] > two


def test_stacks_are_counted_by_frame_and_by_what_is_below() -> None:
    stacks = parse_stacks([*STACKS, "a remark", "", "thread (1): MainThread;EpollIOManager.get_events (trio/_io.py:1) 50"])
    assert sum(stacks.values()) == 4
    assert top_self(stacks, 1) == [("decode (b.py:2)", 0.75)]
    assert ("thread Trio thread", 1.0) in top_total(stacks, 2)
    assert top_self(parse_stacks([]), 5) == []


def test_a_frame_that_calls_itself_counts_once() -> None:
    assert top_total(parse_stacks(["a;a;a 2"]), 5) == [("a", 1.0)]


@given(
    st.dictionaries(st.lists(st.text("ab<&\"'", min_size=1), min_size=1, max_size=4).map(tuple), st.integers(1, 9), max_size=6)
)
def test_a_flame_graph_is_well_formed_and_no_wider_than_its_page(stacks: dict[tuple[str, ...], int]) -> None:
    root = ElementTree.fromstring(flame_graph(stacks, "a <daemon>"))
    page = float(root.get("viewBox", "").split()[2])
    for bar in root.iter(f"{SVG}rect"):
        assert float(bar.get("x", "0")) + float(bar.get("width", "")) <= page + 0.2


def test_the_documents_have_a_place_for_the_picture_and_the_figures() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert ElementTree.fromstring((docs / "performance.svg").read_text()).tag == f"{SVG}svg"
    page = (docs / "performance.md").read_text()
    assert "(performance.svg)" in page
    assert "the table" in with_figures(page, "the table")


def test_the_documents_tell_the_defaults_of_settings() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| (\d+)( MiB)? \|", page, re.MULTILINE)
    settings = Settings(cache_dir=Path("/cache"))
    assert "window_bytes_max" in {name for name, _, _ in told}
    for name, count, unit in told:
        assert getattr(settings, name) == int(count) * (MIB if unit else 1), name
