"""A cold stream from other servers: over TLS, from a hub as strict as production, and from Hugging Face's own CAS server."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from benchlib.data import NOISE
from benchlib.figures import Figure, at_least, at_most, each, ratios
from benchlib.hub import make_certificate
from benchlib.lab import Lab
from benchlib.scenarios import XETFS, Samples, Scenario
from benchlib.scenarios_stream import HF, cold_figures, cold_read, cpu_of, hf_download, rate, requests_gb, size_text

SERVER: Final = "local_cas_server"
START_S: Final = 60.0
UPLOAD_S: Final = 600.0

UPLOAD: Final = """
import sys
import hf_xet
url, path = sys.argv[1:]
never = 2**40
hf_xet.upload_files([path], url, ("a token", never), lambda: ("a token", never), None, "model")
"""


@contextmanager
def tls(lab: Lab) -> Iterator[None]:
    """The hub over HTTPS, with a certificate by an authority of its own."""
    authority, certificate, key = make_certificate(lab.base / "certificate")
    with lab.hub.restarted("--tls", str(certificate), str(key), authority=authority):
        yield


@contextmanager
def production(lab: Lab) -> Iterator[None]:
    """The hub with its profile `production` over TLS: 80 ms, one range per request, quotas, slow proofs, short-lived URLs."""
    authority, certificate, key = make_certificate(lab.base / "certificate")
    with lab.hub.restarted("--profile", "production", "--tls", str(certificate), str(key), authority=authority):
        yield


def production_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    content = lab.data.noise
    ours, theirs = samples[XETFS], samples[HF]
    what = f"one file of {size_text(content)} in 1 MiB reads, empty cache, profile production over TLS, 80 ms round trip"
    figure = partial(Figure, "production")
    return [
        figure("rate / hf_hub_download", what, "×", ratios(each(ours, rate), each(theirs, rate)), at_least(1.0)),
        figure("bytes fetched / stored", "hedged and repeated requests included", "×",
               each(ours, lambda s: s.traffic.bytes_all / content.stored_bytes), at_most(1.02)),
        figure("rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6)),
        figure("rate, hf_hub_download", "the download alone", "MB/s", each(theirs, lambda s: rate(s) / 1e6)),
        figure("requests per GB", "by the hub's log", "", each(ours, requests_gb)),
        figure("requests per GB, hf_hub_download", "by the hub's log", "", each(theirs, requests_gb)),
        figure("range proofs", "by the hub's log: for large files this profile refuses them", "",
               each(ours, lambda s: s.traffic.proofs)),
    ]  # fmt: skip


# Hugging Face's own CAS server


def server_program() -> Path:
    """Where scripts/witness puts it."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/tmp") / ".cache"
    return Path(os.environ.get("XETFS_WITNESS") or Path(cache) / "xetfs-witness") / "bin" / SERVER


def server_missing() -> str:
    return "" if server_program().exists() else f"{SERVER} is not built; scripts/witness --build does that"


@contextmanager
def their_server(lab: Lab) -> Iterator[None]:
    """Their server in place of the hub's own CAS, with the file that is read, which the real client has uploaded to it."""
    with tempfile.TemporaryDirectory(prefix="their-server-", dir=lab.base) as held, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        url = f"http://127.0.0.1:{port}"
        command = [str(server_program()), "--port", str(port), "--data-directory", held]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            _wait_for(url, server)
            with lab.client_env() as env:
                upload = [sys.executable, "-c", UPLOAD, url, str(lab.data.noise.plain)]
                subprocess.run(upload, env={**os.environ, **env}, check=True, timeout=UPLOAD_S)
            lab.server_pid = server.pid
            with lab.hub.with_cas(url):
                yield
        finally:
            lab.server_pid = None
            server.terminate()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """It says nothing when it is ready, so it is asked again and again."""
    until = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=START_S).close()
            return
        except OSError as exc:
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{SERVER} does not answer") from exc
            select.select([], [], [], 0.05)


def server_figures(lab: Lab, samples: Samples) -> Sequence[Figure]:
    ours, theirs = samples[XETFS], samples[HF]
    what = f"one file of {size_text(lab.data.noise)} in 1 MiB reads from {SERVER}, empty cache, loopback; it offers no proofs"
    figure = partial(Figure, "their-server")
    return [
        figure("rate / hf_hub_download", what, "×", ratios(each(ours, rate), each(theirs, rate)), at_least(1.3)),
        figure("CPU of that server", what, "s/GB", each(ours, cpu_of("server")), at_most(3.5)),
        figure("CPU of that server, hf_hub_download", "for the download", "s/GB", each(theirs, cpu_of("server"))),
        figure("CPU", "of daemon and reader", "s/GB", each(ours, lambda s: s.cpu_s_gb)),
        figure("rate", what, "MB/s", each(ours, lambda s: rate(s) / 1e6)),
        figure("rate, hf_hub_download", "the download alone", "MB/s", each(theirs, lambda s: rate(s) / 1e6)),
    ]


STREAMS: Final = {XETFS: cold_read(NOISE), HF: hf_download(NOISE)}
GROUP: Final = "servers"
SCENARIOS: Final = (
    Scenario(
        "cold-tls",
        "Cold sequential read over TLS",
        STREAMS,
        partial(cold_figures, "cold-tls", NOISE, "does not compress", 1.3, where="TLS on loopback"),
        needs=(NOISE,),
        group=GROUP,
        setting=tls,
    ),
    Scenario(
        "production",
        "Cold sequential read from a hub as strict as production",
        STREAMS,
        production_figures,
        needs=(NOISE,),
        group=GROUP,
        setting=production,
    ),
    Scenario(
        "their-server",
        "Cold sequential read from Hugging Face's own CAS server",
        STREAMS,
        server_figures,
        needs=(NOISE,),
        group=GROUP,
        setting=their_server,
        missing=server_missing,
    ),
)
