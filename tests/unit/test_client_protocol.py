"""The client's wire format: what goes out is exact, what comes back is never guessed."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio_client import clock, errors, protocol
from convergio_client.model import Verdict
from convergio_client.protocol import Reply

NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)


def made(**more: object) -> dict[str, object]:
    values: dict[str, object] = {
        "event_id": "1", "source": "s", "type_": "t", "customer": "c", "time": NOW, "data": None,
    }  # fmt: skip
    body = protocol.event(**values | more)  # type: ignore[arg-type]  # wrong ones are tried too
    found: dict[str, object] = json.loads(body)
    return found


def reply(status: int, **document: object) -> Reply:
    return Reply(status, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (1, "1"), (0, "0"), ("0.25", "0.25"), (Decimal("1E+3"), "1000"),
        (Decimal("2.500"), "2.5"), (Decimal("0.000000001"), "0.000000001"), (Decimal("0E-9"), "0"),
    ],
)  # fmt: skip
def test_a_quantity_is_written_exactly(quantity: int | str | Decimal, text: str) -> None:
    assert protocol.quantity_text(quantity) == text


@pytest.mark.parametrize(
    "quantity",
    [0.1, True, -1, "-1", "1e3", "", " 1", "1\n", "٣", Decimal("NaN"), None,
     Decimal("0.0000000001")],
)  # fmt: skip
def test_a_quantity_that_is_not_exact_is_refused(quantity: object) -> None:
    with pytest.raises(errors.Invalid):
        protocol.quantity_text(quantity)  # type: ignore[arg-type]  # wrong types are the point


def test_an_event_says_what_was_tracked_in_utc() -> None:
    rome = timezone(timedelta(hours=1))
    event = made(
        time=datetime(2025, 1, 15, 13, tzinfo=rome),
        data={"quantity": Decimal("0.10"), "at": NOW, "key": UUID(int=1), "n": 3},
    )
    assert event == {
        "specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "c",
        "time": "2025-01-15T12:00:00Z",
        "data": {"quantity": "0.10", "at": "2025-01-15T12:00:00Z", "key": str(UUID(int=1)), "n": 3},
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"customer": ""}, {"customer": "x" * 256}, {"type_": "a\0b"}, {"event_id": ""},
        {"time": datetime(2025, 1, 1)},  # noqa: DTZ001 - a time without a zone is the point
        {"data": {"x": float("nan")}}, {"data": {"x": object()}}, {"data": {"x": "y" * 300_000}},
        {"data": {"x": Decimal("Infinity")}},
    ],
)  # fmt: skip
def test_what_can_never_be_counted_is_refused_before_it_is_stored(wrong: dict[str, object]) -> None:
    with pytest.raises(errors.Invalid):
        made(**wrong)


def test_verdicts_stand_at_the_place_of_their_event() -> None:
    other = {"index": 1, "status": "rejected", "reason": "r", "field": "f", "detail": "d"}
    told = reply(202, accepted=2, duplicate=0, conflict=0, rejected=1, events=[other])
    ok = Verdict("accepted")
    assert protocol.verdicts(told, 3) == [ok, Verdict("rejected", "r", "f", "d"), ok]


@pytest.mark.parametrize(
    "document",
    [
        {"accepted": 1, "duplicate": 0, "conflict": 0, "rejected": 0, "events": []},
        {"accepted": 3, "events": []},
        {"accepted": 2, "duplicate": 1, "conflict": 0, "rejected": 0, "events": [{"index": 9}]},
        {"accepted": 2, "duplicate": 1, "conflict": 0, "rejected": 0, "events": ["x"]},
    ],
)
def test_a_report_that_does_not_add_up_acknowledges_nothing(document: dict[str, object]) -> None:
    with pytest.raises(errors.Unavailable):
        protocol.verdicts(reply(202, **document), 3)


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"7", b'{"status":"ok"}'])
def test_an_answer_of_another_server_says_nothing_of_events(body: bytes) -> None:
    assert protocol.verdicts(Reply(200, body), 1) is None
    with pytest.raises(errors.Unavailable):
        protocol.quota(Reply(200, body))
    with pytest.raises(errors.Unavailable):
        protocol.permit(Reply(200, body), "c", "m", 1)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("limit_reached", errors.LimitReached), ("suspended", errors.Suspended),
        ("no_subscription", errors.NoSubscription), ("spend_cap", errors.SpendCap),
        ("unknown_meter", errors.Denied),
    ],
)  # fmt: skip
def test_a_denial_has_its_class_its_reason_and_its_reset(
    reason: str, kind: type[errors.Denied]
) -> None:
    told = reply(429, allowed=False, reason=reason, resets_at="2025-02-01T00:00:00Z")
    with pytest.raises(errors.Denied) as caught:
        protocol.permit(told, "c", "m", 1)
    assert type(caught.value) is kind
    assert (caught.value.reason, caught.value.status) == (reason, 429)
    assert caught.value.resets_at == datetime(2025, 2, 1, tzinfo=UTC)
    assert not protocol.is_temporary(told)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_overload_is_temporary(status: int) -> None:
    assert protocol.is_temporary(reply(status, code="contended"))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("7", 7.0), (" 7 ", 7.0), ("-1", None), ("soon", None), ("1.5", None),
        ("Wed, 15 Jan 2025 12:00:30 GMT", 30.0), ("Wed, 15 Jan 2025 11:00:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert protocol.retry_after(header, NOW) == seconds


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_not_the_fault_of_what_was_sent(status: int) -> None:
    found = protocol.failure(reply(status, code="forbidden"))
    assert isinstance(found, errors.Unauthorized)


def test_a_redirect_is_refused_and_not_followed_with_the_key() -> None:
    with pytest.raises(errors.Rejected, match="redirects"):
        protocol.raise_for(Reply(302, b""))


@given(st.integers(min_value=0, max_value=250_000_000_000_000))
def test_ids_are_uuid_7_and_begin_with_their_time(milliseconds: int) -> None:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    found = clock.new_id(instant)
    assert (found.version, found.variant) == (7, "specified in RFC 4122")
    assert abs((found.int >> 80) - milliseconds) <= 1
