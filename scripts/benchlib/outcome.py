"""The results of a run, and where they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchlib import report
from benchlib.curve_picture import curve_panels
from benchlib.curves import Curve
from benchlib.figures import Figure
from benchlib.headlines import headlines
from benchlib.lab import Sample
from benchlib.picture import bars
from benchlib.quiet import BUSY_SHARE

TITLE: Final = "xetfs: measured against its targets"
CURVES_TITLE: Final = "xetfs: cost of an operation, by the size of what it works in"


@dataclass(frozen=True, slots=True)
class Outcome:
    """titles: of the scenarios that ran, by name; failed: messages about those that failed; facts: about machine and run."""

    titles: Mapping[str, str]
    figures: Sequence[Figure]
    curves: Sequence[Curve]
    samples: Mapping[str, Mapping[str, Sequence[Sample]]]
    failed: Sequence[str]
    facts: Mapping[str, Any]
    profiles: str = ""

    @property
    def note(self) -> str:
        facts = self.facts
        machine = f"{facts['cpus']} cores, {facts['kernel']}, {_rounds(facts)}"
        return f"{machine}, xetfs {facts['revision']}, {facts['date']}{self._busy()}"

    def _busy(self) -> str:
        """A remark if other programs used the cores."""
        share = self.facts["busy_before"]
        return f"; other programs took {share:.0%} of the cores, so the times are unreliable" if share > BUSY_SHARE else ""

    @property
    def text(self) -> str:
        """The results for a terminal."""
        tables = [report.table(self.figures, self.titles)] if self.figures else []
        tables += [report.curve_table(self.curves, self.titles)] if self.curves else []
        return "\n".join([*tables, *self.failed])

    @property
    def described(self) -> str:
        """A sentence or two about the machine, the revision and the sizes."""
        facts = self.facts
        stream, large, model, files = facts["sizes"].split("-")
        return (
            f"Measured on {facts['date']} with {facts['cpus']} cores and {facts['memory_gib']} GiB of memory, {facts['kernel']}, "
            f"Python {facts['python']}, xetfs {facts['revision']}, {_rounds(facts)} in {facts['minutes']} minutes"
            f"{self._busy()}. Files: {stream} MiB for streams, {large} MiB for random reads, a model of {model} MiB, "
            f"a directory of {int(files):,}."
        )

    def write(self, out: Path) -> None:
        """Write tables, JSON and pictures."""
        (out / "results.json").write_text(
            json.dumps(report.as_json(self.figures, self.curves, self.samples, self.facts), indent=1) + "\n"
        )
        (out / "results.txt").write_text(f"{self.note}\n{self.text}\n{self.profiles}")
        if self.figures:
            (out / "results.md").write_text(report.markdown(self.figures, self.titles))
            (out / "results.svg").write_text(bars(self.figures, self.titles, title=TITLE, note=self.note))
        if self.curves:
            (out / "curves.md").write_text(report.curve_markdown(self.curves, self.titles))
            (out / "curves.svg").write_text(curve_panels(self.curves, self.titles, title=CURVES_TITLE, note=self.note))

    def write_documents(self, root: Path, *, figures: bool, curves: bool) -> None:
        """Write into the marked places of the documents. figures, curves: whether all of them were measured; a place is written
        completely or not at all."""
        page, readme = root / "docs" / "performance.md", root / "README.md"
        if figures:
            (root / "docs" / "performance.svg").write_text(bars(self.figures, self.titles, title=TITLE, note=self.note))
            _fill(page, "figures", f"{report.paragraph(self.described)}\n\n{report.markdown(self.figures, self.titles)}")
            _fill(readme, "figures", headlines(self.figures, self.curves if curves else (), self.described))
        if curves:
            picture = curve_panels(self.curves, self.titles, title=CURVES_TITLE, note=self.note)
            (root / "docs" / "performance-scale.svg").write_text(picture)
            _fill(page, "curves", f"{report.paragraph(self.described)}\n\n{report.curve_markdown(self.curves, self.titles)}")


def _rounds(facts: Mapping[str, Any]) -> str:
    return f"{facts['rounds']} round{'' if facts['rounds'] == 1 else 's'}"


def _fill(page: Path, name: str, text: str) -> None:
    page.write_text(report.with_block(page.read_text(), name, text))
