"""Many events in one call, corrections, and usage by group: alike in both clients."""

import asyncio
import gzip
import json
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from convergio_client import AsyncConvergio, Convergio, Event, Invalid, SomeRejected, SpoolFull
from convergio_client import Spool as Spooled
from convergio_client.protocol import BATCH_ROWS_MAX, GZIP_SIZE_MIN, batches, ingest
from tests.fakes.billing import FakeBilling, loses_the_answer

AT = datetime(2025, 1, 15, 12, tzinfo=UTC)
Client = Convergio | AsyncConvergio


@pytest.fixture
def billing() -> FakeBilling:
    return FakeBilling()


@pytest.fixture(params=["blocking", "awaiting"])
def client(request: pytest.FixtureRequest, billing: FakeBilling) -> Iterator[Client]:
    """Either client, without a spool."""
    kind = Convergio if request.param == "blocking" else AsyncConvergio
    made: Any = kind("http://b.test", "key", transport=billing.transport, patience_seconds=0.3)
    yield made
    done(made.close())


def done(found: Any) -> Any:  # noqa: ANN401 - what any method returns
    """Return a result, awaited where it is to be awaited."""
    if not isinstance(found, Coroutine):
        return found
    with asyncio.Runner() as runner:
        return runner.run(found)


def test_many_events_are_counted_in_their_order(client: Client, billing: FakeBilling) -> None:
    events = [Event("acme", "ai.request", {"n": n}, id=f"e{n}", time=AT) for n in range(2_500)]
    assert done(client.track_many(events)) == [f"e{n}" for n in range(2_500)]
    assert [name for _, name in billing.events] == [f"e{n}" for n in range(2_500)]
    sizes = [len(json.loads(_plain(request))) for request in billing.requests]
    assert sizes == [1_000, 1_000, 500]


def test_a_refused_event_does_not_keep_the_others_from_being_counted(
    client: Client, billing: FakeBilling
) -> None:
    who = ["acme", "nobody", "acme", "stranger"]
    with pytest.raises(SomeRejected) as caught:
        done(client.track_many(Event(name, "ai.request", id=f"e{n}") for n, name in enumerate(who)))
    assert [(one.id, one.reason) for one in caught.value.refusals] == [
        ("e1", "unknown_customer"), ("e3", "unknown_customer"),
    ]  # fmt: skip
    assert caught.value.code == "unknown_customer"
    assert [name for _, name in billing.events] == ["e0", "e2"]


def test_a_lost_answer_counts_none_of_many_twice(client: Client, billing: FakeBilling) -> None:
    billing.faults = [loses_the_answer(billing)]
    done(client.track_many([Event("acme", "ai.request") for _ in range(10)]))
    assert len(billing.events) == 10
    assert len(billing.requests) == 2


def test_one_wrong_event_stores_and_sends_none(client: Client, billing: FakeBilling) -> None:
    with pytest.raises(Invalid):
        done(client.track_many([Event("acme", "ai.request"), Event("", "ai.request")]))
    assert done(client.track_many([])) == []
    assert billing.requests == []


def test_a_spool_takes_all_of_many_or_none(billing: FakeBilling, tmp_path: Path) -> None:
    billing.down = True
    spool = Spooled(tmp_path / "usage.spool", rows_max=5)
    with Convergio("http://b.test", "key", spool=spool, transport=billing.transport) as client:
        client.track_many([Event("acme", "ai.request")] * 4)
        with pytest.raises(SpoolFull):
            client.track_many([Event("acme", "ai.request")] * 2)
        assert client.backlog().waiting == 4
        billing.down = False
        assert client.flush(10)
    assert len(billing.events) == 4


def test_a_correction_names_the_event_and_is_one_itself(
    client: Client, billing: FakeBilling
) -> None:
    own = done(client.track("acme", "ai.request", {"quantity": 2}))
    void = done(client.void("acme", own))
    amended = done(client.amend("acme", "e7", {"quantity": Decimal("0.5")}, source="gateway"))
    sent = {name: event for (_, name), event in billing.events.items()}
    assert sent[void]["type"] == "convergio.void"
    assert sent[void]["data"] == {"id": own, "source": sent[own]["source"]}
    assert sent[amended]["type"] == "convergio.amend"
    assert sent[amended]["data"] == {"id": "e7", "source": "gateway", "data": {"quantity": "0.5"}}
    assert len({own, void, amended}) == 3


def test_usage_by_group_has_a_value_for_each_property(client: Client, billing: FakeBilling) -> None:
    row = {"start": "2025-01-01T00:00:00Z", "group": '["small",null]', "quantity": "2", "events": 1}
    billing.faults = [lambda _: httpx.Response(200, json={"usage": [row]})]
    (found,) = done(client.usage("tokens", by_group=True))
    assert found.group == ("small", None)
    assert billing.requests[0].url.params["by_group"] == "true"
    plain = {name: value for name, value in row.items() if name != "group"}
    billing.faults = [lambda _: httpx.Response(200, json={"usage": [plain]})]
    (found,) = done(client.usage("tokens"))
    assert found.group == ()
    assert "by_group" not in billing.requests[1].url.params


def test_a_large_batch_is_packed_and_a_small_one_is_not() -> None:
    small, large = ingest([b"{}"]), ingest([b'{"a":1}'] * 10_000)
    assert (small.body, small.headers) == (b"[{}]", {})
    assert large.headers == {"content-encoding": "gzip"}
    assert large.body is not None
    assert gzip.decompress(large.body).count(b"a") == 10_000
    assert len(large.body) < GZIP_SIZE_MIN / 10


def test_batches_hold_every_event_once_and_none_is_too_large() -> None:
    events = [b"x" * size for size in (3_000_000, 2_000_000, 10, 5_000_000, 1)] + [b"y"] * 2_000
    found = list(batches(events))
    assert [one for batch in found for one in batch] == events
    assert [len(batch) for batch in found] == [1, 2, 1, 1_000, 1_000, 1]
    assert max(len(batch) for batch in found) == BATCH_ROWS_MAX
    assert list(batches([])) == []


def _plain(request: httpx.Request) -> bytes:
    packed = request.headers.get("content-encoding") == "gzip"
    return gzip.decompress(request.content) if packed else request.content
