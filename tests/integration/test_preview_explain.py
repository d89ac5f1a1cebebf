"""A preview is what the run then does, and an explanation ends at the very events."""

from datetime import datetime
from uuid import UUID

import pytest

from convergio.billing import explaining
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid, NotFound
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from tests.fakes.business import Business, at


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


@pytest.fixture
def acme(shop: Business) -> UUID:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2025-01-01")
    for _ in range(6):
        shop.use("acme", 100, "2025-01-05")
    shop.bill("2025-01-02")
    return acme


def look(
    shop: Business, customer_id: UUID, wish: explaining.Wish | None = None
) -> explaining.Preview:
    with shop.database.transaction() as tx:
        return explaining.preview(tx, customer_id=customer_id, now=shop.now, wish=wish)


def counts(shop: Business) -> tuple[int, ...]:
    with shop.database.transaction() as tx:
        (row,) = tx.tuples(
            "SELECT (SELECT count(*) FROM invoice), (SELECT count(*) FROM subscription_item),"
            " (SELECT count(*) FROM subscription_period), (SELECT count(*) FROM outbox_event),"
            " (SELECT count(*) FROM ledger_transfer), (SELECT count(*) FROM subscription_change)"
        )
    return tuple(row)


def test_the_next_invoice_is_seen_before_it_is_issued(shop: Business, acme: UUID) -> None:
    before = counts(shop)
    found = look(shop, acme)
    assert counts(shop) == before
    assert found.at == at("2025-02-01")
    shop.bill("2025-02-02")
    *_, issued = shop.invoices()
    assert [(x.key.kind, x.reason, x.amount.minor) for x in found.drafts[0].lines] == shop.lines(
        issued
    )
    assert [money.minor for money in found.to_pay] == [issued.total] == [799]


def test_a_change_is_seen_before_it_is_made(shop: Business, acme: UUID) -> None:
    before = counts(shop)
    found = look(shop, acme, explaining.Wish(plan_key="team", seats=3))
    assert counts(shop) == before
    with shop.database.transaction() as tx:
        changes.change(tx, customer_id=acme, plan_key="team", seats=3, now=shop.now)
    shop.bill("2025-01-15T13:00:00Z")
    *_, issued = shop.invoices()
    assert [x.amount.minor for x in found.drafts[0].lines] == [
        amount for *_, amount in shop.lines(issued)
    ]
    assert issued.total == 1916 - 372  # 16.5 of 31 days of 36.00 and of 6.99, rounded each


def test_a_downgrade_is_seen_as_a_credit_note(shop: Business, acme: UUID) -> None:
    found = look(shop, acme, explaining.Wish(plan_key="free", when=When.NOW))
    value = explaining.preview_value(found)
    assert [note["total"] for note in value["credit_notes"]] == ["3.72"]
    assert value["invoices"] == []


def test_a_wish_that_cannot_be_granted_is_refused(shop: Business, acme: UUID) -> None:
    with pytest.raises(NotFound):
        look(shop, acme, explaining.Wish(plan_key="gold"))
    with pytest.raises(Invalid):
        look(shop, acme, explaining.Wish(plan_key="pro"))


def test_a_line_leads_to_its_price_its_steps_and_its_events(shop: Business, acme: UUID) -> None:
    shop.bill("2025-02-02")
    *_, invoice = shop.invoices()
    with shop.database.transaction() as tx:
        first = explaining.explain(tx, invoice, 2, limit=4)
        rest = explaining.explain(tx, invoice, 2, after=first.events[-1].event_key, limit=4)
        fee = explaining.explain(tx, invoice, 1)
        with pytest.raises(NotFound):
            explaining.explain(tx, invoice, 3)
    assert (first.price.key, first.price.version, first.meter_key) == (
        "pro_questions",
        1,
        "questions",
    )
    assert [step["amount"] for step in first.steps] == ["0.00", "1.00"]
    events = [*first.events, *rest.events]
    assert len({event.event_key for event in events}) == 6
    assert sum(event.quantity for event in events) == first.line.quantity == 600
    assert (fee.price.key, fee.events) == ("pro_fee", ())
    value = explaining.explanation_value(invoice, first)
    assert value["period"] == {"start": "2025-01-01T00:00:00Z", "end": "2025-02-01T00:00:00Z"}
