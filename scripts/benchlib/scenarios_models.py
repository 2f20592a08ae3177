"""Loading a model: all of it, and a quarter of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from benchlib.figures import Figure, at_most, each, ratios
from benchlib.lab import Lab, Sample
from benchlib.scenarios import XETFS, Pass, Samples, Scenario
from benchlib.scenarios_stream import HF, LINE, LOOPBACK, proven, size_text

QUARTER: Final = 0.25


def load(share: float, line: dict[str, float]) -> Pass:
    """Every tensor, or a share of them, with safetensors from a path in a fresh mount with an empty cache."""

    def take(lab: Lab) -> Sample:
        content = lab.data.model
        with lab.mount_cold(content.repo) as mounted:
            lab.quiet(content.xorbs, content.size)
            path = str(mounted.path / content.file)
            with lab.hub.shaped(line):
                return lab.measure(lambda: lab.read("tensors", path=path, share=share, seed=9), mounted)

    return take


def hf_load(line: dict[str, float]) -> Pass:
    """hf_hub_download into an empty HF_HOME, then every tensor."""

    def take(lab: Lab) -> Sample:
        content = lab.data.model
        with lab.client_env() as env, lab.hub.shaped(line):
            lab.quiet(content.xorbs, content.size)
            return lab.measure(lambda: lab.read("download_tensors", env, repo=content.repo, file=content.file))

    return take


def load_figures(scenario: str, where: str, lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, theirs = proven(samples[XETFS]), samples[HF]
    what = f"every tensor of a safetensors file of {size_text(lab.data.model)} (float32), empty cache, {where}, proof on"
    figure = partial(Figure, scenario)
    return [
        figure("time / (hf_hub_download + load)", what, "×",
               ratios(each(ours, lambda s: s.seconds), each(theirs, lambda s: s.seconds)), at_most(0.6)),
        figure("CPU / (hf_hub_download + load)", f"{what}; daemon and reader beside the process that does both", "×",
               ratios(each(ours, lambda s: s.cpu_s_gb), each(theirs, lambda s: s.cpu_s_gb))),
        figure("bytes fetched / stored", what, "×",
               each(ours, lambda s: s.traffic.bytes_all / lab.data.model.stored_bytes), at_most(1.02)),
        figure("time", what, "s", each(ours, lambda s: s.seconds)),
        figure("time, hf_hub_download + load", "download, then the same load", "s", each(theirs, lambda s: s.seconds)),
        figure("CPU", "of daemon and reader", "s/GB", each(ours, lambda s: s.cpu_s_gb)),
        figure("CPU, hf_hub_download + load", "of the process", "s/GB", each(theirs, lambda s: s.cpu_s_gb)),
    ]  # fmt: skip


def part_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours = samples[XETFS]
    content = lab.data.model
    what = f"a quarter of the tensors of a safetensors file of {size_text(content)}, picked at random, empty cache, loopback"
    return [
        Figure("part", "bytes fetched / stored size of the file", what, "%",
               each(ours, lambda s: 100 * s.traffic.bytes_all / content.stored_bytes), at_most(30)),
        Figure("part", "bytes of the tensors / of the file", what, "%", each(ours, lambda s: 100 * s.bytes / content.size)),
        Figure("part", "time", what, "s", each(ours, lambda s: s.seconds)),
        Figure("part", "requests", what, "", each(ours, lambda s: s.traffic.requests_all)),
    ]  # fmt: skip


SCENARIOS: Final = (
    Scenario(
        "model",
        "Load a model, cold",
        {XETFS: load(1, LOOPBACK), HF: hf_load(LOOPBACK)},
        partial(load_figures, "model", "loopback"),
    ),
    Scenario(
        "model-line",
        "Load a model, cold, over a slow line",
        {XETFS: load(1, LINE), HF: hf_load(LINE)},
        partial(load_figures, "model-line", "40 ms round trip, 25 MB/s per connection, 250 MB/s in all"),
    ),
    Scenario("part", "Load a quarter of a model's tensors", {XETFS: load(QUARTER, LOOPBACK)}, part_figures),
)
