"""A spend cap is a quota in money: what overage comes to in the current windows, of all meters."""

from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest

from convergio.catalog import actions as catalog
from convergio.entitlements import spending
from convergio.entitlements.actions import Gate
from convergio.entitlements.model import Allowed, Ask, Reason
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.metering.ingest import Ingestor
from tests.fakes import quotas
from tests.fakes.quotas import METER

TWO_METERS = b"""
currency: usd
events:
  - type: ai.request
meters:
  - {key: questions, name: Questions, event: ai.request, value: quantity}
  - {key: images, name: Images, event: ai.image, value: quantity}
plans:
  - key: payg
    name: Pay as you go
    prices:
      - {key: q, name: Questions, meter: questions, charge: {model: unit, unit: 0.01, minimum: 5}}
      - {key: i, name: Images, meter: images, charge: {model: unit, unit: 0.10, included: 10}}
""".replace(b"  - type: ai.request\n", b"  - type: ai.request\n  - type: ai.image\n")


def set_cap(database: Database, key: str, amount: str | None, now: datetime) -> None:
    with database.transaction() as tx:
        spending.set_cap(tx, key, amount, now=now)


def ask(gate: Gate, quantity: str, now: datetime, meter: str = METER) -> Reason | None:
    [found] = gate.authorize([Ask("acme", meter, Decimal(quantity))], now=now)
    return None if isinstance(found, Allowed) else quotas.denied(found).reason


def test_overage_stops_at_the_cap_and_what_is_included_costs_nothing(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme", plan="pro")  # 500 included, then a cent each
    set_cap(database, "acme", "2.50", now)
    gate = quotas.gate(database)
    assert ask(gate, "500", now) is None
    assert ask(gate, "251", now) == Reason.SPEND_CAP
    assert ask(gate, "250", now) is None
    found = gate.quota("acme", METER, now=now)
    assert (found.spend_cap, found.spend) == (Money(250, "usd"), Money(250, "usd"))
    assert found.reason == Reason.SPEND_CAP
    assert found.remaining is None
    set_cap(database, "acme", "2.51", now)
    assert ask(gate, "1", now) is None
    set_cap(database, "acme", None, now)
    assert ask(gate, "100000", now) is None
    assert gate.quota("acme", METER, now=now).spend_cap is None
    quotas.assert_sound(database)


def test_released_and_stale_reservations_spend_nothing(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme", plan="pro")
    set_cap(database, "acme", "1.00", now)
    gate = quotas.gate(database)
    [decision] = gate.authorize([Ask("acme", METER, Decimal(600))], now=now)
    assert ask(gate, "1", now) == Reason.SPEND_CAP
    gate.release("acme", quotas.allowed(decision).reservation_id, now=now)
    assert ask(gate, "600", now) is None
    later = now + timedelta(seconds=quotas.HOLD_SECONDS)
    assert ask(gate, "600", later) is None


def test_what_was_tracked_counts_though_it_is_over_the_cap(
    database: Database, now: datetime
) -> None:
    quotas.subscribed(database, now, "acme", plan="pro")
    set_cap(database, "acme", "0.00", now)
    gate = quotas.gate(database)
    quotas.used_up(gate, "acme", "500", now)
    assert ask(gate, "1", now) == Reason.SPEND_CAP
    found = Ingestor(database).ingest([quotas.event("acme", "e-1", "50", now)], now=now)
    assert [verdict.status for verdict in found] == ["accepted"]
    assert gate.quota("acme", METER, now=now).spend == Money(50, "usd")


def test_one_cap_holds_over_all_meters_and_a_minimum_is_not_overage(
    database: Database, now: datetime
) -> None:
    with database.transaction() as tx:
        catalog.apply(tx, TWO_METERS, now=now)
    quotas.subscribed(database, now, "acme", plan="payg")
    set_cap(database, "acme", "1.00", now)
    gate = quotas.gate(database)
    assert ask(gate, "500", now) is None  # within the minimum of $5, which is owed anyway
    assert ask(gate, "60", now) is None
    assert ask(gate, "15", now, meter="images") == Reason.SPEND_CAP
    assert ask(gate, "14", now, meter="images") is None
    assert ask(gate, "1", now) == Reason.SPEND_CAP
    assert gate.quota("acme", METER, now=now).spend == Money(100, "usd")


def test_the_cap_is_exact_for_many_at_once_on_two_meters(database: Database, now: datetime) -> None:
    with database.transaction() as tx:
        catalog.apply(tx, TWO_METERS, now=now)
    quotas.subscribed(database, now, "acme", plan="payg")
    set_cap(database, "acme", "1.00", now)
    gates = [quotas.gate(database) for _ in range(4)]
    quotas.used_up(gates[0], "acme", "500", now)

    def burst(place: int) -> int:
        meter, quantity = (METER, Decimal(10)) if place % 2 else ("images", Decimal(11))
        asks = [Ask("acme", meter, quantity if meter == METER else Decimal(1))] * 12
        return sum(isinstance(one, Allowed) for one in gates[place].authorize(asks, now=now))

    quotas.at_once([partial(burst, place) for place in range(4)])
    found = gates[0].quota("acme", METER, now=now)
    assert found.spend is not None
    assert found.spend.minor in range(91, 101)
    assert found.spend_cap == Money(100, "usd")
    quotas.assert_sound(database)


def test_a_lease_is_no_larger_than_the_cap_allows(database: Database, now: datetime) -> None:
    quotas.subscribed(database, now, "acme", plan="pro")
    set_cap(database, "acme", "0.30", now)
    gate = quotas.gate(database)
    quotas.used_up(gate, "acme", "500", now)
    lease = quotas.leased(gate.leases.acquire("acme", METER, Decimal(100), now=now))
    assert lease.granted == 25
    more = gate.leases.renew(
        "acme", lease.lease_id, used=Decimal(20), sequence=1, wanted=Decimal(100), now=now
    )
    assert more.lease.granted == 30  # the cap is at 530, and halving 95 comes to 5
    quotas.assert_sound(database)


@pytest.mark.parametrize("amount", ["-1", "1.005", "free", "1e3", "99999999999999999"])
def test_a_cap_is_an_amount_of_the_customers_currency(
    database: Database, now: datetime, amount: str
) -> None:
    quotas.subscribed(database, now, "acme")
    with pytest.raises(Invalid):
        set_cap(database, "acme", amount, now)
