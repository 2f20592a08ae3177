"""Every limit and choice of a running engine and its mount, in one frozen value, nested by room.

The command line builds it (config.py) from arguments and environment; nothing else reads either. Each limit gives the reason
for its number. Limits of the network and of readahead are derived for a link of 250 MB/s and 40 ms (docs/performance.md).
Sizes are in bytes and times in seconds, unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xetfs.secret import Secret
from xetfs.units import GIB, KIB, MIB

PROXY_SCHEMES = ("http", "socks5", "socks5h")
"""Protocols that a proxy may be spoken to with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSettings:
    """Connections, proxies, trust and timeouts."""

    connections_max: int = 64
    """Maximum number of requests to one origin at a time, each on its own connection. The link needs 14 at 25 MB/s a connection;
    the rest is for requests that a server leaves unanswered, until they time out. The reference client has the same ceiling
    (HF_XET_CLIENT_AC_MAX_DOWNLOAD_CONCURRENCY)."""
    http_proxy: Secret | None = None
    https_proxy: Secret | None = None
    """Proxies for http and https origins not in `no_proxy`: `http://` or `socks5://`, then `[user:password@]host:port`.
    Secret, as they may hold a password."""
    no_proxy: tuple[str, ...] = ()
    """Hosts to connect to directly, in the forms of that variable (net/proxies.py). Loopback hosts always are."""
    ca_paths: tuple[Path, ...] = ()
    """PEM files and directories of the certificates to trust, in place of certifi's and the system's (net/trust.py)."""
    multirange: bool = False
    """Request all ranges of one signed URL at once, from servers known to support it. Off, as in the reference client
    (HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING): storage behind the CAS may refuse several ranges with a 403, serve them slowly,
    or send the whole object. Single ranges side by side work everywhere and take no more round trips."""
    connect_timeout_s: float = 5.0
    """Timeout of a connection attempt: long enough for three SYNs (0, 1 and 3 s)."""
    outage_patience_s: float = 0.06
    """How long an unreachable server stays suspect before requests to it fail fast (net/reachability.py): programs should learn
    within 100 ms that the network is down. A longer value lets a server restart meanwhile."""
    stall_timeout_s: float = 25.0
    """Maximum silence within an answer before a new attempt on another connection: leaves time for that within an operation.
    Shorter once the usual latency of the server is known (net/latency.py)."""
    stall_timeout_first_s: float = 15.0
    """The same for a first attempt while nothing is known of the server. A cold answer may take many seconds (the reference
    client waits for five minutes), and giving it up makes a slow server slower."""
    stall_timeout_min_s: float = 2.0
    """Shortest silence of data that counts as a stall, however fast the server usually is."""
    answer_timeout_min_s: float = 5.0
    """The same for metadata, whose latency varies more: a listing takes longer than a token, and the plan of a large file longer
    than that of a small one."""
    attempts_max: int = 5
    """Maximum attempts at one request. The deadline of the operation may end it sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """The cache on disk, or in memory."""

    cache_dir: Path | None
    """Directory of the chunk store; created 0700, refused when other users could write to it. None to keep nothing on disk."""
    cache_trusted: bool = False
    """Use the directory even if others may write to it: whoever can decides what readers get."""
    cache_bytes_max: int = 20 * GIB
    """Budget of the store on disk."""
    cache_free_share: float = 0.05
    """Share of the disk that always stays free: a full disk hurts other programs before it hurts this one."""
    cache_in_memory_bytes: int = 64 * MIB
    """Budget of a store in memory, beside `memory_bytes_max`: what fits into 350 MiB without a disk."""
    handles_max: int = 256
    """Maximum number of open block files; well below the usual soft limit of 1024 descriptors."""
    disk_timeout_s: float = 5.0
    """Timeout of one call to the disk, after which it counts as hanging and is bypassed: longer than a busy disk takes, and short
    enough that a read has time left for the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSettings:
    """Memory, readahead and verification."""

    memory_bytes_max: int = 112 * MIB
    """Maximum bytes in flight and decoded, for all readers together. With the interpreter and its libraries, the process stays
    under 350 MiB."""
    window_bytes_min: int = 256 * KIB
    """First window of a reader: about the least that a range proof covers."""
    window_bytes_max: int = 32 * MIB
    """Largest window: what is planned and proven at once. Half of it would double the requests to the CAS; twice of it would
    leave no memory for the next one while it is read."""
    ahead_bytes_max: int = 96 * MIB
    """Maximum readahead of a sequential reader: what the link brings in the 0.4 s that a window takes on one connection.
    `memory_bytes_max` may allow less."""
    verify: Literal["auto", "proof", "off"] = "auto"
    """auto: verify parts by range proofs where the server supports them, otherwise files once they are known whole. proof: serve
    no unproven byte. off: check lengths only."""
    proof_timeout_s: float = 2.0
    """Maximum wait for a range proof when a read may go on without (verify "auto"). Proofs usually take one round trip, in
    parallel with the reconstruction."""
    whole_checks: bool = True
    """Verify files that have become known whole, in the background. Off where the caller verifies them."""
    worker_threads: int = 2
    """Threads that decode and hash. More than there are cores would only compete for the interpreter's lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSettings:
    """What the kernel is told about a mount."""

    read_ahead_kb: int = 1024
    """Kernel readahead of the mount, where we may set it. Reads of 1 MiB are 2.6 times as fast as with the default of 128 KiB;
    4 MiB is no faster."""
    read_ahead_units_kb: int = 512
    """The same for files made of units, such as tensors, which are mostly memory-mapped: a page fault then loads half of it on
    both sides, and the header of a model should not load 1 MiB."""
    tasks_max: int = 1024
    """Maximum number of kernel requests handled at a time. Others wait, even a `stat` of a cached name, so there should be more
    than programs that wait for the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one engine may use and how it behaves. Which Hubs it asks, and with whose token, is said when a repo is opened."""

    offline: bool = False
    """Make no request at all; reads of what is not in the store fail with Offline."""
    xet: bool = True
    """Read files in Xet through the CAS. Otherwise they are read like LFS files, through the Hub's resolve route."""
    operation_deadline_s: float = 30.0
    """Deadline of every filesystem operation: a blocked one cannot be killed. math.inf for a front without a kernel behind it,
    whose caller bounds or ends a wait; attempts keep their own timeouts."""

    store: StoreSettings
    net: NetSettings = field(default_factory=NetSettings)
    reader: ReaderSettings = field(default_factory=ReaderSettings)
    mount: MountSettings = field(default_factory=MountSettings)
