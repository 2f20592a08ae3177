"""Loading a model: all of it, and a quarter of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from benchlib.data import MODEL
from benchlib.figures import Figure, at_most, each, ratios
from benchlib.lab import Lab, Sample
from benchlib.scenarios import XETFS, Pass, Samples, Scenario
from benchlib.scenarios_stream import FAR, FAR_LINK, HF, LOOPBACK, Link, proven, size_text

QUARTER: Final = 0.25
IN_A_ROW: Final = "xetfs, tensors in a row"


def load(link: Link = LOOPBACK, *, share: float = 1, seed: int | None = None) -> Pass:
    """Every tensor, or a share of them, with safetensors from a path in a fresh mount with an empty cache. seed: to pick tensors
    at random; None for a row of them."""

    def take(lab: Lab) -> Sample:
        content = lab.data.model
        with lab.mount_cold(content.repo) as mounted:
            lab.quiet(content.xorbs, content.size)
            path = str(mounted.path / content.file)
            with lab.hub.shaped(link):
                return lab.measure(lambda: lab.read("tensors", path=path, share=share, seed=seed), mounted)

    return take


def hf_load(link: Link = LOOPBACK) -> Pass:
    """hf_hub_download into an empty HF_HOME, then every tensor."""

    def take(lab: Lab) -> Sample:
        content = lab.data.model
        with lab.client_env() as env, lab.hub.shaped(link):
            lab.quiet(content.xorbs, content.size)
            return lab.measure(lambda: lab.read("download_tensors", env, repo=content.repo, file=content.file))

    return take


def load_figures(scenario: str, where: str, target: float, lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, theirs = proven(samples[XETFS]), samples[HF]
    what = f"every tensor of a safetensors file of {size_text(lab.data.model)} (float32), empty cache, {where}, proof on"
    figure = partial(Figure, scenario)
    return [
        figure("time / (hf_hub_download + load)", what, "×",
               ratios(each(ours, lambda s: s.seconds), each(theirs, lambda s: s.seconds)), at_most(target)),
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
    ours, row = samples[XETFS], samples[IN_A_ROW]
    content = lab.data.model
    what = f"a quarter of the tensors of a safetensors file of {size_text(content)}, picked at random, empty cache, loopback"
    in_a_row = (
        f"a quarter of the tensors of a safetensors file of {size_text(content)}, one after the other, empty cache, loopback"
    )
    return [
        Figure("part", "bytes fetched / stored size of the file", what, "%",
               each(ours, lambda s: 100 * s.traffic.bytes_all / content.stored_bytes), at_most(30)),
        Figure("part", "in a row: bytes fetched / stored size of the file", in_a_row, "%",
               each(row, lambda s: 100 * s.traffic.bytes_all / content.stored_bytes), at_most(30)),
        Figure("part", "in a row: bytes of the tensors / of the file", in_a_row, "%",
               each(row, lambda s: 100 * s.bytes / content.size)),
        Figure("part", "bytes of the tensors / of the file", what, "%", each(ours, lambda s: 100 * s.bytes / content.size)),
        Figure("part", "time", what, "s", each(ours, lambda s: s.seconds)),
        Figure("part", "requests", what, "", each(ours, lambda s: s.traffic.requests_all)),
    ]  # fmt: skip


SCENARIOS: Final = (
    Scenario(
        "model",
        "Load a model, cold",
        {XETFS: load(), HF: hf_load()},
        partial(load_figures, "model", "loopback", 0.9),
        needs=(MODEL,),
    ),
    Scenario(
        "model-link",
        "Load a model, cold, over a far link",
        {XETFS: load(FAR_LINK), HF: hf_load(FAR_LINK)},
        partial(load_figures, "model-link", FAR, 0.65),
        needs=(MODEL,),
    ),
    Scenario(
        "part",
        "Load a quarter of a model's tensors",
        {XETFS: load(share=QUARTER, seed=9), IN_A_ROW: load(share=QUARTER)},
        part_figures,
        needs=(MODEL,),
    ),
)
