"""The table of metrics, what is recorded, and its text for Prometheus, read by Prometheus' own client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from xetfs.telemetry import (
    METRICS,
    NET_ANSWER_SECONDS,
    NET_BYTES,
    READER_FILES,
    READER_WAIT_SECONDS,
    SECONDS,
    STORE_BYTES,
    STORE_MISSES,
    Counters,
    exposition,
)


def test_each_metric_says_what_it_is() -> None:
    assert len(METRICS) > 40
    for name, metric in METRICS.items():
        assert metric.name == name
        assert name.count(".") == 1
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
        assert "\\" not in metric.help
        assert metric.kind == "gauge" or not metric.label


def test_values_are_recorded_from_several_threads() -> None:
    counters = Counters()

    def record(_: int) -> None:
        counters.add(NET_BYTES, 3)
        counters.observe(READER_WAIT_SECONDS, 0.5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(record, range(1000)))
    assert counters.snapshot() == {NET_BYTES: 3000}
    assert counters[STORE_MISSES] == 0
    found = counters.distributions()[READER_WAIT_SECONDS]
    assert (sum(found.counts), found.sum) == (1000, 500)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (30.0, len(SECONDS) - 1), (31.0, len(SECONDS)), (1e9, len(SECONDS))]
)
def test_a_value_counts_up_to_its_bound(value: float, bucket: int) -> None:
    counters = Counters()
    counters.observe(NET_ANSWER_SECONDS, value)
    [counts] = [found.counts for found in counters.distributions().values()]
    assert [index for index, count in enumerate(counts) if count] == [bucket]


def test_prometheus_reads_all_of_it() -> None:
    counters = Counters()
    counters.add(NET_BYTES, 12)
    for value in (0.002, 0.02, 0.02, 60.0):
        counters.observe(READER_WAIT_SECONDS, value)
    levels = {"proof": 2.0, 'a "quoted"\nlevel\\': 1.0}
    text = exposition({**counters.snapshot(), **counters.distributions(), STORE_BYTES: 7, READER_FILES: levels})
    families = {family.name: family for family in text_string_to_metric_families(text)}
    given = {STORE_BYTES, READER_FILES}
    assert set(families) == {
        "xetfs_" + name.replace(".", "_") for name, metric in METRICS.items() if metric.kind != "gauge" or name in given
    }
    for name, metric in METRICS.items():
        family = families.get("xetfs_" + name.replace(".", "_"))
        assert family is None or (family.type, family.documentation) == (metric.kind, metric.help)
    [received] = families["xetfs_net_received_bytes"].samples
    assert (received.name, received.value) == ("xetfs_net_received_bytes_total", 12)
    [missed] = families["xetfs_store_misses"].samples
    assert missed.value == 0
    assert {sample.labels["level"]: sample.value for sample in families["xetfs_reader_files"].samples} == levels
    waits = families["xetfs_reader_wait_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in waits if sample.name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.003"], buckets["0.03"], buckets["30.0"], buckets["+Inf"]) == (0, 1, 3, 3, 4)
    assert {sample.name[-6:]: sample.value for sample in waits[-2:]} == {"ds_sum": 60.042, "_count": 4}
    unused = families["xetfs_net_answer_seconds"].samples
    assert {sample.value for sample in unused} == {0}
