"""Tables, pictures and profiles: what is drawn, and that any name may stand in it."""

from __future__ import annotations

import itertools
import re
from operator import attrgetter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchlib import command
from benchlib.curve_picture import curve_panels
from benchlib.curves import Curve
from benchlib.figures import Figure, at_least, at_most
from benchlib.headlines import COMMAND, HEADLINES, headlines
from benchlib.outcome import Outcome
from benchlib.picture import MISSED, PALE, REACHED, bars
from benchlib.report import as_json, curve_markdown, curve_table, markdown, ratios_first, table, with_block
from benchlib.scenarios import all_scenarios
from benchlib.stacks import flame_graph, parse_stacks, top_self, top_total
from flat_settings import flat_settings
from hypothesis import given
from hypothesis import strategies as st

from xetfs.units import MIB

TITLES = {"cold": "Cold <read> & more", "idle": "Idle"}
FIGURES = [
    Figure("cold", "rate", "how it was", "MB/s", (900.0, 1000.0, 1100.0)),
    Figure("cold", "CPU", "how it was", "s/GB", (3.0, 2.5, 2.0), at_most(2)),
    Figure("cold", "rate / peer", 'a "quoted" <how>', "×", (1.4, 1.2, 1.3), at_least(1)),
]
CURVES = [
    Curve("idle", "lookup", "a <lookup>", "µs", "files", {10: (70.0, 70.0), 1_000: (80.0, 80.0), 100_000: (90.0, 90.0)}),
    Curve("idle", "listing", "", "ms", "files", {10: (1.0, 1.0), 1_000: (2.0, 2.0), 100_000: (30.0, 30.0)}),
    Curve("idle", "memory", "", "MiB", "files", {10: (50.0, 50.0), 1_000: (60.0, 60.0), 100_000: (500.0, 500.0)}, None),
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


def test_what_is_new_takes_the_place_of_what_was_before_under_its_name() -> None:
    page = "before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter <!-- b: begin -->kept<!-- b: end -->\n"
    new = with_block(page, "a", "new\n")
    assert new == "before\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\nafter <!-- b: begin -->kept<!-- b: end -->\n"
    assert with_block(new, "a", "new") == new
    for page_without in ("before", "<!-- a: begin -->"):
        with pytest.raises(ValueError, match="no place for a"):
            with_block(page_without, "a", "new")


def test_a_table_of_curves_has_every_size_and_a_verdict() -> None:
    text = curve_table(CURVES, TITLES)
    assert re.search(r"files +10 +1,000 +100,000 +growth", text)
    assert re.search(r"lookup, µs +70 +80 +90 +1.286 × +flat \(≤ 2\)", text)
    assert re.search(r"listing, ms +1 +2 +30 +30 × +GROWS \(≤ 2\)", text)
    assert re.search(r"memory, MiB +50 +60 +500 +10 ×\n", text)
    assert "1 of 2 curves flat" in text
    assert "grows: idle, listing: 30 ×" in text


def test_documents_show_each_curve_with_what_is_allowed() -> None:
    rows = curve_markdown(CURVES, TITLES).splitlines()
    assert rows[0] == "| Idle: files | 10 | 1,000 | 100,000 | growth | allowed | |"
    assert rows[3] == "| listing, ms | 1 | 2 | 30 | 30 × | ≤ 2 | GROWS |"
    assert len({row.count("|") for row in rows}) == 1


def test_a_picture_of_curves_has_a_panel_for_each_and_no_text_over_another() -> None:
    root = ElementTree.fromstring(curve_panels(CURVES, TITLES, title="A & B", note="a <note> of some length " * 12))
    panels = list(root.iter(f"{SVG}g"))
    assert len(panels) == len(CURVES)
    assert [line.get("stroke") for line in root.iter(f"{SVG}polyline")] == [REACHED, MISSED, PALE]
    assert_legible(root)


def test_the_texts_of_bars_do_not_lie_over_each_other() -> None:
    figures = [*FIGURES, Figure("cold", "time / (hf_hub_download + load)", "", "×", (0.1, 0.7, 9.9), at_most(0.6))]
    assert_legible(ElementTree.fromstring(bars(figures, TITLES, title="A & B", note="a <note> of some length " * 12)))


def assert_legible(root: ElementTree.Element) -> None:
    """All texts lie on the page, and none over another."""
    _, _, width, height = map(float, root.get("viewBox", "").split())
    boxes = [box(text) for text in root.iter(f"{SVG}text")]
    for left, top, right, bottom in boxes:
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], (one, other)


