"""Named characters of a hub: what it is told to be like from the start.

`production` is the service as its clients' sources, documents and issues describe it, on the strict side wherever they differ or
say nothing, so that what works here leans on no kindness of the test hub's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from xetfs.testhub.options import HubOptions
from xetfs.testhub.shaping import Shape


@dataclass(frozen=True, slots=True)
class Profile:
    """Options and network of a hub that was just started."""

    options: HubOptions
    shape: Shape


def production() -> Profile:
    """80 ms away; URLs that serve one range at a time and expire while a file is read; proofs that are slow, and refused for
    large files."""
    options = HubOptions(
        url_lifetime_s=30,
        expired_status=400,  # as Cloud Storage tells it; 403, as the others do, is what the lenient hub says
        several_ranges="refused",  # as one of the service's storage backends does: xet-core, pull request 842
        quotas={"api": 500, "resolvers": 3000},  # those of an anonymous user, in five minutes
        proof_delay_s=0.3,  # nobody outside has measured it; each proof walks the whole file
        proof_chunks_max=4000,  # 250 MB or so
    )
    return Profile(options, Shape(latency_s=0.08))


PROFILES: Final[Mapping[str, Callable[[], Profile]]] = {
    "lenient": lambda: Profile(HubOptions(), Shape()),
    "production": production,
}
"""By the name that `--profile` takes. `lenient` does whatever any client may ask for, at once."""
