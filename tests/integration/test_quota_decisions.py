"""A quota decides exactly: stale reservations hold nothing, and attacks on it get their answer.

QUOTA-nn are the rows of the shared list of attacks.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest

from convergio.entitlements import actions as entitlements
from convergio.entitlements.model import Allowed, Ask, Decision, Denied, Reason
from convergio.infra.db import Database
from convergio.kernel.errors import Unavailable
from convergio.kernel.quantity import quantity_text
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Status
from tests.fakes import quotas
from tests.fakes.quotas import METER

LATER = timedelta(seconds=quotas.HOLD_SECONDS)


def figures(*found: Decimal | str | None) -> list[str]:
    """Return quantities as text: `0`, not `0E-9`."""
    return [quantity_text(one) if isinstance(one, Decimal) else str(one) for one in found]


def ask(key: str, quantity: str) -> Ask:
    return Ask(key, METER, Decimal(quantity))


def test_a_full_window_expires_its_own_stale_reservations_before_it_denies(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    gate.authorize([ask("acme", "30"), ask("acme", "20")], now=now)
    just_before = now + LATER - timedelta(microseconds=1)
    [early] = gate.authorize([ask("acme", "1")], now=just_before)
    assert quotas.denied(early).reason == Reason.LIMIT_REACHED
    [decision] = gate.authorize([ask("acme", "50")], now=now + LATER)
    quotas.allowed(decision)
    quotas.assert_sound(database)


def test_a_stale_reservation_is_not_read_as_reserved(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    gate.authorize([ask("acme", "50")], now=now)
    full = gate.quota("acme", METER, now=now)
    assert figures(full.reserved, full.remaining, full.reason) == ["50", "0", "limit_reached"]
    free = gate.quota("acme", METER, now=now + LATER)
    assert figures(free.reserved, free.remaining, free.reason) == ["0", "50", "None"]


def test_the_first_to_ask_is_served_first_also_when_stale_reservations_are_freed(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    gate.authorize([ask("acme", "40")], now=now)
    first, second = gate.authorize([ask("acme", "46"), ask("acme", "5")], now=now + LATER)
    quotas.allowed(first)
    quotas.denied(second)
    quotas.assert_sound(database)


def test_an_expired_reservation_still_counts_what_was_used(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    [decision] = gate.authorize([ask("acme", "40")], now=now)
    [_] = gate.authorize([ask("acme", "50")], now=now + LATER)
    reservation = quotas.allowed(decision).reservation_id
    gate.commit("acme", reservation, actual=Decimal(7), now=now + LATER)
    found = gate.quota("acme", METER, now=now + LATER)
    assert figures(found.used, found.reserved, found.remaining) == ["7", "50", "0"]
    quotas.assert_sound(database)


def test_quota_01_of_100_requests_at_once_for_the_last_unit_exactly_one_is_allowed(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gates = [quotas.gate(database) for _ in range(4)]
    quotas.used_up(gates[0], "acme", "49", now)

    def one(place: int) -> Decision:
        return _patiently(partial(gates[place % 4].authorize, [ask("acme", "1")], now=now))[0]

    decisions = quotas.at_once([partial(one, place) for place in range(100)])
    assert sum(isinstance(decision, Allowed) for decision in decisions) == 1
    assert {d.reason for d in decisions if isinstance(d, Denied)} == {Reason.LIMIT_REACHED}
    quotas.assert_sound(database)


def _patiently(work: Callable[[], list[Decision]]) -> list[Decision]:
    """Ask again as a client does when the pool is busy."""
    while True:
        try:
            return work()
        except Unavailable:
            continue


def test_quota_02_a_batch_larger_than_what_is_left_is_decided_ask_by_ask(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    decisions = gate.authorize([ask("acme", "1")] * 70, now=now)
    assert [isinstance(decision, Allowed) for decision in decisions] == [True] * 50 + [False] * 20
    [whole] = quotas.gate(database).authorize([ask("acme", "51")], now=now + LATER)
    assert quotas.denied(whole).reason == Reason.LIMIT_REACHED
    found = gate.quota("acme", METER, now=now)
    assert found.used + found.reserved <= quotas.LIMIT


def test_quota_04_reservations_that_are_never_settled_starve_nobody_and_hide_no_usage(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    quotas.used_up(gate, "acme", "10", now)
    gate.authorize([ask("acme", "1")] * 40, now=now)
    assert entitlements.sweep(database, now=now) == 0
    assert entitlements.sweep(database, now=now + LATER) == 40
    found = gate.quota("acme", METER, now=now + LATER)
    assert figures(found.used, found.reserved, found.remaining) == ["10", "0", "40"]
    quotas.assert_sound(database)


def test_quota_05_a_plan_that_ends_while_requests_are_in_flight_leaves_one_consistent_limit(
    database: Database, now: datetime
) -> None:
    ids = quotas.subscribed(database, now, "acme", plan="pro")
    gates = [quotas.gate(database) for _ in range(3)]
    for gate in gates:  # every process has the window in its cache
        gate.authorize([ask("acme", "1")], now=now)
    change = now + timedelta(seconds=1)

    def downgrade() -> list[Decision]:
        with database.transaction() as tx:
            subscriptions.cancel(tx, customer_id=ids["acme"], at_period_end=False, now=change)
        with database.transaction() as tx:
            subscriptions.create(
                tx, customer_id=ids["acme"], plan_key="free", start=change, now=change
            )
        return []

    def burst(place: int) -> list[Decision]:
        asks = [ask("acme", "1")] * 40
        return _patiently(partial(gates[place].authorize, asks, now=change))

    work: list[Callable[[], list[Decision]]] = [partial(burst, place) for place in range(3)]
    quotas.at_once([downgrade, *work])
    for place in range(3):
        burst(place)
    found = gates[0].quota("acme", METER, now=change)
    assert found.limit == quotas.LIMIT
    assert found.used + found.reserved == quotas.LIMIT
    quotas.assert_sound(database)


def test_quota_10_requests_at_the_reset_each_count_in_one_window(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme", days=0)
    gate = quotas.gate(database)
    reset = gate.quota("acme", METER, now=now).resets_at
    last = reset - timedelta(microseconds=1)
    before = gate.authorize([ask("acme", "1")] * 60, now=last)
    after = quotas.gate(database).authorize([ask("acme", "1")] * 60, now=reset)
    assert sum(isinstance(one, Allowed) for one in before) == 50
    assert sum(isinstance(one, Allowed) for one in after) == 50
    gate.commit("acme", quotas.allowed(before[0]).reservation_id, actual=None, now=reset)
    assert gate.quota("acme", METER, now=last).used == 1
    found = gate.quota("acme", METER, now=reset)
    assert figures(found.used, found.reserved) == ["0", "50"]
    quotas.assert_sound(database)


def test_a_denial_says_when_the_window_ends_and_when_to_ask_again(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme")
    gate = quotas.gate(database)
    gate.authorize([ask("acme", "30")], now=now)
    [soon] = map(quotas.denied, gate.authorize([ask("acme", "30")], now=now))
    [late] = map(quotas.denied, gate.authorize([ask("acme", "51")], now=now))
    resets_at = gate.quota("acme", METER, now=now).resets_at
    assert (soon.resets_at, soon.retry_at) == (resets_at, now + timedelta(seconds=1))
    assert (late.resets_at, late.retry_at) == (resets_at, resets_at)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(Status.PAST_DUE, None), (Status.UNPAID, Reason.SUSPENDED), (None, Reason.NO_SUBSCRIPTION)],
)
def test_a_quota_says_why_nothing_more_is_allowed(
    database: Database, now: datetime, status: Status | None, reason: Reason | None
) -> None:
    ids = quotas.subscribed(database, now, "acme", plan="pro")
    with database.transaction() as tx:
        if status is None:
            subscriptions.cancel(tx, customer_id=ids["acme"], at_period_end=False, now=now)
        else:
            subscriptions.set_status(tx, customer_id=ids["acme"], status=status, now=now)
    gate = quotas.gate(database)
    assert gate.quota("acme", METER, now=now).reason == reason
    [decision] = gate.authorize([ask("acme", "1")], now=now)
    assert (decision.reason if isinstance(decision, Denied) else None) == reason


def test_a_soft_limit_allows_more_and_shows_the_overage(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme", plan="pro")
    gate = quotas.gate(database)
    quotas.used_up(gate, "acme", "512.5", now)
    found = gate.quota("acme", METER, now=now)
    assert figures(found.limit, found.included, found.remaining) == ["None", "500", "None"]
    assert (found.overage, found.reason) == (Decimal("12.5"), None)