def box(text: ElementTree.Element) -> tuple[float, float, float, float]:
    """About where a text is drawn: left, top, right, bottom."""
    size = float(text.get("font-size", "13"))
    width = 0.52 * size * len("".join(text.itertext()))
    anchor = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
    left, base = float(text.get("x", "0")) - anchor * width, float(text.get("y", "0"))
    return left, base - 0.75 * size, left + width, base + 0.2 * size


def test_headlines_leave_out_what_was_not_measured() -> None:
    figures = [
        Figure("link", "share of the link", "", "%", (91.0,), at_least(90)),
        Figure("link", "share of the link, hf_hub_download", "", "%", (25.0,)),
    ]
    rows = headlines(figures, CURVES, "Measured somewhere.").splitlines()
    assert [row for row in rows if "| 91 % | 25 % |" in row] == rows[2:3]
    assert "| 30 × |" in rows[3]
    assert len([row for row in rows if row.startswith("|")]) == 4
    assert COMMAND in rows[-1]


def test_every_headline_is_of_a_figure_that_a_scenario_has() -> None:
    scenarios = all_scenarios()
    source = "".join(path.read_text() for path in Path(command.__file__).parent.glob("scenarios_*.py"))
    for headline in HEADLINES:
        assert headline.scenario in scenarios
        for name in filter(None, (headline.figure, headline.beside)):
            of_a_size = name.rpartition(": ")[2]
            assert f'"{name}"' in source or f'}}: {of_a_size}"' in source, name


def test_json_holds_every_value() -> None:
    found = as_json(FIGURES, CURVES, {"cold": {"xetfs": []}}, {"cpus": 2})
    assert found["curves"][1]["points"][2] == {"size": 100_000, "values": [30.0, 30.0]}
    assert [curve["flat"] for curve in found["curves"]] == [True, False, None]
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


FACTS = {
    "cpus": 2, "kernel": "Linux", "rounds": 1, "minutes": 3, "revision": "abc", "date": "today", "busy_before": 0.0,
    "memory_gib": 1, "python": "3", "sizes": "1-2-3-4",
}  # fmt: skip


@pytest.mark.parametrize(("figures", "curves"), [(True, False), (False, True), (True, True)])
def test_documents_get_what_was_measured_whole(tmp_path: Path, figures: bool, curves: bool) -> None:
    (tmp_path / "docs").mkdir()
    page, readme = tmp_path / "docs" / "performance.md", tmp_path / "README.md"
    page.write_text("<!-- figures: begin -->\n<!-- figures: end -->\n<!-- curves: begin -->\n<!-- curves: end -->\n")
    readme.write_text("<!-- figures: begin -->\n<!-- figures: end -->\n")
    outcome = Outcome(TITLES, FIGURES, CURVES, {}, [], FACTS)
    outcome.write_documents(tmp_path, figures=figures, curves=curves)
    assert ("rate / peer" in page.read_text()) == figures == (tmp_path / "docs" / "performance.svg").exists()
    assert ("lookup, µs" in page.read_text()) == curves == (tmp_path / "docs" / "performance-scale.svg").exists()
    assert ("1 round in 3 minutes" in readme.read_text()) == figures
    assert ("an operation costs more" in readme.read_text()) == (figures and curves)
    outcome.write(tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"README.md", "results.json", "results.txt", "results.md", "results.svg", "curves.md", "curves.svg"}


def test_results_say_that_other_programs_had_the_cores() -> None:
    quiet, busy = (Outcome({}, [], [], {}, [], {**FACTS, "busy_before": share}) for share in (0.05, 0.5))
    assert "other programs" not in quiet.note + quiet.described
    assert "other programs took 50% of the cores" in busy.note
    assert "other programs took 50% of the cores" in busy.described


def test_the_documents_have_places_for_pictures_figures_and_curves() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "performance.md").read_text()
    for picture in ("performance.svg", "performance-scale.svg"):
        assert ElementTree.fromstring((root / "docs" / picture).read_text()).tag == f"{SVG}svg"
        assert f"({picture})" in page
    for name in ("figures", "curves"):
        assert "the table" in with_block(page, name, "the table")
    assert "the table" in with_block((root / "README.md").read_text(), "figures", "the table")


def test_the_documents_tell_the_defaults_of_settings() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text()
    told = re.findall(r"^\| `([\w.]+)` \| (\d+)( MiB)? \|", page, re.MULTILINE)
    settings = flat_settings()
    assert "reader.window_bytes_max" in {name for name, _, _ in told}
    for name, count, unit in told:
        assert attrgetter(name)(settings) == int(count) * (MIB if unit else 1), name
