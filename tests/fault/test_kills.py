"""Servers and databases die by kill -9 under load, and connections in their COMMIT.

Whatever happens: nothing is lost, nothing counts twice, and no quota is oversold.
"""

from collections.abc import Callable

import pytest

from convergio.infra.ids import parse_typeid
from tests.fault.storm import KILLS, REST_EVERY, Outcome, judged

After = Callable[[str], Outcome]

pytestmark = [
    pytest.mark.parametrize("kind", ["server", "postgres", "commit"]),
    pytest.mark.timeout(1500),
]


def test_every_kill_happened_under_load(after: After, kind: str) -> None:
    figures = after(kind).journal.figures
    assert figures[f"{kind} kills"] >= KILLS
    assert figures["acknowledged"] > 20 * KILLS
    assert figures["allowed"] > 2 * KILLS
    assert figures["denied"] > 0
    assert figures["retries"] > KILLS


def test_clients_get_their_answer_or_may_try_again(after: After, kind: str) -> None:
    assert after(kind).journal.problems == []


def test_acknowledged_stored_and_counted_are_the_same_in_the_end(after: After, kind: str) -> None:
    left = after(kind)
    assert len(left.facts.limited) > 2
    assert judged(left.journal, left.facts) == []


def test_they_were_the_same_at_every_rest(after: After, kind: str) -> None:
    rests = after(kind).rests
    assert len(rests) >= KILLS // REST_EVERY
    assert [wrong for wrong in rests if wrong] == []


def test_every_acknowledged_reservation_is_there_as_it_was_settled(after: After, kind: str) -> None:
    left = after(kind)
    promised = {
        **dict.fromkeys(left.journal.open, ("open", None)),
        **{one: ("committed", quantity) for one, quantity in left.journal.committed.items()},
        **dict.fromkeys(left.journal.released, ("released", None)),
    }
    found = {
        one: (state, settled)
        for one in promised
        for state, _, settled in [left.facts.reservations[str(parse_typeid("rsv", one))]]
    }
    assert found == promised
    doubtful = {str(parse_typeid("rsv", one)) for one in left.journal.doubtful}
    assert doubtful <= left.facts.reservations.keys()


def test_a_repeated_question_holds_once(after: After, kind: str) -> None:
    left = after(kind)
    figures = left.journal.figures
    held = len(left.facts.reservations)
    assert figures["allowed"] <= held <= figures["allowed"] + figures["asks given up"]


def test_no_process_of_a_killed_database_lives_on(after: After, kind: str) -> None:
    assert after(kind).survivors == []


def test_verify_finds_no_difference(after: After, kind: str) -> None:
    assert after(kind).verified["ok"] is True
