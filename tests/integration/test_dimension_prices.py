"""A price by dimension: each value has a charge of its own, nothing is counted twice or lost."""

from datetime import datetime, timedelta

import pytest

from convergio.billing import actions as billing
from convergio.billing import explaining
from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.metering.model import Event
from convergio.rating.model import Unit
from convergio.subscriptions import changes, negotiating
from convergio.subscriptions.model import When
from tests.fakes.business import Business, at

CATALOG = b"""
currency: usd
events:
  - type: ai.request
meters:
  - {key: tokens, name: Tokens, event: ai.request, value: tokens, group_by: [region, model]}
plans:
  - key: pro
    name: Pro
    prices:
      - key: pro_tokens
        name: Tokens
        meter: tokens
        charge: {model: unit, unit: 0.01}
        by: model
        charges:
          large: {model: unit, unit: 0.05, included: 10}
          small: {model: graduated, tiers: [{up_to: 100, unit: 0.002}, {unit: 0.001}]}
  - key: plain
    name: Plain
    prices:
      - {key: plain_tokens, name: Tokens, meter: tokens, charge: {model: unit, unit: 0.02}}
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    made = Business(database, now, CATALOG)
    made.subscribe(made.customer("acme"), "pro", "2024-11-01")
    return made


def use(shop: Business, model: str | None, tokens: int, when: str, number: int = 0) -> None:
    data = {"tokens": tokens, "region": "eu"} | ({} if model is None else {"model": model})
    event = Event(
        id=f"{model}-{when}-{number}", source="test", type="ai.request", subject="acme",
        time=at(when), data=data,
    )  # fmt: skip
    verdicts = shop.ingestor.ingest([event], now=at(when) + timedelta(seconds=1), importing=True)
    assert [one.status for one in verdicts] == ["accepted"]


def lines(shop: Business) -> list[tuple[str, int]]:
    with shop.database.transaction() as tx:
        views = [billing.read(tx, shop.keyring, one) for one in shop.invoices()]
    return sorted((line.description, line.amount) for view in views for line in view.lines)


def test_each_value_is_rated_by_its_own_charge_and_the_rest_together(shop: Business) -> None:
    for model, tokens in (("large", 30), ("small", 150), ("medium", 40), ("tiny", 2), (None, 8)):
        use(shop, model, tokens, "2024-11-05")
    shop.bill("2024-12-02")
    assert lines(shop) == [("Tokens", 50), ("Tokens (large)", 100), ("Tokens (small)", 25)]
    assert shop.verify() == []
    shop.bill("2024-12-03")
    assert len(shop.invoices()) == 1


def test_late_usage_of_a_value_is_a_line_of_that_value(shop: Business) -> None:
    use(shop, "large", 30, "2024-11-05")
    shop.bill("2024-12-02")
    use(shop, "large", 10, "2024-11-06")
    use(shop, "large", 20, "2024-12-06")
    shop.bill("2025-01-02")
    assert [amount for _, amount in lines(shop)] == [50, 100, 50]
    assert any("late usage" in name and "(large)" in name for name, _ in lines(shop))
    assert shop.verify() == []


def test_a_change_of_plan_leaves_each_stretch_its_own_prices(shop: Business) -> None:
    use(shop, "large", 30, "2024-11-05")
    with shop.database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        changes.change(tx, customer_id=acme, plan_key="plain", when=When.NOW, now=at("2024-11-16"))
    use(shop, "large", 30, "2024-11-20")
    shop.bill("2024-12-02")
    # 10 included for 15 of 30 days: 5; then 25 x 0.05, and 30 x 0.02
    assert lines(shop) == [("Tokens", 60), ("Tokens (large)", 125)]
    assert shop.verify() == []


def test_an_agreed_price_keeps_the_charges_of_values_that_it_does_not_name(
    shop: Business,
) -> None:
    cheap = negotiating.Terms(Unit(unit="0.005"), None, {"large": Unit(unit="0.04")})
    with shop.database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        step = negotiating.Step(None, {"pro_tokens": cheap})
        negotiating.agree(tx, customer_id=acme, steps_=[step], now=at("2024-11-01"))
    for model, tokens in (("large", 30), ("small", 50), ("medium", 40)):
        use(shop, model, tokens, "2024-11-05")
    shop.bill("2024-12-02")
    assert lines(shop) == [("Tokens", 20), ("Tokens (large)", 120), ("Tokens (small)", 10)]


def test_explain_leads_from_a_value_to_its_own_events(shop: Business) -> None:
    use(shop, "large", 30, "2024-11-05")
    use(shop, "medium", 40, "2024-11-05")
    shop.bill("2024-12-02")
    (invoice,) = shop.invoices()
    with shop.database.transaction() as tx:
        found = [explaining.explain(tx, invoice, number) for number in (1, 2)]
    told = {one.line.description: [e.event_id for e in one.events] for one in found}
    assert told == {
        "Tokens (large)": ["large-2024-11-05-0"],
        "Tokens": ["medium-2024-11-05-0"],
    }


def test_an_order_of_events_does_not_matter(shop: Business) -> None:
    for number, (model, tokens) in enumerate([("small", 60), ("large", 5), ("small", 90)]):
        use(shop, model, tokens, f"2024-11-{20 - number:02d}", number)
    shop.bill("2024-12-02")
    assert lines(shop) == [("Tokens (small)", 25)]


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        (b"by: model", b"by: colour", ("unknown_dimension", "by")),
        (b"        by: model\n", b"", ("missing_dimension", "by")),
        (b"large: {model: unit, unit: 0.05, included: 10}", b"large: {model: flat, amount: 1}",
         ("mixed_models", "charges.large.model")),
        (b"value: tokens", b"aggregation: max, value: tokens", ("unpriced_dimension", "by")),
    ],
)  # fmt: skip
def test_a_dimension_that_cannot_be_priced_is_refused(
    database: Database, old: bytes, new: bytes, refused: tuple[str, str]
) -> None:
    now = at("2024-11-01")
    with database.transaction() as tx, pytest.raises(Invalid) as caught:
        catalog.apply(tx, CATALOG.replace(old, new), now=now)
    code, field = refused
    assert (caught.value.code, caught.value.field) == (code, f"plans[0].prices[0].{field}")
