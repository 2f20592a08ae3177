"""Metrics: one table that defines them, and the counters and histograms of one engine.

Each metric is defined once, below, with its kind, unit and help; the constant is its name, `layer.noun_unit`. Other modules use
the constants, so that a typing error is an import error. Counters and histograms are recorded here, gauges are computed when
somebody asks (control/report.py).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of histogram buckets: from a read of the disk to the deadline of an operation."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Definition of a metric. label: name of the dimension that its values are given by, or ""."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: Literal["", "bytes", "seconds"]
    help: str
    label: str = ""


METRICS: Final[dict[str, Metric]] = {}
"""All metrics by name, in the order of their definition."""


def _define(metric: Metric) -> str:
    assert metric.name not in METRICS, f"{metric.name} is defined twice"
    assert metric.name.endswith(f"_{metric.unit}" if metric.unit else ""), f"{metric.name} lacks its unit"
    METRICS[metric.name] = metric
    return metric.name


def _counter(name: str, help: str, unit: Literal["", "bytes", "seconds"] = "") -> str:
    return _define(Metric(name, "counter", unit, help))


def _gauge(name: str, help: str, unit: Literal["", "bytes", "seconds"] = "", label: str = "") -> str:
    return _define(Metric(name, "gauge", unit, help, label))


def _histogram(name: str, help: str) -> str:
    return _define(Metric(name, "histogram", "seconds", help))


NET_REQUESTS: Final = _counter("net.requests", "HTTP requests sent, including retries and redirects.")
NET_RETRIES: Final = _counter("net.retries", "Attempts repeated after a failure.")
NET_FAILURES: Final = _counter("net.failures", "Requests that failed, after any retries.")
NET_STALLS: Final = _counter("net.stalls", "Attempts given up because the server fell silent.")
NET_OUTAGES: Final = _counter("net.outages", "Times an origin became unreachable.")
NET_HEDGES: Final = _counter("net.hedges", "Requests sent a second time because the first took unusually long.")
NET_HEDGES_WON: Final = _counter("net.hedges_won", "Second requests that finished first.")
NET_BYTES: Final = _counter("net.received_bytes", "Bytes of response bodies received.", "bytes")
NET_UNLABELLED: Final = _counter("net.unlabelled_ranges", "Ranges accepted from responses without a Content-Range.")
NET_ANSWER_SECONDS: Final = _histogram("net.answer_seconds", "Time from sending a request to the head of its response.")

HUB_REQUESTS: Final = _counter("hub.requests", "Requests to the Hub's API.")
HUB_BYTES: Final = _counter("hub.received_bytes", "Bytes received through the Hub: listings, and files outside Xet.", "bytes")
HUB_TOKEN_REFRESHES: Final = _counter("hub.token_refreshes", "Access tokens for a CAS obtained from the Hub.")

CAS_RECONSTRUCTIONS: Final = _counter("cas.reconstructions", "Reconstructions requested.")
CAS_URL_REFRESHES: Final = _counter("cas.url_refreshes", "Reconstructions requested again because a signed URL was refused.")
CAS_FETCHES: Final = _counter("cas.fetches", "Ranges of xorbs requested.")
CAS_FETCH_BYTES: Final = _counter("cas.fetch_bytes", "Bytes of xorbs received.", "bytes")

STORE_HITS: Final = _counter("store.hits", "Lookups of blocks that the store held.")
STORE_MISSES: Final = _counter("store.misses", "Lookups of blocks that the store did not hold.")
STORE_CORRUPT: Final = _counter("store.corrupt_blocks", "Blocks dropped because their content did not match its hash.")
STORE_FAILURES: Final = _counter("store.failures", "Operations that failed because of the disk or the index.")
STORE_WRITTEN_BYTES: Final = _counter("store.written_bytes", "Bytes written to the store.", "bytes")
STORE_EVICTED: Final = _counter("store.evicted_blocks", "Blocks evicted to make room.")
STORE_BYTES: Final = _gauge("store.used_bytes", "Bytes in the store.", "bytes")
STORE_BYTES_MAX: Final = _gauge("store.limit_bytes", "Bytes that the store may hold, as the disk allows now.", "bytes")
STORE_FAILING: Final = _gauge("store.failing", "1 while the store is bypassed because its disk fails, otherwise 0.")

READER_WAITS: Final = _counter("reader.waited_reads", "Reads that had to wait for the disk or the network.")
READER_WAIT_SECONDS: Final = _histogram("reader.wait_seconds", "Time that reads had to wait.")
READER_SERVED_BYTES: Final = _counter("reader.served_bytes", "Bytes given to whoever reads.", "bytes")
READER_WINDOWS: Final = _counter("reader.windows", "Windows loaded because a read waited for them.")
READER_PREFETCH_WINDOWS: Final = _counter("reader.prefetch_windows", "Windows loaded before a read asked for them.")
READER_CORRUPT_WINDOWS: Final = _counter("reader.corrupt_windows", "Responses that failed verification.")
READER_PROOFS_MISSED: Final = _counter("reader.proofs_missed", "Requests for range proofs that brought none.")
READER_FALLBACK_WINDOWS: Final = _counter("reader.fallback_windows", "Windows of Xet files read through the Hub, not a CAS.")
READER_XORBS_RIGHT: Final = _counter("reader.whole_xorbs_right", "Whole xorbs verified.")
READER_WHOLE_RIGHT: Final = _counter("reader.whole_files_right", "Whole files verified in the background.")
READER_WHOLE_WRONG: Final = _counter("reader.whole_files_wrong", "Whole files that failed verification.")
READER_MEMORY_BYTES: Final = _gauge("reader.memory_bytes", "Bytes in flight and decoded.", "bytes")
READER_MEMORY_BYTES_MAX: Final = _gauge("reader.memory_limit_bytes", "Maximum bytes in flight and decoded.", "bytes")
READER_FILES: Final = _gauge("reader.files", "Files opened, by how their content is verified.", label="level")
READER_DETOURS: Final = _gauge("reader.detours", "Files, repos and servers that are read through the Hub, not a CAS.")

FS_OPERATIONS: Final = _counter("fs.operations", "Filesystem operations handled.")
FS_ERRORS: Final = _counter("fs.errors", "Filesystem operations that failed.")

PROCESS_RESIDENT_BYTES: Final = _gauge("process.resident_bytes", "Resident memory of the process.", "bytes")
PROCESS_UPTIME_SECONDS: Final = _gauge("process.uptime_seconds", "Time since the engine was opened.", "seconds")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Snapshot of a histogram. counts: values up to each bound of SECONDS and above those below it, then those above all."""

    counts: tuple[int, ...] = (0,) * (len(SECONDS) + 1)
    sum: float = 0.0


