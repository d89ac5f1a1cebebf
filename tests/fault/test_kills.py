"""Servers and databases die by kill -9 under load: nothing is lost, nothing counts twice."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from convergio.infra.ids import parse_typeid
from tests.fault.storm import KILLS, LIMIT, Outcome

After = Callable[[str], Outcome]

pytestmark = pytest.mark.parametrize("kind", ["server", "postgres"])


def test_every_kill_happened_under_load(after: After, kind: str) -> None:
    figures = after(kind).journal.figures
    assert figures[f"{kind} kills"] >= KILLS
    assert figures["acknowledged"] > 1_000
    assert figures["allowed"] > 100
    assert figures["denied"] > 10
    assert figures["retries"] > KILLS


def test_clients_get_their_answer_or_may_try_again(after: After, kind: str) -> None:
    assert after(kind).journal.problems == []


def test_every_acknowledged_event_is_stored_once(after: After, kind: str) -> None:
    left = after(kind)
    assert {one: left.stored[one] for one in left.journal.acknowledged} == dict.fromkeys(
        left.journal.acknowledged, 1
    )
    assert set(left.stored.values()) == {1}


def test_nothing_is_stored_that_was_never_sent(after: After, kind: str) -> None:
    left = after(kind)
    assert left.stored.keys() - left.journal.sent.keys() == set()


def test_totals_count_every_stored_event_once(after: After, kind: str) -> None:
    left = after(kind)
    expected: dict[str, Decimal] = {}
    for customer, event_id in left.stored:
        quantity = left.journal.sent[customer, event_id]
        expected[customer] = expected.get(customer, Decimal(0)) + quantity
    found = {key: used for key, used in left.used.items() if key.startswith("metered-")}
    assert found == expected


def test_a_hard_limit_is_never_oversold(after: After, kind: str) -> None:
    left = after(kind)
    assert len(left.limited) > 2
    over = [row for row in left.limited if row[1] + row[2] > LIMIT]
    assert over == []


def test_every_acknowledged_reservation_is_there_as_it_was_settled(after: After, kind: str) -> None:
    left = after(kind)
    promised: dict[str, tuple[str, Decimal | None]] = {
        **dict.fromkeys(left.journal.open, ("open", None)),
        **{one: ("committed", quantity) for one, quantity in left.journal.committed.items()},
        **dict.fromkeys(left.journal.released, ("released", None)),
    }
    found = {
        one: (state, settled)
        for one in promised
        for state, _, settled in [left.reservations[str(parse_typeid("rsv", one))]]
    }
    assert found == promised
    doubtful = {str(parse_typeid("rsv", one)) for one in left.journal.doubtful}
    assert doubtful <= left.reservations.keys()


def test_used_is_what_was_committed(after: After, kind: str) -> None:
    left = after(kind)
    settled = sum((row[2] or Decimal(0) for row in left.reservations.values()), Decimal(0))
    used = sum((row[1] for row in left.limited), Decimal(0))
    assert used == settled


def test_no_process_of_a_killed_database_lives_on(after: After, kind: str) -> None:
    assert after(kind).survivors == []


def test_verify_finds_no_difference(after: After, kind: str) -> None:
    assert after(kind).verified["ok"] is True
