"""Every limit and choice of a running xetfs, in one frozen value.

The command line builds it (cli/config.py) from arguments and environment; nothing else reads either. A limit is here so that it
can be seen and changed in one place; its comment says why that number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xetfs.credentials import Credentials

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

PROXY_SCHEMES = ("http", "socks5", "socks5h")
"""How a proxy may be spoken to."""


class Secret:
    """A token that does not show itself in a repr, a log line or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one engine may use and how it behaves. Sizes in bytes, times in seconds."""

    # The Hub
    endpoint: str = "https://huggingface.co"
    """Scheme, host and port of the Hub, without a trailing slash."""
    credentials: Credentials | None = None
    """Where the Hub's token comes from, or None for anonymous access."""
    offline: bool = False
    """Make no request at all; what is not in the store fails with Offline."""
    xet: bool = True
    """Read files in Xet through the CAS. Otherwise they are read as LFS files are, through the Hub's resolve route."""

    # The store
    cache_dir: Path | None
    """Where the chunk store lives; created 0700, refused when somebody else could write to it. None to keep nothing on disk."""
    cache_trusted: bool = False
    """Use the directory whoever else may write there: whoever does decides what readers get."""
    cache_in_memory_bytes: int = 64 * MIB
    """Budget of a store in memory, beside `memory_bytes_max`: what a mount without a disk can afford within 350 MiB."""
    cache_bytes_max: int = 20 * GIB
    """Budget of the store on disk."""
    cache_free_share: float = 0.05
    """Share of the disk that is always left free: a full disk hurts other programs before it hurts us."""
    store_handles_max: int = 256
    """Block files kept open; well below the usual soft limit of 1024 descriptors."""

    store_patience_s: float = 5.0
    """Longest wait for the disk of the store, in one call, before it counts as hanging and is left alone: longer than a disk
    takes that is only busy, and short enough that a read has time left for the network before its deadline."""

    # Memory
    memory_bytes_max: int = 112 * MIB
    """Bytes on the wire and decoded, held by all readers together. With the interpreter and its libraries the
    process then stays under 350 MiB."""

    # Reading ahead
    window_bytes_min: int = 256 * KIB
    """First window of a reader: about what a range proof covers at the least."""
    window_bytes_max: int = 32 * MIB
    """Largest window: what is planned and proven at once. Half as long, a server is asked twice as often; twice as long, there
    is no memory for the next one while it is read."""
    ahead_bytes_max: int = 96 * MIB
    """How far ahead of a sequential reader to load: what a 250 MB/s link carries in the 0.4 s that a window takes on one of
    its connections. The memory limit may allow less."""
    verify: Literal["auto", "proof", "off"] = "auto"
    """auto: prove a part where the server offers proofs, and a file when it is known whole where it does not. proof: give out no
    byte that is not proven. off: lengths only."""
    proof_timeout_s: float = 2.0
    """Longest that a read waits for a range proof when it may go on without (verify "auto"). Proofs usually come in one round
    trip, beside the reconstruction."""
    whole_checks: bool = True
    """Check files that have become known whole in the background; not wanted where somebody else checks them."""

    # The network
    connections_max: int = 32
    """Connections to one origin. At 40 ms and 25 MB/s each, a 250 MB/s link needs about 14."""
    http_proxy: Secret | None = None
    https_proxy: Secret | None = None
    """Proxies for http and https origins but those of `no_proxy`: `http://` or `socks5://`, then `[user:password@]host:port`.
    Secrets, as they may hold a password."""
    no_proxy: tuple[str, ...] = ()
    """Hosts that are asked without a proxy, in the forms of that variable (net/proxies.py). Loopback hosts always are."""
    ca_paths: tuple[Path, ...] = ()
    """Files (PEM) and directories with the certificates to trust, in place of certifi's and the system's (net/trust.py)."""
    allow_private_hosts: bool = False
    """Follow a public Hub to hosts at private addresses, as company networks and some VPNs need. Any server on the way can then
    have requests sent into the user's network, though no token to it (net/origins.py)."""
    multirange: bool = False
    """Ask for all ranges that one signed URL allows in one request, where a server has shown that it answers that. Off, as in the
    reference client hf_xet (HF_XET_CLIENT_ENABLE_MULTIRANGE_FETCHING): storage behind the CAS may refuse several ranges with
    a 403, serve them slowly or send the whole object; ranges side by side work everywhere and take no more round trips."""
    connect_timeout_s: float = 5.0
    """By then the first packet has been sent three times."""
    outage_patience_s: float = 0.06
    """How long a server that refuses, or to which there is no way, is tried before requests to it fail without being tried
    (net/reach.py): a program is to know within 100 ms that the network is gone. If it is longer, a server may be started anew
    meanwhile."""
    stall_timeout_s: float = 25.0
    """Longest silence within an answer before the attempt is given up and made anew on another connection: what leaves time for
    another one within an operation. Once it is known how long answers of a server usually take, a shorter one will do
    (net/pace.py)."""
    stall_timeout_first_s: float = 15.0
    """The same for a first attempt while nothing is known of the server. A cold answer may take many seconds (the reference
    client waits for five minutes), and giving it up makes a slow server slower."""
    stall_timeout_min_s: float = 2.0
    """No shorter silence of data is called a stall, however fast a server usually is."""
    answer_timeout_min_s: float = 5.0
    """The same for answers with metadata, which differ more: a listing takes longer than a token, the plan of a large file longer
    than that of a small one."""
    attempts_max: int = 5
    """Attempts at one request before its error is told; the operation's deadline may end it sooner."""
    operation_deadline_s: float = 30.0
    """Every filesystem operation ends within this time: a blocked one cannot be killed. math.inf for a front without a kernel
    behind it, whose caller bounds or ends a wait; attempts keep their own limits."""

    # The mount
    read_ahead_kb: int = 1024
    """The kernel's read-ahead on the mount, where we may set it. At 1 MiB it asks for 1 MiB at a time, which is 2.6 times faster
    than its default of 128 KiB and no slower than 4 MiB."""
    read_ahead_units_kb: int = 512
    """The same for files that consist of units, such as tensors, which are mostly mapped into memory: a page that is touched then
    brings half of it on both sides, and the header of a model should not bring 1 MiB."""
    mount_tasks_max: int = 1024
    """Requests of the kernel that are answered at the same time. Every one more waits, a `stat` of a cached name included, so
    there should be more than programs that wait for the network."""

    # Threads
    worker_threads: int = 2
    """Threads that decode and hash; more than the cores there are only compete for the interpreter."""