class Counters:
    """The counters and histograms of one engine. A name that was never recorded counts 0.

    Thread-safe by a lock: 0.1 µs, against milliseconds of what is counted. A cache hit adds to one counter, once a read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: defaultdict[str, int] = defaultdict(int)
        self._counts: dict[str, list[int]] = {}
        self._sums: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._values[name] += amount

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        bucket = bisect_left(SECONDS, value)
        with self._lock:
            counts = self._counts.setdefault(name, [0] * (len(SECONDS) + 1))
            counts[bucket] += 1
            self._sums[name] += value

    def __getitem__(self, name: str) -> int:
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """All counters that ever moved, sorted by name."""
        with self._lock:
            return dict(sorted(self._values.items()))

    def distributions(self) -> dict[str, Distribution]:
        """All histograms with values, sorted by name."""
        with self._lock:
            return {name: Distribution(tuple(counts), self._sums[name]) for name, counts in sorted(self._counts.items())}

    def __repr__(self) -> str:
        return f"Counters({self.snapshot()})"


Value = float | Mapping[str, float] | Distribution
"""Of a counter or gauge, of a gauge with a label by its values, or of a histogram."""


def exposition(values: Mapping[str, Value]) -> str:
    """The metrics in Prometheus' text format, version 0.0.4. Counters and histograms without a value are 0; gauges are left out.

    Source: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format".
    """
    lines: list[str] = []
    for metric in METRICS.values():
        value = values.get(metric.name)
        if value is None:
            if metric.kind == "gauge":
                continue
            value = Distribution() if metric.kind == "histogram" else 0
        name = "xetfs_" + metric.name.replace(".", "_") + ("_total" if metric.kind == "counter" else "")
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", *_samples(name, metric.label, value)]
    return "\n".join(lines) + "\n"


def _samples(name: str, label: str, value: Value) -> Iterator[str]:
    match value:
        case Distribution():
            total = 0
            for bound, count in zip((*SECONDS, "+Inf"), value.counts, strict=True):
                total += count
                yield f'{name}_bucket{{le="{bound}"}} {total}'
            yield f"{name}_sum {value.sum}"
            yield f"{name}_count {total}"
        case Mapping():
            for key, each in value.items():
                escaped = key.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
                yield f'{name}{{{label}="{escaped}"}} {each}'
        case _:
            yield f"{name} {value}"
