"""What a hub may be told about itself, and where its three origins are. Both may change while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal


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
    dedup: bool = True
    """Whether uploaders are told of chunks that are held already."""
    plain_files: Literal["direct", "redirect"] = "redirect"
    """Whether `/resolve/` answers plain git files itself or sends to `/api/resolve-cache/`, as the real Hub does today."""
    path_prefix: str = ""
    """Path of the endpoint, as `/artifactory/api/hf`. Redirects are relative, and do not know of it."""
    link_url: str = ""
    """What `Link` headers name in place of the endpoint, as behind a mirror that hands on what the Hub said."""
    multipart_upload_bytes: int | None = None
    """LFS uploads larger than this are asked for in parts of this size; None for never."""

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
