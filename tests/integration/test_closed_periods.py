"""Closed periods are not computed again, unless their usage changed; a full recompute agrees."""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting
from convergio.billing.model import CreditKind
from convergio.infra.db import Database
from convergio.subscriptions import actions as subscriptions
from tests.fakes.business import SELLER, Business, at


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


@pytest.fixture
def acme(shop: Business) -> UUID:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-10-01")
    shop.use("acme", 510, "2024-10-05")
    shop.use("acme", 520, "2024-11-05")
    shop.bill("2024-12-02")
    return acme


def closed(shop: Business) -> Any:  # noqa: ANN401 - a column
    with shop.database.transaction() as tx:
        return tx.value("SELECT max(closed_until) FROM subscription")


def seen(shop: Business, until: str) -> int:
    """Return how many periods a run up to an instant would look at."""
    with shop.database.transaction() as tx:
        everyone = subscriptions.customers_in(tx, first=UUID(int=0), until=None)
        (view,) = subscriptions.for_customers(tx, everyone, until=at(until), now=at(until))
    return sum(len(p) for one in view.agreements for p in one.periods.values())


def test_a_run_closes_what_it_billed_and_looks_at_the_rest(shop: Business, acme: UUID) -> None:
    assert closed(shop) == at("2024-12-01")
    assert seen(shop, "2024-12-02") == 1
    shop.bill("2025-01-02")
    assert closed(shop) == at("2025-01-01")
    assert shop.verify() == []


def test_late_usage_opens_its_period_again(shop: Business, acme: UUID) -> None:
    shop.use("acme", 7, "2024-10-06")
    assert seen(shop, "2024-12-02") == 3
    assert shop.bill("2024-12-03").invoices == 0
    assert seen(shop, "2024-12-03") == 3, "it waits for the next boundary"
    shop.bill("2025-01-02")
    *_, last = shop.invoices()
    assert shop.lines(last) == [
        ("fixed", "fee", 699),
        ("usage", "late usage for 2024-10-01 to 2024-10-31", 7),
    ]
    assert seen(shop, "2025-01-02") == 1
    assert shop.verify() == []


def test_usage_within_the_allowance_of_another_month_is_no_reason_to_bill(
    shop: Business, acme: UUID
) -> None:
    shop.use("acme", 0, "2024-10-06")
    assert seen(shop, "2024-12-02") == 1


def test_a_correction_opens_everything_again(shop: Business, acme: UUID) -> None:
    with shop.database.transaction() as tx:
        correcting.credit(
            tx,
            billing.Issuer(SELLER, shop.keyring, shop.now, shop.now),
            invoice=shop.invoices()[0],
            reason="wrong",
            kind=CreditKind.CORRECTION,
        )
    assert closed(shop) is None
    shop.bill("2025-01-02")
    *_, last = shop.invoices()
    assert ("fixed", "late fee for 2024-10-01 to 2024-10-31", 699) in shop.lines(last)
    assert closed(shop) == at("2025-01-01")
    assert shop.verify() == []


def test_a_change_opens_everything_again(shop: Business, acme: UUID) -> None:
    shop.cancel(acme, "2024-12-15", at_period_end=True)
    assert closed(shop) is None
    shop.bill("2025-02-02")
    assert closed(shop) == at("2025-01-01")
    assert shop.bill("2025-02-02").invoices == 0
    assert shop.verify() == []


def test_a_mark_that_lies_is_found_by_the_full_recompute(shop: Business, acme: UUID) -> None:
    with shop.database.transaction() as tx:
        tx.raw.execute("DELETE FROM invoice_line WHERE kind = 'usage'")
    assert shop.bill("2024-12-03").invoices == 0
    assert any(one.where.startswith("closed period of") for one in shop.verify())


def test_who_leaves_within_the_grace_is_asked_for_the_last_usage(shop: Business) -> None:
    leaver = shop.customer("leaver")
    shop.subscribe(leaver, "pro", "2024-12-01")
    shop.bill("2024-12-02")
    shop.use("leaver", 600, "2024-12-05")
    shop.cancel(leaver, "2024-12-20T12:00:00Z", at_period_end=False)
    assert shop.bill("2024-12-20T12:30:00Z").invoices == 0, "the grace is not over"
    assert shop.bill("2024-12-20T13:30:00Z").totals == {"usd": 100}
    assert shop.verify() == []
