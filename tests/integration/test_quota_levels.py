"""Quotas of what is not added up: a maximum and a last value are decided by what would follow."""

from datetime import timedelta
from decimal import Decimal

import pytest

from convergio.catalog import actions as catalog
from convergio.entitlements import spending
from convergio.entitlements.model import Allowed, Ask, Refused
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.metering.model import Event
from tests.fakes import quotas
from tests.fakes.meters import NOW
from tests.fakes.quota import Desk

CATALOG = b"""
currency: usd
events: [{type: disk.sized}]
meters:
  - {key: peak, name: Peak, event: disk.sized, aggregation: max, value: size}
  - {key: level, name: Level, event: disk.sized, aggregation: last, value: size}
  - {key: users, name: Users, event: disk.sized, aggregation: unique_count, value: user,
     where: {user: {exists: true}}}
plans:
  - key: disk
    name: Disk
    prices:
      - {key: disk_peak, name: Peak, meter: peak, quota: {limit: 10, hard: true},
         charge: {model: unit, unit: 0.50, included: 4}}
      - {key: disk_level, name: Level, meter: level, quota: {limit: 10, hard: true},
         charge: {model: unit, unit: 0.50, included: 4}}
      - {key: disk_users, name: Users, meter: users, quota: {limit: 2},
         charge: {model: unit, unit: 1}}
"""
LATER = NOW + timedelta(seconds=1)


@pytest.fixture
def desk(database: Database) -> Desk:
    made = Desk(database, source=CATALOG)
    made.subscribe("disk", "acme")
    return made


def track(desk: Desk, size: str, seconds: int = 0) -> None:
    at = NOW + timedelta(seconds=seconds)
    event = Event(f"e-{seconds}", "test", "disk.sized", "acme", time=at, data={"size": size})
    [verdict] = desk.ingestor.ingest([event], now=at + timedelta(seconds=1))
    assert verdict.status == "accepted"


def reasons(desk: Desk, meter: str, *quantities: str) -> list[str]:
    asks = [Ask("acme", meter, Decimal(quantity)) for quantity in quantities]
    found = desk.gate.authorize(asks, now=LATER)
    return [getattr(one, "reason", "allowed") for one in found]


@pytest.mark.parametrize("meter", ["peak", "level"])
def test_asks_of_a_level_do_not_add_up(desk: Desk, meter: str) -> None:
    assert reasons(desk, meter, "9", "9", "10", "11", "1") == [
        "allowed", "allowed", "allowed", "limit_reached", "allowed",
    ]  # fmt: skip
    assert desk.verify() == []


def test_once_a_maximum_is_over_its_limit_nothing_brings_it_back(desk: Desk) -> None:
    track(desk, "12")
    assert reasons(desk, "peak", "1") == ["limit_reached"]
    state = desk.gate.quota("acme", "peak", now=LATER)
    assert (state.remaining, state.reason) == (Decimal(0), "limit_reached")


def test_a_last_value_over_its_limit_is_brought_back_by_a_lower_one(desk: Desk) -> None:
    track(desk, "12")
    assert reasons(desk, "level", "11", "10") == ["limit_reached", "allowed"]
    state = desk.gate.quota("acme", "level", now=LATER)
    assert (state.used, state.remaining, state.reason) == (Decimal(12), Decimal(10), None)


@pytest.mark.parametrize("meter", ["peak", "level"])
def test_remaining_is_the_highest_level_that_would_be_allowed(desk: Desk, meter: str) -> None:
    track(desk, "7")
    state = desk.gate.quota("acme", meter, now=LATER)
    assert (state.used, state.reserved, state.remaining) == (Decimal(7), Decimal(0), Decimal(10))
    assert reasons(desk, meter, "10", "10.1") == ["allowed", "limit_reached"]


@pytest.mark.parametrize(("meter", "level"), [("peak", "9"), ("level", "3")])
def test_what_is_committed_is_the_new_level_and_nothing_stays_held(
    desk: Desk, meter: str, level: str
) -> None:
    for seconds, quantity in enumerate(("9", "3"), 1):
        now = NOW + timedelta(seconds=seconds)
        [found] = desk.gate.authorize([Ask("acme", meter, Decimal(quantity))], now=now)
        desk.gate.commit("acme", quotas.allowed(found).reservation_id, actual=None, now=now)
    [other] = desk.gate.authorize([Ask("acme", meter, Decimal(4))], now=LATER)
    desk.gate.release("acme", quotas.allowed(other).reservation_id, now=LATER)
    state = desk.gate.quota("acme", meter, now=LATER + timedelta(seconds=2))
    assert (state.used, state.reserved) == (Decimal(level), Decimal(0))
    assert desk.verify() == []


