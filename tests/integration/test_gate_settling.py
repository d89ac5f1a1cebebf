"""Reserve, then commit, release or expire: each once, whatever is sent again."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from convergio.entitlements.model import Ask
from convergio.infra.db import Database
from convergio.infra.ids import typeid
from convergio.kernel.errors import Conflict, ConvergioError, Invalid, NotFound, Rejected
from tests.fakes.meters import NOW, event
from tests.fakes.quota import CATALOG, Desk
from tests.fakes.usage import JANUARY, make, send, totals

LATER = NOW + timedelta(hours=1)


@pytest.fixture
def desk(database: Database) -> Desk:
    """A process whose customer `acme` may use ten, and whose reservations live five minutes."""
    made = Desk(database)
    made.subscribe("ten", "acme", start=JANUARY)
    return made


def used(desk: Desk) -> tuple[str, str]:
    found = desk.quota()
    return found["used"], found["reserved"]


@pytest.mark.parametrize(
    ("actual", "left"),
    [
        (None, "4"),
        ("4", "4"),
        ("1.5", "1.5"),
        ("0", "0"),
        ("0.000000001", "0.000000001"),
        ("25", "25"),
    ],
)
def test_a_commit_counts_what_was_really_used_and_gives_back_the_rest(
    desk: Desk, actual: str | None, left: str
) -> None:
    held = desk.hold("4")
    assert used(desk) == ("0", "4")
    assert desk.commit(held, actual) == "committed"
    assert used(desk) == (left, "0")
    assert desk.verify() == []


def test_a_commit_twice_is_one_commit_and_another_quantity_is_refused(desk: Desk) -> None:
    held = desk.hold("4")
    assert desk.commit(held, "3") == "committed"
    assert desk.commit(held, "3", now=LATER) == "committed"
    with pytest.raises(Conflict) as caught:
        desk.commit(held, "4")
    assert caught.value.code == "committed"
    with pytest.raises(Conflict):
        desk.commit(held)
    assert used(desk) == ("3", "0")
    assert desk.verify() == []


def test_commits_that_race_count_once(desk: Desk) -> None:
    held = desk.hold("4")
    with ThreadPoolExecutor(6) as pool:
        states = list(pool.map(lambda _: desk.commit(held, "3"), range(12)))
    assert set(states) == {"committed"}
    assert used(desk) == ("3", "0")
    assert desk.verify() == []


def test_a_release_gives_back_once_and_forbids_the_commit(desk: Desk) -> None:
    held = desk.hold("4")
    assert desk.release(held) == "released"
    assert desk.release(held) == "released"
    with pytest.raises(Conflict) as caught:
        desk.commit(held)
    assert caught.value.code == "released"
    assert used(desk) == ("0", "0")


def test_a_committed_reservation_cannot_be_released(desk: Desk) -> None:
    held = desk.hold("4")
    desk.commit(held)
    with pytest.raises(Conflict):
        desk.release(held)
    assert used(desk) == ("4", "0")


def test_quota_04_what_nobody_settles_expires_and_can_still_be_committed(desk: Desk) -> None:
    held, other = desk.hold("4"), desk.hold("6", now=NOW + timedelta(seconds=10))
    assert desk.reason() == "limit_reached"
    assert desk.sweep(now=NOW + timedelta(seconds=300) - timedelta(microseconds=1)) == 0
    assert desk.sweep(now=NOW + timedelta(seconds=300)) == 1
    assert used(desk) == ("0", "6")
    assert desk.commit(held, now=LATER) == "committed", "it happened: it is counted (RULES 21)"
    assert used(desk)[0] == "4"
    assert desk.release(other) == "released"
    assert desk.sweep(now=LATER) == 0
    assert used(desk) == ("4", "0")
    assert desk.verify() == []


def test_sweepers_that_race_give_back_once(desk: Desk) -> None:
    for _ in range(10):
        desk.hold("1")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: desk.sweep(now=LATER), range(4))) == 10
    assert used(desk) == ("0", "0")
    assert desk.verify() == []


def test_more_than_one_batch_expires_in_one_sweep(database: Database) -> None:
    desk = Desk(database)
    desk.subscribe("soft", "acme")
    desk.gate.authorize([Ask("acme", "questions", Decimal(1))] * 600, now=NOW)
    assert desk.sweep(now=LATER) == 600
    assert used(desk) == ("0", "0")


def test_a_commit_counts_in_the_window_in_which_the_reservation_was_made(desk: Desk) -> None:
    (acme,) = make(desk.database, "acme")
    end = desk.gate.quota("acme", "questions", now=NOW).resets_at
    moment = end - timedelta(seconds=5)
    held = desk.hold("4", now=moment)
    assert desk.commit(held, now=end + timedelta(minutes=2)) == "committed"
    assert totals(desk.database, acme) == {JANUARY: "4"}
    assert desk.quota(now=end)["used"] == "0"
    assert desk.verify() == []


def test_settling_needs_the_right_customer_and_a_reservation_that_exists(desk: Desk) -> None:
    desk.subscribe("ten", "beta")
    held = desk.hold("4")
    for name, reservation in (("beta", held), ("acme", uuid4()), ("nobody", held)):
        for settle in (desk.commit, desk.release):
            with pytest.raises(NotFound):
                settle(reservation, name=name)
    assert used(desk) == ("0", "4")


@pytest.mark.parametrize("actual", ["1000000000000000000", "99999999999999999999999999999"])
def test_a_commit_that_no_event_can_hold_is_refused_and_changes_nothing(
    desk: Desk, actual: str
) -> None:
    held = desk.hold("4")
    with pytest.raises(Invalid) as caught:
        desk.commit(held, actual)
    assert caught.value.field == "actual"
    assert used(desk) == ("0", "4")


def test_a_commit_whose_event_another_meter_refuses_says_so_and_changes_nothing(
    database: Database,
) -> None:
    """One event feeds several meters: here `cost` cannot count an event without its value."""
    cost = b"  - {key: cost, name: Cost, event: ai.request, aggregation: sum, value: cost}\nplans:"
    desk = Desk(database, source=CATALOG.replace(b"plans:", cost))
    desk.subscribe("ten", "acme")
    held = desk.hold("4")
    with pytest.raises(Rejected):
        desk.commit(held)
    assert used(desk) == ("0", "4")
    assert desk.release(held) == "released"


def test_a_forged_event_of_a_reservation_cannot_hide_its_usage(desk: Desk) -> None:
    """Should one get past the door, the commit is refused whole and not settled with nothing."""
    held = desk.hold("4")
    forged = event(typeid("rsv", held), source="convergio:reservation", data={"quantity": 0})
    send(desk.ingestor, forged)
    with pytest.raises(ConvergioError):
        desk.commit(held)
    assert used(desk)[1] == "4", "still held"
