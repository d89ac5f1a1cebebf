"""Sending events to a server: patient when it is busy, plain about why it refuses."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from convergio.infra.settings import Secret
from convergio.kernel.errors import (
    ConvergioError,
    Forbidden,
    Invalid,
    LimitExceeded,
    Unauthenticated,
    Unavailable,
)
from convergio.metering.model import Event
from convergio.simulation import sending
from convergio.simulation.sending import Server, check_url

EVENTS = [
    Event(
        id=f"row-{n}",
        source="urn:test",
        type="ai.request",
        subject="ada",
        time=datetime(2024, 11, 15, 16, 57, 50, 680590, tzinfo=UTC),
        data={"images": "4"},
    )
    for n in (1, 2, 3)
]
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which takes any time."""
    made: list[float] = []
    monkeypatch.setattr(sending, "pause", made.append)
    return made


def server(handler: Handler) -> Server:
    return Server("http://127.0.0.1:1", Secret("cvg_x"), transport=httpx.MockTransport(handler))


def answer(status: int, **document: object) -> httpx.Response:
    return httpx.Response(status, json={"accepted": 0, **document})


def test_a_batch_is_cloudevents_with_the_key_and_each_verdict_finds_its_event() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        entry = {"index": 1, "status": "rejected", "reason": "no", "field": "f", "detail": "d"}
        return answer(202, events=[entry, {"index": 2, "status": "duplicate"}])

    with server(handler) as target:
        verdicts = target.count(EVENTS)
    assert [one.status for one in verdicts] == ["accepted", "rejected", "duplicate"]
    assert (verdicts[1].reason, verdicts[1].field, verdicts[1].detail) == ("no", "f", "d")
    (request,) = seen
    assert (request.url.path, request.headers["authorization"]) == ("/v1/events", "Bearer cvg_x")
    sent: list[dict[str, Any]] = msgspec.json.decode(request.content)
    assert sent[0] == {
        "specversion": "1.0",
        "id": "row-1",
        "source": "urn:test",
        "type": "ai.request",
        "subject": "ada",
        "time": "2024-11-15T16:57:50.680590Z",
        "data": {"images": "4"},
    }


def test_a_batch_that_is_rejected_whole_still_has_its_verdicts() -> None:
    entries = [{"index": n, "status": "rejected", "reason": "unknown_type"} for n in range(3)]
    with server(lambda _: answer(422, events=entries)) as target:
        assert {one.reason for one in target.count(EVENTS)} == {"unknown_type"}


def test_a_busy_server_is_given_the_time_that_it_asks_for(waits: list[float]) -> None:
    answers = [
        httpx.Response(503, headers={"retry-after": "3"}),
        httpx.Response(503, headers={"retry-after": "999999999999"}),
        httpx.Response(429, headers={"retry-after": "soon"}),
        answer(202, events=[]),
    ]
    with server(lambda _: answers.pop(0)) as target:
        assert {one.status for one in target.count(EVENTS)} == {"accepted"}
    assert waits == [3, 30, 1.5]


def test_a_lost_answer_is_asked_for_again_with_the_same_ids(waits: list[float]) -> None:
    bodies: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        if len(bodies) == 1:
            raise httpx.ReadTimeout("lost")
        return answer(202, events=[])

    with server(handler) as target:
        target.count(EVENTS)
    assert bodies[0] == bodies[1]
    assert len(waits) == 1


def test_patience_ends(waits: list[float]) -> None:
    with server(lambda _: httpx.Response(503)) as target, pytest.raises(Unavailable) as caught:
        target.count(EVENTS)
    assert caught.value.code == "no_server"
    assert len(waits) == 8


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Unauthenticated),
        (403, Forbidden),
        (404, Invalid),
        (302, Invalid),
        (200, Invalid),
        (413, LimitExceeded),
        (500, Unavailable),
    ],
)
def test_a_refusal_says_what_to_do_and_never_the_key(
    status: int, error: type[ConvergioError]
) -> None:
    reply = httpx.Response(status, headers={"location": "http://elsewhere"}, content=b"<html>")
    with server(lambda _: reply) as target, pytest.raises(error) as caught:
        target.count(EVENTS)
    assert "cvg_x" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"index": 9, "status": "rejected"},
        {"index": -1, "status": "rejected"},
        {"index": "1", "status": "rejected"},
        {"index": 1},
    ],
)
def test_an_answer_about_other_events_is_not_believed(entry: dict[str, object]) -> None:
    with server(lambda _: answer(202, events=[entry])) as target, pytest.raises(Invalid):
        target.count(EVENTS)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "billing.example.com",
        "ftp://billing.example.com",
        "https://",
        "https://ada:secret@billing.example.com",
        "https://billing.example.com?a=1",
        "https://[::1",
        "https://billing.example.com:99999",
        "http://billing.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
    ],
)
def test_a_key_goes_over_https_or_stays_on_this_machine(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_url(url)
    assert caught.value.field == "--to"


@pytest.mark.parametrize(
    "url", ["https://billing.example.com/pre", "http://localhost:8080", "http://[::1]:8080"]
)
def test_a_safe_address_is_taken(url: str) -> None:
    check_url(url)
