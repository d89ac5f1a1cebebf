"""How calls are repeated: with pauses that grow, never before the server asked, never for ever."""

import json
from decimal import Decimal

import pytest

from convergio_client import errors, flows, protocol
from convergio_client.flows import Outcome, Patience, Pause
from convergio_client.protocol import Call, Reply, Silence

CALL = Call("GET", "/v1/quota")
OK = Reply(200, b"{}")


def run(*outcomes: Outcome, patience: Patience) -> tuple[Reply | None, list[float], str]:
    """Return the answer, the pauses and the error of a call that has these outcomes."""
    flow = flows.answered(CALL, patience)
    left, pauses, outcome = list(outcomes), [], None
    try:
        while True:
            step = flow.send(outcome)
            outcome = None
            if isinstance(step, Pause):
                pauses.append(step.seconds)
            else:
                assert step == CALL
                outcome = left.pop(0)
    except StopIteration as done:
        return done.value, pauses, ""
    except errors.Unavailable as error:
        return None, pauses, str(error)


def test_an_answer_ends_the_call() -> None:
    assert run(OK, patience=Patience()) == (OK, [], "")


def test_silence_and_overload_are_repeated_until_an_answer_comes() -> None:
    reply, pauses, _ = run(Silence("x"), Reply(503, b""), OK, patience=Patience())
    assert reply == OK
    assert len(pauses) == 2


def test_pauses_are_jittered_below_a_top_that_doubles_to_its_limit() -> None:
    patience = Patience(first_pause_seconds=1, pause_seconds_max=8)
    for failures, top in enumerate([1, 2, 4, 8, 8, 8]):
        drawn = [patience.pause(failures, None) for _ in range(200)]
        assert all(0 <= pause <= top for pause in drawn)
        assert max(drawn) > top * 0.8
        assert min(drawn) < top * 0.2
    assert patience.pause(10_000, None) <= 8


def test_the_server_is_not_asked_again_before_it_said() -> None:
    _, pauses, _ = run(Reply(503, b"", 5.0), OK, patience=Patience())
    assert pauses[0] >= 5.0


def test_patience_ends() -> None:
    _, pauses, error = run(*[Silence("gone")] * 99, patience=Patience(seconds_max=3))
    assert sum(pauses) <= 3
    assert "gone" in error
    _, pauses, error = run(Reply(429, b"", 60.0), patience=Patience(seconds_max=3))
    assert pauses == []
    assert "429" in error


def test_usage_is_read_to_its_last_page() -> None:
    row = {"start": "2025-01-01T00:00:00Z", "quantity": "0.5", "events": 3}
    call = protocol.ask_usage(
        "m", customer="c", by="day", start=None, end=None, time_zone="Europe/Rome"
    )
    flow = flows.usage(call, Patience())
    assert next(flow) == call
    second = flow.send(Reply(200, json.dumps({"usage": [row], "next": "p2"}).encode()))
    assert isinstance(second, Call)
    assert second.query == (*call.query, ("after", "p2"))
    with pytest.raises(StopIteration) as done:
        flow.send(Reply(200, json.dumps({"usage": [row], "next": None}).encode()))
    assert [one.quantity for one in done.value.value] == [Decimal("0.5")] * 2


def test_one_event_of_a_batch_of_one_is_refused_by_name() -> None:
    other = {"index": 0, "status": "conflict", "reason": "other_payload", "detail": "d"}
    body = {"accepted": 0, "duplicate": 0, "conflict": 1, "rejected": 0, "events": [other]}
    flow = flows.count(b"{}", Patience())
    next(flow)
    with pytest.raises(errors.Rejected) as caught:
        flow.send(Reply(202, json.dumps(body).encode()))
    assert (caught.value.code, caught.value.status) == ("other_payload", 409)


def test_a_reservation_is_asked_for_with_its_id_however_often() -> None:
    told = b'{"allowed":true,"reservation":"r","expires_at":"2025-01-01T00:00:00Z"}'
    flow = flows.reserve("acme", "questions", 1, "ask-1", Patience(seconds_max=60))
    first = next(flow)
    assert isinstance(flow.send(Silence("lost")), Pause)
    assert flow.send(None) == first
    assert isinstance(first, Call)
    assert json.loads(first.body or b"")["id"] == "ask-1"
    with pytest.raises(StopIteration):
        flow.send(Reply(200, told))
