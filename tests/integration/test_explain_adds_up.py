"""An explanation is arithmetic: recomputed from what it shows alone, it is the line's amount."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.billing import explaining, owing
from convergio.billing.model import Invoice
from convergio.cli import explain as command
from convergio.infra.db import Database
from convergio.metering.model import Event
from convergio.rating.model import Charge
from convergio.rating.rules import Segment, rate, rate_segment
from tests.fakes import recomputing
from tests.fakes.business import Business, at
from tests.fakes.tempted import Tempted

CHARGES = {
    "flat": {"model": "flat", "amount": "9.99"},
    "unit": {"model": "unit", "unit": "0.0375", "per": "1000", "included": "7"},
    "bounded": {"model": "unit", "unit": "0.333", "minimum": "5.55", "maximum": "20.01"},
    "graduated": {
        "model": "graduated", "included": "3", "maximum": "17",
        "tiers": [{"up_to": "20", "flat": "1.11", "unit": "0.5"}, {"flat": "2", "unit": "0.005"}],
    },
    "volume": {
        "model": "volume", "minimum": "3",
        "tiers": [{"up_to": "20", "unit": "0.333"}, {"flat": "1", "unit": "0.1"}],
    },
    "package": {"model": "package", "package_size": "20", "package_price": "2.51", "included": "9"},
    "percentage": {"model": "percentage", "percent": "2.9", "fixed": "0.30", "minimum": "0.55"},
    "graduated_percentage": {
        "model": "graduated_percentage", "maximum": "9.99",
        "tiers": [{"up_to": "100", "percent": "3.5"}, {"flat": "0.5", "percent": "1.25"}],
    },
}  # fmt: skip
QUANTITIES = st.decimals(min_value=0, max_value=5_000, places=3)
SHARES = st.fractions(min_value=0, max_value=1, max_denominator=2_678_400).filter(bool)


def charge_of(model: str) -> Any:  # noqa: ANN401 - one of a union
    return msgspec.convert(CHARGES[model], Charge)


@pytest.mark.parametrize("model", CHARGES)
@given(quantity=QUANTITIES, share=SHARES)
def test_the_steps_of_every_model_come_to_what_is_owed(
    model: str, quantity: Decimal, share: Fraction
) -> None:
    for proration in (None, share):
        rated = rate(charge_of(model), quantity, currency="usd", proration=proration)
        steps = msgspec.json.decode(owing.steps_text(rated))
        assert recomputing.owed(steps, "usd") == rated.total


@pytest.mark.parametrize("model", [name for name in CHARGES if name != "flat"])
@given(before=QUANTITIES, more=QUANTITIES, rest=QUANTITIES, free=QUANTITIES, share=SHARES)
def test_the_steps_of_a_stretch_come_to_what_is_owed(  # noqa: PLR0917 - five numbers of one thing
    model: str, before: Decimal, more: Decimal, rest: Decimal, free: Decimal, share: Fraction
) -> None:
    segment = Segment(before, before + more, before + more + rest, free, share)
    rated = rate_segment(charge_of(model), segment, currency="usd")
    steps = msgspec.json.decode(owing.steps_text(rated))
    assert recomputing.owed(steps, "usd") == rated.total


def explained(
    shop: Business, invoice: Invoice, line: int, *, limit: int, after: UUID | None = None
) -> dict[str, Any]:
    with shop.database.transaction() as tx:
        found = explaining.explain(tx, invoice, line, after=after, limit=limit)
        return explaining.explanation_value(invoice, found)


@pytest.mark.parametrize("seed", [4, 10])
def test_every_line_of_a_drawn_world_is_explained_to_the_cent(
    database: Database, seed: int
) -> None:
    """Upgrades, coupons, credit, tax, add-ons, dimensions, late and negative lines, one-offs."""
    shop = Tempted(database, seed, taxed=seed % 2 == 0)
    shop.live()
    shown = []
    for invoice in shop.invoices():
        for number in range(1, len(shop.lines(invoice)) + 1):
            value = explained(shop, invoice, number, limit=3)
            recomputing.check(value)
            recomputing.check_text(command.text_of(value), value)
            shown.append(value)
    assert any(value["takes_back"] for value in shown)
    assert any(value["discounts"] for value in shown)
    assert any("share" in step for value in shown for step in value["steps"])
    assert any(value["owed"] is not None and value["amount"][0] != "-" for value in shown)


DIMENSIONS = b"""
currency: usd
events: [{type: ai.request}]
meters:
  - {key: tokens, name: Tokens, event: ai.request, value: tokens, group_by: [model]}
plans:
  - key: pro
    name: Pro
    prices:
      - key: pro_tokens
        name: Tokens
        meter: tokens
        charge: {model: unit, unit: 0.01}
        by: model
        charges: {large: {model: unit, unit: 0.50, included: 10}}
"""


def test_a_line_of_a_value_shows_its_own_charge_and_its_own_events_page_by_page(
    database: Database,
) -> None:
    shop = Business(database, at("2025-01-01"), DIMENSIONS)
    shop.subscribe(shop.customer("acme"), "pro", "2025-01-01")
    for number in range(25):
        when = at("2025-01-05") + timedelta(hours=number)
        data = {"tokens": "3", "model": "large" if number % 2 else "tiny"}
        event = Event(f"e-{number}", "test", "ai.request", "acme", time=when, data=data)
        shop.ingestor.ingest([event], now=when + timedelta(seconds=1))
    shop.bill("2025-02-02", now=at("2025-02-02"))
    [invoice] = shop.invoices()
    for number, (value, charge, events) in enumerate(
        [(None, "0.01", 13), ("large", "0.50", 12)], 1
    ):
        first = explained(shop, invoice, number, limit=5)
        assert (first["price"]["value"], first["price"]["charge"]["unit"]) == (value, charge)
        recomputing.check(first)
        seen, page = list(first["events"]), first
        while len(page["events"]) == 5:
            page = explained(shop, invoice, number, limit=5, after=command.key_of(page["next"]))
            seen += page["events"]
        assert len({one["id"] for one in seen}) == len(seen) == events
        assert recomputing.quantity(seen) == Decimal(first["quantity"])
