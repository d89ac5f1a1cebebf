"""Tracking through a spool: nothing that was tracked is lost, doubled or given up on silently."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from convergio_client import (
    Backlog,
    Closed,
    Convergio,
    Invalid,
    Permit,
    Rejected,
    Rejection,
    Spool,
    SpoolFull,
    Unavailable,
)
from tests.fakes.billing import FakeBilling, loses_the_answer, problem, says

AT = datetime(2025, 1, 15, tzinfo=UTC)


@pytest.fixture
def billing() -> FakeBilling:
    return FakeBilling()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "usage.spool"


Make = Callable[..., Convergio]


@pytest.fixture
def make(billing: FakeBilling) -> Iterator[Make]:
    made: list[Convergio] = []

    def build(**options: Any) -> Convergio:  # noqa: ANN401 - any of the client's own options
        settings: dict[str, Any] = {"transport": billing.transport, "patience_seconds": 0.3}
        made.append(Convergio("http://billing.test", "key", **{**settings, **options}))
        return made[-1]

    yield build
    for one in made:
        one.close(0.2)


def counted(billing: FakeBilling) -> list[str]:
    return [event_id for _, event_id in billing.events]


def test_what_is_tracked_is_counted_once(make: Make, billing: FakeBilling, spool: Path) -> None:
    client = make(spool=spool, source="gateway")
    before = datetime.now(UTC)  # noqa: TID251 - the event's own time is the real one
    ids = [client.track("acme", "ai.request", {"quantity": Decimal("0.5")}) for _ in range(2_500)]
    assert client.flush(20)
    assert counted(billing) == ids
    event = billing.events["gateway", ids[0]]
    assert (event["subject"], event["type"]) == ("acme", "ai.request")
    assert event["data"] == {"quantity": "0.5"}
    assert before <= datetime.fromisoformat(event["time"])
    sizes = [len(json.loads(request.content)) for request in billing.requests]
    assert max(sizes) <= 1_000
    assert client.backlog() == Backlog(waiting=0, size=0, rejected=0, trouble=None)


def test_tracking_does_not_wait_for_a_server_that_is_down(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    billing.down = True
    client = make(spool=spool)
    name = client.track("acme", "ai.request")
    assert not client.flush(0.1)
    assert client.backlog().trouble == "ConnectError: nobody listens"
    billing.down = False
    assert client.flush(10)
    assert counted(billing) == [name]


def test_an_answer_that_was_lost_does_not_count_twice(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    billing.faults = [loses_the_answer(billing)]
    client = make(spool=spool)
    name = client.track("acme", "ai.request")
    assert client.flush(10)
    assert counted(billing) == [name]
    first, second = billing.requests
    assert first.content == second.content


def test_the_next_process_delivers_what_the_last_one_left(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    billing.down = True
    first = make(spool=spool)
    name = first.track("acme", "ai.request")
    first.close(0)
    billing.down = False
    second = make(spool=spool)
    assert second.flush(10)
    assert counted(billing) == [name]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 401, 403, 404, 302, 200])
def test_trouble_that_is_not_the_events_fault_loses_none(
    make: Make, billing: FakeBilling, spool: Path, status: int
) -> None:
    billing.faults = [says(status), says(status)]
    client = make(spool=spool)
    name = client.track("acme", "ai.request")
    assert client.flush(10)
    assert counted(billing) == [name]
    assert list(client.rejected()) == []


def test_the_server_is_left_alone_as_long_as_it_asks(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    billing.faults = [says(503, retry_after="1")]
    client = make(spool=spool)
    begun = time.monotonic()
    client.track("acme", "ai.request")
    for _ in range(20):
        time.sleep(0.02)
        client.track("acme", "ai.request")
    assert len(billing.requests) == 1
    assert client.flush(10)
    assert time.monotonic() - begun >= 1.0


def test_a_busy_caller_does_not_hammer_a_server_that_is_down(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    billing.down = True
    client = make(spool=spool)
    for _ in range(200):
        client.track("acme", "ai.request")
        time.sleep(0.002)
    assert len(billing.requests) < 40


def test_what_is_refused_for_good_is_kept_told_and_sent_again_on_demand(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    told: list[Rejection] = []
    called = threading.Event()

    def tell(rejection: Rejection) -> None:
        told.append(rejection)
        called.set()

    client = make(spool=spool, on_rejected=tell)
    good, bad = client.track("acme", "ai.request"), client.track("later", "ai.request")
    assert client.flush(10)
    assert counted(billing) == [good]
    assert called.wait(10)
    assert [(one.target, one.kind, one.reason) for one in told] == [
        (bad, "event", "unknown_customer")
    ]
    assert list(client.rejected()) == told
    billing.customers.add("later")
    client.resend(told)
    assert client.flush(10)
    assert counted(billing) == [good, bad]
    assert client.backlog().rejected == 0


def test_the_same_id_with_another_payload_is_a_conflict(make: Make, spool: Path) -> None:
    client = make(spool=spool)
    at = datetime(2025, 1, 1, tzinfo=UTC)
    client.track("acme", "ai.request", {"n": 1}, id="one", time=at)
    client.track("acme", "ai.request", {"n": 1}, id="one", time=at)
    client.track("acme", "ai.request", {"n": 2}, id="one", time=at)
    assert client.flush(10)
    assert [one.reason for one in client.rejected()] == ["other_payload"]
    client.forget(list(client.rejected()))
    assert client.backlog().rejected == 0


def test_a_callback_that_fails_does_not_stop_delivery(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    def fail(_: Rejection) -> None:
        raise RuntimeError("a bug of the caller's")

    client = make(spool=spool, on_rejected=fail)
    client.track("nobody", "ai.request")
    assert client.flush(10)
    name = client.track("acme", "ai.request")
    assert client.flush(10)
    assert counted(billing) == [name]


def test_one_event_that_sinks_its_request_is_found_and_set_aside(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    def poisoned(request: httpx.Request) -> httpx.Response | None:
        return problem(413, "body_too_large") if b"poison" in request.content else None

    billing.faults = [poisoned] * 200
    billing.down = True
    client = make(spool=spool)
    for number in range(100):
        client.track("acme", "ai.request", {"x": "poison" if number == 37 else ""}, id=str(number))
    billing.down = False
    assert client.flush(20)
    assert [one.target for one in client.rejected()] == ["37"]
    assert len(counted(billing)) == 99


def test_what_makes_the_server_fail_does_not_stand_in_the_way(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    def breaks(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(500) if b"poison" in request.content else None

    billing.down = True
    client = make(spool=spool)
    for number in range(20):
        client.track("acme", "ai.request", {"x": "poison" if number == 7 else ""}, id=str(number))
    permits = [Permit("acme", "questions", Decimal(1), f"rsv_{n}", AT) for n in range(40)]
    billing.held = {permit.reservation: Decimal(1) for permit in permits}
    permits[0].customer = "poison"
    for permit in permits:
        client.commit(permit)
    billing.faults = [breaks] * 500
    billing.down = False
    for _ in range(2_000):
        if client.backlog().waiting == 2:
            break
        time.sleep(0.02)
    assert set(counted(billing)) == {str(number) for number in range(20)} - {"7"}
    assert len(billing.settled) == 39
    assert list(client.rejected()) == []
    billing.down = True


def test_a_full_spool_says_so_and_keeps_what_it_has(
    make: Make, billing: FakeBilling, spool: Path
) -> None:
    billing.down = True
    client = make(spool=Spool(spool, rows_max=2))
    kept = [client.track("acme", "ai.request") for _ in range(2)]
    with pytest.raises(SpoolFull):
        client.track("acme", "ai.request")
    billing.down = False
    assert client.flush(10)
    assert counted(billing) == kept


def test_an_event_that_is_wrong_is_refused_at_once(make: Make, spool: Path) -> None:
    client = make(spool=spool)
    with pytest.raises(Invalid):
        client.track("", "ai.request")
    assert not spool.exists()


def test_without_a_spool_an_event_is_sent_at_once_or_raises(
    make: Make, billing: FakeBilling
) -> None:
    client = make()
    billing.faults = [says(503), loses_the_answer(billing)]
    name = client.track("acme", "ai.request")
    assert counted(billing) == [name]
    with pytest.raises(Rejected, match="unknown_customer"):
        client.track("nobody", "ai.request")
    billing.down = True
    with pytest.raises(Unavailable):
        client.track("acme", "ai.request")
    assert client.flush(1)
    with pytest.raises(Invalid, match="spool"):
        client.rejected()


def test_a_closed_client_says_so_and_closes_once(make: Make, spool: Path) -> None:
    client, plain = make(spool=spool), make()
    for one in (client, plain):
        one.close()
        one.close()
        with pytest.raises(Closed):
            one.track("acme", "ai.request")


def test_no_thread_outlives_its_client(make: Make, spool: Path) -> None:
    before = threading.active_count()
    client = make(spool=spool)
    client.track("acme", "ai.request")
    client.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("billing.test", "key"), ("ftp://billing.test", "key"), ("http://u:p@billing.test", "key"),
        ("http://billing.test?a=1", "key"), ("http://", "key"),
        ("http://billing.test", ""), ("http://billing.test", "a\r\nb"),
    ],
)  # fmt: skip
def test_a_wrong_address_or_key_is_refused(url: str, key: str) -> None:
    with pytest.raises(Invalid):
        Convergio(url, key)


def test_the_key_is_never_shown(make: Make, billing: FakeBilling, spool: Path) -> None:
    secret = "cvg_live_secret"
    client = Convergio("http://billing.test", secret, spool=spool, transport=billing.transport)
    client.track("acme", "ai.request")
    client.flush(0.2)
    shown = repr(client) + str(client.backlog())
    client.close(0)
    assert secret not in shown
    assert all(secret.encode() not in file.read_bytes() for file in spool.parent.iterdir())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_delivers_its_own(make: Make, billing: FakeBilling, spool: Path) -> None:
    """Servers that load the application before they fork its workers (gunicorn --preload)."""
    client = make(spool=spool)
    parent = client.track("acme", "ai.request", id="parent")
    assert client.flush(10)
    process = os.fork()
    if process == 0:
        client.track("acme", "ai.request", id="child")
        connections = client._engine._clients  # noqa: SLF001 - its own ones are the claim
        os._exit(0 if client.flush(10) and len(connections) == 2 else 1)
    assert os.waitpid(process, 0)[1] == 0
    assert counted(billing) == [parent], "the child's fake is its own; nothing reached ours"
    assert client.backlog().waiting == 0
