"""The bench's workload: seeded, as skewed as it says, and ids that are new each time."""

import gzip
from collections import Counter
from pathlib import Path

import msgspec

from convergio.metering.model import Event
from convergio.simulation import bench_events
from convergio.simulation.bench_load import Load, requests


def test_without_the_trace_the_skew_is_the_same_and_seeded(tmp_path: Path) -> None:
    usage, source = bench_events.skewed(tmp_path / "none.csv.gz")
    assert source == "a synthetic trace of its skew"
    assert usage == bench_events.skewed(tmp_path / "none.csv.gz")[0]
    assert len(usage) == bench_events.SKEWED_EVENTS
    counts = Counter(one.subject for one in usage).most_common()
    shares = [sum(n for _, n in counts[:top]) / len(usage) for top in (10, 100, 400, 1_000)]
    real = [0.147, 0.370, 0.562, 0.732]  # of the GenTD26 trace
    assert all(abs(share - wanted) < 0.03 for share, wanted in zip(shares, real, strict=True))


def test_the_trace_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("gmt_create,predict_status,groupId\n")
        file.write("2024-11-15 16:57:50,SUCCEED,G0001\n2024-11-15 16:57:51,PENDING,G0002\n")
    usage, source = bench_events.skewed(path)
    assert source == "the trace trace.csv.gz"
    assert [(one.subject, one.data["status"]) for one in usage] == [
        ("G0001", "succeeded"), ("G0002", "failed"),
    ]  # fmt: skip


def test_uniform_usage_gives_each_customer_the_same_share() -> None:
    counts = Counter(one.subject for one in bench_events.uniform(10, 100))
    assert set(counts.values()) == {10}
    assert set(counts) == set(bench_events.uniform_keys(10))


def test_another_tag_makes_other_events() -> None:
    usage = bench_events.uniform(3, 6)
    one, two = bench_events.events(usage, "a"), bench_events.events(usage, "b")
    assert not {event.id for event in one} & {event.id for event in two}


def test_the_load_sends_every_event_once_in_requests_of_the_size(tmp_path: Path) -> None:
    load = Load(
        port=1, key="secret", path="/v1/events", connections=1, seconds=1.0, tag="t", size=50,
        events=200, trace=str(tmp_path / "none"),
    )  # fmt: skip
    sent = requests(load)
    parts = [one.partition(b"\r\n\r\n") for one in sent]
    decoded = [
        event for _, _, body in parts for event in msgspec.json.decode(body, type=list[Event])
    ]
    assert [len(body) for _, _, body in parts] == [
        int(head.rpartition(b"content-length: ")[2]) for head, _, _ in parts
    ]
    assert len(sent) == 4
    assert [event.id for event in decoded] == [f"t-{place}" for place in range(200)]


def test_the_load_can_repeat_usage_with_new_ids(tmp_path: Path) -> None:
    load = Load(
        port=1, key="secret", path="/v1/events", connections=1, seconds=1.0, size=1,
        events=bench_events.SKEWED_EVENTS + 5, trace=str(tmp_path / "none"),
    )  # fmt: skip
    assert len(set(requests(load))) == bench_events.SKEWED_EVENTS + 5
