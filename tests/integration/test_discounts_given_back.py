"""What a correction takes back brings its discount back; what is given away keeps it (RULES 1, 2).

A coupon of a fixed amount is worth that amount a period, whatever changes within the period.
"""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, issuing
from convergio.billing.model import CreditKind, CreditNote, Voiding
from convergio.discounts import actions as discounts
from convergio.discounts.model import Duration
from convergio.infra import migrate
from convergio.infra.db import Database
from convergio.kernel.money import Money
from convergio.subscriptions import changes
from convergio.subscriptions.model import When
from tests.fakes.business import SELLER, Business, at
from tests.integration.test_coupons import CATALOG, lines, offered, redeemed, subscribed, views
from tests.integration.test_money_grants import drawn, granted

REVISION = Path(migrate.__file__).with_name("migrations") / "versions" / "r0013_mends.sql"
BEFORE = """
DELETE FROM {0} WHERE amount < 0;
UPDATE {0} SET returned_at = NULL;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE {0} DROP COLUMN returned, DROP COLUMN origin_invoice_id, DROP COLUMN origin_line,
    DROP CONSTRAINT IF EXISTS {0}_check, ADD CONSTRAINT {0}_amount_check CHECK (amount > 0)
"""
SEATS = b"""
  - key: crew
    name: Crew
    prices: [{key: crew-seats, name: Crew, charge: {model: seat, unit: "31.00"}}]
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now, CATALOG + SEATS)


def five(shop: Business, customer_id: UUID, **terms: Any) -> None:  # noqa: ANN401 - any term
    offered(
        shop, "FIVE", percent=None, amount=500, currency="usd", duration=Duration.FOREVER, **terms
    )
    redeemed(shop, customer_id, "FIVE")


def change(
    shop: Business,
    customer_id: UUID,
    when: str,
    *,
    plan_key: str | None = None,
    seats: int | None = None,
) -> None:
    with shop.database.transaction() as tx:
        changes.change(
            tx, customer_id=customer_id, plan_key=plan_key, seats=seats, when=When.NOW, now=at(when)
        )
    shop.bill(f"{when}T02:00:00Z")


def corrected(shop: Business, number: str, kind: CreditKind, amount: str | None) -> CreditNote:
    by = issuing.Issuer(SELLER, shop.keyring, shop.now, shop.now)
    with shop.database.transaction() as tx:
        return correcting.credit(
            tx, by, invoice=billing.find_numbered(tx, number), reason="asked", kind=kind,
            amount=None if amount is None else Money.parse(amount, "usd"),
        )  # fmt: skip


def voided(shop: Business, number: str, how: Voiding) -> None:
    by = issuing.Issuer(SELLER, shop.keyring, shop.now, shop.now)
    with shop.database.transaction() as tx:
        correcting.void(tx, by, invoice=billing.find_numbered(tx, number), how=how)


def coupon_draws(shop: Business) -> int:
    """Return what coupons took off lines, less what came back."""
    with shop.database.transaction() as tx:
        return int(tx.value("SELECT sum(amount - returned) FROM coupon_draw") or 0)


def discounted(shop: Business, customer_id: UUID) -> int:
    """Return the discounts of all lines, those that are taken back negative."""
    return sum(line.discount for view in views(shop, customer_id) for line in view.lines)


def test_an_upgrade_keeps_a_coupon_of_an_amount_whole(shop: Business) -> None:
    customer_id = subscribed(shop)
    five(shop, customer_id)
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key="team")
    _, second = views(shop, customer_id)
    assert lines(second) == [("fixed", -516, -258), ("fixed", 5_161, 258)]
    assert discounted(shop, customer_id) == coupon_draws(shop) == 500
    shop.bill("2025-02-02")
    assert views(shop, customer_id)[2].invoice.discount == 500
    assert shop.verify() == []


def test_a_downgrade_and_seats_keep_it_too(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    five(shop, customer_id)
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-11", plan_key="crew", seats=2)
    change(shop, customer_id, "2025-01-16", seats=5)
    change(shop, customer_id, "2025-01-21", seats=1)
    assert coupon_draws(shop) == 500
    assert shop.verify() == []


def test_many_changes_in_a_period_give_the_amount_once(shop: Business) -> None:
    customer_id = subscribed(shop)
    five(shop, customer_id)
    offered(shop, "TENTH")
    redeemed(shop, customer_id, "TENTH")
    shop.bill("2025-01-02")
    for day, plan in (("05", "team"), ("09", "pro"), ("17", "team"), ("30", "pro")):
        change(shop, customer_id, f"2025-01-{day}", plan_key=plan)
    with shop.database.transaction() as tx:
        by_code = dict(
            tx.tuples(
                "SELECT c.code, sum(d.amount - d.returned) FROM coupon_draw AS d"
                " JOIN coupon_redemption USING (customer_id, redemption_id)"
                " JOIN coupon AS c USING (coupon_id) GROUP BY c.code"
            )
        )
    assert by_code["FIVE"] == 500
    assert shop.verify() == []


@pytest.mark.parametrize("to", ["team", "crew"])
def test_a_percentage_is_taken_of_what_is_paid_in_the_end(shop: Business, to: str) -> None:
    customer_id = subscribed(shop)
    offered(shop, percent=Decimal(20))
    redeemed(shop, customer_id)
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key=to)
    every = [line for view in views(shop, customer_id) for line in view.lines]
    gross = sum(line.amount for line in every)
    assert abs(sum(line.discount for line in every) * 5 - gross) <= 5
    assert shop.verify() == []


def test_a_coupon_that_does_not_count_for_the_new_plan_stays_behind(shop: Business) -> None:
    customer_id = subscribed(shop)
    five(shop, customer_id, prices=("pro-fee",))
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key="team")
    assert lines(views(shop, customer_id)[1]) == [("fixed", -516, -258), ("fixed", 5_161, 0)]
    change(shop, customer_id, "2025-01-20", plan_key="pro")
    assert coupon_draws(shop) == 242 + 258
    assert shop.verify() == []


def test_an_upgrade_brings_promotional_credit_back_as_well(shop: Business) -> None:
    customer_id = subscribed(shop)
    grant = granted(shop, "12.00")
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key="team")
    assert lines(views(shop, customer_id)[1]) == [("fixed", -516, -516), ("fixed", 5_161, 716)]
    assert drawn(shop, customer_id) == {grant.grant_id: 1_200}
    assert shop.verify() == []


def test_a_correction_gives_its_share_back_and_a_concession_does_not(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    grant = granted(shop, "40.00")
    shop.bill("2025-01-02")
    corrected(shop, "CVG-2025-000001", CreditKind.CONCESSION, "20.00")
    assert drawn(shop, customer_id) == {grant.grant_id: 4_000}
    corrected(shop, "CVG-2025-000001", CreditKind.CORRECTION, "20.00")
    assert drawn(shop, customer_id) == {grant.grant_id: 3_200}
    shop.bill("2025-02-02")
    again = views(shop, customer_id)[1]
    assert lines(again) == [("fixed", 2_000, 133), ("fixed", 10_000, 667)]
    assert shop.verify() == []


def test_a_void_gives_back_only_what_was_not_conceded(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    grant = granted(shop, "60.00")
    shop.bill("2025-01-02")
    corrected(shop, "CVG-2025-000001", CreditKind.CONCESSION, "50.00")
    voided(shop, "CVG-2025-000001", Voiding.REISSUE)
    assert drawn(shop, customer_id) == {grant.grant_id: 3_000}
    shop.bill("2025-02-02")
    again = views(shop, customer_id)[1]
    assert (again.invoice.subtotal, again.invoice.discount) == (15_000, 3_000)
    assert shop.verify() == []


def test_a_void_of_an_upgrade_takes_the_old_fee_as_not_given_back(shop: Business) -> None:
    customer_id = subscribed(shop)
    five(shop, customer_id)
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key="team")
    voided(shop, "CVG-2025-000002", Voiding.REISSUE)
    assert coupon_draws(shop) == 500
    assert shop.verify() == []
    shop.bill("2025-02-02")
    assert coupon_draws(shop) == 1_000
    assert sorted(lines(views(shop, customer_id)[2])) == [
        ("fixed", -516, -258),
        ("fixed", 5_161, 258),
        ("fixed", 10_000, 500),
    ]
    assert shop.verify() == []


def test_a_void_fee_is_not_billed_so_a_coupon_begins_with_it(shop: Business) -> None:
    customer_id = subscribed(shop)
    shop.bill("2025-01-02")
    voided(shop, "CVG-2025-000001", Voiding.REISSUE)
    offered(shop)
    assert redeemed(shop, customer_id, when="2025-01-15").span.first == 0
    shop.bill("2025-02-02")
    assert lines(views(shop, customer_id)[1]) == [("fixed", 1_000, 100), ("fixed", 1_000, 0)]
    assert shop.verify() == []


def test_a_waived_fee_stays_billed_so_a_coupon_begins_after_it(shop: Business) -> None:
    customer_id = subscribed(shop)
    shop.bill("2025-01-02")
    voided(shop, "CVG-2025-000001", Voiding.WAIVE)
    offered(shop)
    assert redeemed(shop, customer_id, when="2025-01-15").span.first == 1


def test_an_explanation_shows_what_came_back(shop: Business) -> None:
    customer_id = subscribed(shop)
    five(shop, customer_id)
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key="team")
    invoice = shop.invoices(customer_id)[1]
    with shop.database.transaction() as tx:
        assert discounts.draws(tx, customer_id, invoice.invoice_id) == [
            (1, "FIVE", -258),
            (2, "FIVE", 258),
        ]


def test_the_revision_gives_back_what_was_taken_back_before_it(shop: Business) -> None:
    customer_id = subscribed(shop, plan="team")
    five(shop, customer_id)
    granted(shop, "40.00")
    shop.bill("2025-01-02")
    change(shop, customer_id, "2025-01-16", plan_key="crew", seats=5)
    corrected(shop, "CVG-2025-000002", CreditKind.CORRECTION, "3.33")
    corrected(shop, "CVG-2025-000001", CreditKind.CONCESSION, "7.00")
    told = coupon_draws(shop), drawn(shop, customer_id)
    with shop.database.transaction() as tx:
        for table in ("coupon_draw", "credit_grant_draw"):
            tx.raw.execute(BEFORE.format(table).encode())
        tx.raw.execute(REVISION.read_bytes())
    assert shop.verify() == []
    assert (coupon_draws(shop), drawn(shop, customer_id)) == told
