"""A hard limit is exact under any number of callers, and every answer says why."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convergio.entitlements.model import Access, Allowed, Ask, Denied
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, NotFound, Unavailable
from convergio.metering import actions as metering
from convergio.metering.errors import WindowsChanged
from convergio.metering.intake import Window
from convergio.metering.model import Segment
from tests.fakes.meters import NOW, event
from tests.fakes.quota import Desk
from tests.fakes.usage import JANUARY, lay, send

LATER = NOW + timedelta(hours=1)


@pytest.fixture
def desk(database: Database) -> Desk:
    """A process whose customer `acme` may use ten."""
    made = Desk(database)
    made.subscribe("ten", "acme")
    return made


def at_once(workers: int, work: Callable[[int], list[bool]]) -> list[bool]:
    """Run the work in threads that begin together; return all answers."""
    gate = threading.Barrier(workers)

    def begin(number: int) -> list[bool]:
        gate.wait(20)
        return work(number)

    with ThreadPoolExecutor(workers) as pool:
        return [one for answers in pool.map(begin, range(workers)) for one in answers]


def test_64_callers_on_a_limit_of_1000_are_allowed_exactly_1000_times(database: Database) -> None:
    desks = [Desk(database), Desk(database)]
    desks[0].subscribe("thousand", "acme")

    def work(number: int) -> list[bool]:
        gate, asks = desks[number % 2].gate, [Ask("acme", "questions", Decimal(1))] * 5
        answers = []
        for _ in range(5):
            for _ in range(50):
                try:
                    answers += gate.authorize(asks, now=NOW)
                    break
                except Unavailable:
                    continue
        return [isinstance(one, Allowed) for one in answers]

    answers = at_once(64, work)
    assert Counter(answers) == {True: 1000, False: 600}
    assert desks[0].quota() == {"used": "0", "reserved": "1000", "remaining": "0"}
    assert desks[0].verify() == []


def test_quota_01_of_100_parallel_requests_for_the_last_unit_one_is_allowed(desk: Desk) -> None:
    desk.commit(desk.hold("9"))
    ask = [Ask("acme", "questions", Decimal(1))]

    def work(_: int) -> list[bool]:
        return [isinstance(one, Allowed) for one in desk.gate.authorize(ask * 2, now=NOW)]

    assert Counter(at_once(50, work)) == {True: 1, False: 99}
    assert desk.quota() == {"used": "9", "reserved": "1", "remaining": "0"}
    assert desk.verify() == []


def test_asks_are_served_in_order_of_arrival_and_a_smaller_one_may_fit_behind_a_larger(
    desk: Desk,
) -> None:
    asks = [Ask("acme", "questions", Decimal(q)) for q in ("4", "7", "3", "3.000000001", "3", "1")]
    answers = desk.gate.authorize(asks, now=NOW)
    assert [isinstance(one, Allowed) for one in answers] == [True, False, True, False, True, False]
    assert desk.quota()["remaining"] == "0"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(st.lists(st.decimals("0.1", 6, places=1), min_size=1, max_size=6), max_size=4)
)
def test_what_is_allowed_never_passes_the_limit_and_no_denial_was_needless(
    database: Database, batches: list[list[Decimal]]
) -> None:
    made = Desk(database)
    with database.transaction() as tx:
        row = tx.raw.execute(b"SELECT count(*) FROM customer").fetchone()
    name = f"acme{row[0] if row else 0}"
    made.subscribe("ten", name)
    held = Decimal(0)
    for batch in batches:
        asks = [Ask(name, "questions", quantity) for quantity in batch]
        for ask, answer in zip(asks, made.gate.authorize(asks, now=NOW), strict=True):
            assert isinstance(answer, Allowed) == (held + ask.quantity <= 10)
            held += ask.quantity if isinstance(answer, Allowed) else 0
    assert Decimal(made.quota(name=name)["reserved"]) == held
    assert made.verify() == []


def test_the_answers_of_one_batch_may_differ_by_customer_and_meter(desk: Desk) -> None:
    desk.subscribe(None, "nobody")
    (gone,) = desk.subscribe("ten", "gone")
    desk.end(gone, now=NOW + timedelta(seconds=1))
    asks = [
        Ask("acme", "questions", Decimal(1)),
        Ask("unknown", "questions", Decimal(1)),
        Ask("acme", "unknown", Decimal(1)),
        Ask("nobody", "questions", Decimal(1)),
        Ask("gone", "questions", Decimal(1)),
        Ask("acme", "questions", Decimal(10)),
        Ask("acme", "images", Decimal(10**9)),
        Ask("", "", Decimal(1)),
        Ask("\x00", "\x00", Decimal(1)),
        Ask("\ud800", "questions", Decimal(1)),
    ]
    answers = desk.gate.authorize(asks, now=NOW + timedelta(seconds=2))
    told = [str(one.reason) if isinstance(one, Denied) else "allowed" for one in answers]
    assert told == [
        "allowed", "unknown_customer", "unknown_meter", "no_subscription", "no_subscription",
        "limit_reached", "allowed", "unknown_meter", "unknown_meter", "unknown_customer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("unpaid", "suspended"),
        ("paused", "suspended"),
        ("incomplete", "suspended"),
        ("past_due", "allowed"),
        ("trialing", "allowed"),
    ],
)
def test_money_34_access_follows_the_subscription_s_status(
    desk: Desk, status: str, expected: str
) -> None:
    with desk.database.transaction() as tx:
        tx.raw.execute(b"UPDATE subscription SET status = %s", [status])
    answer = desk.ask()
    told = str(answer.reason) if isinstance(answer, Denied) else "allowed"
    assert told == expected
    found = desk.gate.quota("acme", "questions", now=NOW).access
    assert (found is Access.SUSPENDED) == (expected == "suspended")


def test_quota_02_a_request_larger_than_what_is_left_changes_nothing(desk: Desk) -> None:
    assert desk.reason("10.000000001") == "limit_reached"
    assert desk.quota() == {"used": "0", "reserved": "0", "remaining": "10"}
    desk.hold("10")
    assert desk.reason("0.000000001") == "limit_reached"


def test_a_soft_limit_refuses_nothing(database: Database) -> None:
    desk = Desk(database)
    desk.subscribe("soft", "acme")
    assert desk.commit(desk.hold("25")) == "committed"
    assert desk.quota() == {"used": "25", "reserved": "0", "remaining": "none"}
    assert desk.gate.quota("acme", "questions", now=NOW).included == 10


def test_tracking_is_never_refused_and_uses_the_same_number(desk: Desk) -> None:
    """What happened is counted, also beyond the limit; authorize sees it at once (RULES 19)."""
    assert send(desk.ingestor, event("a", data={"quantity": 12})) == ["accepted"]
    assert desk.quota() == {"used": "12", "reserved": "0", "remaining": "0"}
    assert desk.reason() == "limit_reached"


def test_a_quota_of_nobody_and_of_nothing_is_not_found(desk: Desk) -> None:
    for name, meter, field in (("x", "questions", "customer"), ("acme", "x", "meter")):
        with pytest.raises(NotFound) as caught:
            desk.gate.quota(name, meter, now=NOW)
        assert caught.value.field == field


def test_the_next_period_begins_with_the_whole_quota(desk: Desk) -> None:
    desk.commit(desk.hold("10"))
    assert desk.reason() == "limit_reached"
    end = desk.gate.quota("acme", "questions", now=NOW).resets_at
    last = end - timedelta(microseconds=1)
    assert isinstance(desk.ask(now=last), Denied)
    assert isinstance(desk.ask("10", now=end), Allowed)
    assert desk.quota(now=end) == {"used": "0", "reserved": "10", "remaining": "0"}


def test_quota_05_a_downgrade_in_flight_is_seen_by_a_process_with_a_stale_cache(
    database: Database,
) -> None:
    stale, desk = Desk(database), Desk(database)
    (acme,) = desk.subscribe("thousand", "acme")
    stale.commit(stale.hold("20"))
    desk.end(acme, now=NOW + timedelta(minutes=1))
    later = NOW + timedelta(minutes=2)
    desk.subscribe("ten", "acme", start=later, now=later)
    answers = stale.gate.authorize([Ask("acme", "questions", Decimal(6))] * 3, now=later)
    assert [isinstance(one, Allowed) for one in answers] == [True, False, False]
    assert stale.verify() == []


def test_a_change_that_would_move_open_reservations_is_refused_and_moves_nothing(
    desk: Desk,
) -> None:
    (acme,) = desk.subscribe(None, "acme")
    held = desk.hold("4")
    with pytest.raises(Conflict) as caught:
        lay(desk.database, acme, Segment(JANUARY, starts_at=JANUARY), now=LATER)
    assert caught.value.code == "open_reservations"
    assert desk.quota() == {"used": "0", "reserved": "4", "remaining": "6"}
    assert desk.commit(held) == "committed"
    assert desk.verify() == []


def test_a_change_from_now_on_leaves_reservations_made_before_in_the_window_that_ended(
    desk: Desk,
) -> None:
    (acme,) = desk.subscribe(None, "acme")
    first, second, third = desk.hold("4"), desk.hold("1"), desk.hold("2")
    lay(desk.database, acme, Segment(LATER, starts_at=LATER), now=LATER)
    assert desk.quota(now=LATER) == {"used": "0", "reserved": "0", "remaining": "none"}
    assert desk.commit(first, now=LATER) == "committed"
    assert desk.release(second, now=LATER) == "released"
    assert desk.sweep(now=LATER + timedelta(days=1)) == 1
    assert desk.commit(third, "2", now=LATER + timedelta(days=1)) == "committed"
    assert desk.quota(now=LATER)["used"] == "0"
    assert desk.verify() == []


def test_a_clock_a_moment_behind_loses_no_reservation(desk: Desk) -> None:
    """One process's plan change may carry an earlier instant than another's last reservation."""
    (acme,) = desk.subscribe(None, "acme")
    ahead = NOW + timedelta(milliseconds=50)
    held = desk.hold("4", now=ahead)
    behind = NOW + timedelta(milliseconds=20)
    try:
        lay(desk.database, acme, Segment(behind, starts_at=behind), now=behind)
    except Conflict as error:
        assert error.code == "open_reservations"  # noqa: PT017 - refusing it is safe as well
    assert desk.sweep(now=LATER) == 1, "the sweeper is not stuck"
    assert desk.commit(held, now=LATER) == "committed"
    assert desk.verify() == []


def test_two_copies_of_a_window_in_one_batch_are_noticed(desk: Desk) -> None:
    found = desk.ingestor.windows([("acme", "questions")], now=NOW)[0]
    assert found is not None
    copy = Window(found.customer, found.meter_id, found.start, found.end, found.version)
    with pytest.raises(WindowsChanged), desk.database.transaction() as tx:
        metering.hold(tx, [(found, [Decimal(1)]), (copy, [Decimal(1)])])
    assert desk.quota()["reserved"] == "0"
