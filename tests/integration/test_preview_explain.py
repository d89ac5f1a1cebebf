"""A preview is what the run then does, and an explanation ends at the very events."""

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest

from convergio.billing import explaining
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Invalid, NotFound
from convergio.kernel.money import Money
from convergio.payments import receiving
from convergio.payments.model import ReceiptMethod
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import adding, changes
from convergio.subscriptions.model import Subscription, When
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


def pay(shop: Business, customer_id: UUID, minor: int) -> None:
    with shop.database.transaction() as tx:
        receiving.record(
            tx, customer_id=customer_id, amount=Money(minor, "usd"),
            method=ReceiptMethod.BANK_TRANSFER, reference="T1", received_on=date(2025, 1, 10),
            now=shop.now,
        )  # fmt: skip


def due_of(shop: Business, *, since: int) -> list[int]:
    return [one.due.minor for one in shop.invoices()[since:]]


def test_a_preview_draws_what_its_own_credit_notes_leave_on_the_balance(
    shop: Business, acme: UUID
) -> None:
    pay(shop, acme, 699)

    def away(tx: Tx) -> Subscription:
        return changes.change(tx, customer_id=acme, plan_key="free", when=When.NOW, now=shop.now)

    with shop.database.transaction() as tx:
        found = explaining.consequence(tx, customer_id=acme, now=shop.now, act=away)
        away(tx)
    assert found.now.notes
    shop.bill("2025-01-15T12:00:00Z", grace=timedelta(0))
    shop.bill("2025-02-16")
    later = () if found.next is None else found.next.to_pay
    promised = [money.minor for money in (*found.now.to_pay, *later)]
    assert promised == due_of(shop, since=1)


def test_what_a_change_bills_at_once_takes_its_part_of_the_balance_first(
    shop: Business, acme: UUID
) -> None:
    pay(shop, acme, 699 + 600)

    def charge(tx: Tx) -> Subscription:
        adding.charge_once(
            tx, customer_id=acme, description="Training", amount=Money(500, "usd"), when=When.NOW,
            now=shop.now,
        )  # fmt: skip
        return subscriptions.live(tx, acme)

    with shop.database.transaction() as tx:
        found = explaining.consequence(tx, customer_id=acme, now=shop.now, act=charge)
        charge(tx)
    assert found.next is not None
    promised = [money.minor for money in (*found.now.to_pay, *found.next.to_pay)]
    shop.bill("2025-01-15T12:00:00Z", grace=timedelta(0))
    shop.bill("2025-02-02")
    assert promised == due_of(shop, since=1) == [0, 799 - 100]


def test_a_preview_does_not_reach_beyond_three_years(shop: Business, acme: UUID) -> None:
    far = shop.now + timedelta(days=1_101)
    with shop.database.transaction() as tx, pytest.raises(Invalid, match="within 1100") as caught:
        explaining.preview(tx, customer_id=acme, now=shop.now, at=far)
    assert (caught.value.code, caught.value.field) == ("too_costly", "at")


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