def test_a_reservation_of_a_level_that_is_over_gives_nothing_back(desk: Desk) -> None:
    assert reasons(desk, "peak", "9") == ["allowed"]
    assert desk.sweep(LATER + timedelta(hours=1)) == 1
    assert desk.gate.quota("acme", "peak", now=LATER).reserved == 0
    assert desk.verify() == []


def test_a_spend_cap_counts_the_level_that_would_follow(desk: Desk) -> None:
    track(desk, "6")  # 2 beyond the included 4, of the peak and of the level: 2.00
    with desk.database.transaction() as tx:
        spending.set_cap(tx, "acme", "3.00", now=NOW)
    assert reasons(desk, "peak", "8", "9", "8") == ["allowed", "spend_cap", "allowed"]
    assert reasons(desk, "level", "7", "6", "2") == ["spend_cap", "allowed", "allowed"]


@pytest.mark.parametrize(("first", "second"), [("peak", "level"), ("level", "peak")])
def test_two_levels_do_not_get_the_same_rest_of_a_cap(desk: Desk, first: str, second: str) -> None:
    with desk.database.transaction() as tx:
        spending.set_cap(tx, "acme", "3.00", now=NOW)
    [found] = desk.gate.authorize([Ask("acme", first, Decimal(10))], now=LATER)  # all of it
    assert reasons(desk, second, "4.1", "4") == ["spend_cap", "allowed"]
    assert desk.gate.quota("acme", first, now=LATER).spend == Money(300, "usd")
    desk.gate.release("acme", quotas.allowed(found).reservation_id, now=LATER)
    assert reasons(desk, second, "10") == ["allowed"]
    later = LATER + timedelta(hours=1)  # nothing is settled, and all of it is over
    assert isinstance(desk.gate.authorize([Ask("acme", first, Decimal(10))], now=later)[0], Allowed)
    assert desk.verify() == []


def test_a_lower_last_value_leaves_the_cap_to_the_higher_one_that_is_asked(desk: Desk) -> None:
    with desk.database.transaction() as tx:
        spending.set_cap(tx, "acme", "3.00", now=NOW)
    asks = [("level", 10), ("level", 2), ("peak", 5)]
    found = desk.gate.authorize([Ask("acme", m, Decimal(q)) for m, q in asks], now=LATER)
    assert [getattr(one, "reason", "allowed") for one in found] == [
        "allowed", "allowed", "spend_cap",
    ]  # fmt: skip


def test_a_last_value_of_zero_is_committed_as_one(desk: Desk) -> None:
    track(desk, "7")
    now = NOW + timedelta(seconds=5)
    [found] = desk.gate.authorize([Ask("acme", "level", Decimal(3))], now=now)
    for _ in range(2):
        made = desk.gate.commit(
            "acme", quotas.allowed(found).reservation_id, actual=Decimal(0), now=now
        )
        assert (made.state, made.settled) == ("committed", Decimal(0))
    assert desk.gate.quota("acme", "level", now=now + timedelta(seconds=1)).used == 0
    assert desk.verify() == []


@pytest.mark.parametrize("meter", ["peak", "level", "users"])
def test_no_node_is_lent_a_slice_of_what_does_not_add_up(desk: Desk, meter: str) -> None:
    with pytest.raises(Invalid) as caught:
        desk.gate.leases.acquire("acme", meter, Decimal(1), now=LATER)
    assert caught.value.code == "not_leasable"
    assert desk.verify() == []


def test_nothing_can_be_held_of_a_meter_that_counts_distinct_values(desk: Desk) -> None:
    [found] = desk.gate.authorize([Ask("acme", "users", Decimal(1))], now=LATER)
    assert isinstance(found, Refused)
    assert found.error.code == "not_reservable"


def test_a_hard_limit_of_distinct_values_is_refused_with_the_catalog(database: Database) -> None:
    hard = CATALOG.replace(b"quota: {limit: 2}", b"quota: {limit: 2, hard: true}")
    with database.transaction() as tx, pytest.raises(Invalid) as caught:
        catalog.apply(tx, hard, now=NOW)
    assert caught.value.code == "unenforceable_quota"
    assert caught.value.field == "plans[0].prices[2].quota.hard"
