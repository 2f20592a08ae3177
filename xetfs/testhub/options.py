"""What a hub may be told about itself, and where its three origins are. Both may change while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(slots=True, kw_only=True)
class HubOptions:
    """Choices of a running hub."""

    token_lifetime_s: float = 3600
    """How long a token for the CAS lasts."""
    url_lifetime_s: float = 3600
    """How long a signed URL lasts."""
    page_size: int = 1000
    """Entries of a page of a listing at most; 50 with `expand`, as at the real Hub."""
    v2_status: int = 200
    """404 or 501 takes away version 2 of reconstructions."""
    proof_status: int = 200
    """404 or 501 takes away range proofs."""
    proof_delay_s: float = 0.0
    """How long a range proof is thought about, as by a server that walks all chunks of the file for each."""
    proof_chunks_max: int | None = None
    """Range proofs of files with more chunks are refused with 403; None for none."""
    cas_url: str = ""
    """The CAS that tokens name in place of this hub's own: somebody else's server, to which uploads then go and from which reads
    come. This hub does not learn what is uploaded there."""
    several_ranges: Literal["parts", "signed", "refused", "whole"] = "parts"
    """What several ranges of a xorb in one request get: parts of a multipart body; the same, but only for exactly the ranges that
    the URL was signed for (any one of them alone is always served); 403; 200 with the whole xorb."""
    range_answers: Literal["labelled", "unlabelled", "ok"] = "labelled"
    """What one range of a xorb comes as: 206 with Content-Range; 206 without; 200 with the range alone. The last two are how the
    CAS server of the crate xet-client serves version 2 and 1."""
    range_cost_s: float = 0.0
    """How much longer an answer of several ranges takes for each after the first."""
    expired_status: Literal[403, 400] = 403
    """What an expired URL is answered with: 403 as by S3 and CloudFront, 400 as by Cloud Storage."""
    dedup: bool = True
    """Whether uploaders are told of chunks that are held already."""
    quotas: Mapping[str, int] = field(default_factory=dict)
    """Requests of each class ("api", "resolvers") in a window of `quota_window_s`; beyond that 429. Answers tell what is left. A
    class that is not named has no limit."""
    quota_window_s: float = 300
    plain_files: Literal["direct", "redirect"] = "redirect"
    """Whether `/resolve/` answers plain git files itself or sends to `/api/resolve-cache/`, as the real Hub does today."""
    path_prefix: str = ""
    """Path of the endpoint, as `/artifactory/api/hf`. Redirects are relative, and do not know of it."""
    link_url: str = ""
    """What `Link` headers name in place of the endpoint, as behind a mirror that hands on what the Hub said."""
    multipart_upload_bytes: int | None = None
    """LFS uploads larger than this are asked for in parts of this size; None for never."""

    def change(self, values: Mapping[str, Any]) -> None:
        """Set some of them by name. Raises ValueError for a name or a choice that there is not; then none is set."""
        hints = get_type_hints(type(self))
        for name, value in values.items():
            if name not in hints:
                raise ValueError(f"no option {name}")
            if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
                raise ValueError(f"option {name} is one of {get_args(hints[name])}, not {value!r}")
        for name, value in values.items():
            setattr(self, name, value)

    def url_expiry_s(self) -> int:
        return int(time.time() + self.url_lifetime_s)

    def token_expiry_s(self) -> int:
        return int(time.time() + self.token_lifetime_s)


@dataclass(slots=True)
class HubUrls:
    """The origins, as `http://host:port`; known once they listen."""

    hub: str = ""
    cas: str = ""
    transfer: str = ""
