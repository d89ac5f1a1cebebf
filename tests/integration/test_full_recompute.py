"""A full recompute agrees with the marks, tells of every difference, and says how to mend it."""

import json
import os
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from convergio.billing import actions as billing
from convergio.billing import correcting, issuing, jobs
from convergio.billing.model import CreditKind
from convergio.cli.main import app
from convergio.infra.db import Database
from convergio.infra.ids import typeid
from convergio.infra.settings import load_settings
from convergio.kernel.money import Money
from convergio.subscriptions import actions as subscriptions
from convergio.wiring import opened
from convergio.worker import chores
from tests.fakes.business import SELLER, Business, at


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


@pytest.fixture
def acme(shop: Business) -> UUID:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-10-01")
    for month in ("10", "11", "12"):
        shop.use("acme", 520, f"2024-{month}-05")
    shop.bill("2025-01-02")
    assert shop.verify() == []
    return acme


def spoil(shop: Business, change: str, *where: object) -> None:
    with shop.database.transaction() as tx:
        assert tx.raw.execute(change, where).rowcount == 1


def told(shop: Business, *, reopen: bool = False) -> jobs.Recomputed:
    return jobs.recompute(shop.database, now=shop.now, reopen=reopen)


def amounts(shop: Business) -> list[tuple[str, str]]:
    """Return what was expected and found of each charge that differs."""
    return [
        (one.expected.split()[0], one.found)
        for one in told(shop).differences
        if one.where.startswith(("closed period", "fee of item"))
    ]


@pytest.mark.parametrize(
    ("change", "expected", "found"),
    [
        ("SET amount = 5 WHERE kind = 'usage' AND period_start = '2024-10-01Z'", "20", "5"),
        ("SET amount = 95 WHERE kind = 'usage' AND period_start = '2024-10-01Z'", "20", "95"),
        ("SET amount = 95 WHERE kind = 'fixed' AND period_start = '2024-11-01Z'", "699", "95"),
        ("SET amount = 799 WHERE kind = 'fixed' AND period_start = '2024-11-01Z'", "699", "799"),
        ("SET amount = 799 WHERE kind = 'fixed' AND period_start = '2025-01-01Z'", "699", "799"),
        ("SET amount = 95 WHERE kind = 'fixed' AND period_start = '2025-01-01Z'", "699", "95"),
        ("SET dimensions = 'x' WHERE kind = 'usage' AND period_start = '2024-10-01Z'", "20", "0"),
    ],
)
def test_too_much_and_too_little_is_told_of_fees_and_usage(
    shop: Business, acme: UUID, change: str, expected: str, found: str
) -> None:
    spoil(shop, f"UPDATE invoice_line {change}")
    assert (expected, found) in amounts(shop)
    assert shop.verify() != []


def test_what_is_billed_and_owed_by_nobody_is_told(shop: Business, acme: UUID) -> None:
    spoil(
        shop,
        "UPDATE invoice_line SET dimensions = 'x'"
        " WHERE kind = 'usage' AND period_start = '2024-10-01Z'",
    )
    assert sorted(amounts(shop)) == [("0", "20"), ("20", "0")]
    told(shop, reopen=True)
    shop.bill("2025-02-02")
    reasons = [reason for _, reason, _ in shop.lines(shop.invoices()[-1])]
    assert reasons[1:3] == [
        "credit: correction of usage for 2024-10-01 to 2024-10-31",
        "late usage for 2024-10-01 to 2024-10-31",
    ]
    assert amounts(shop) == []


def test_the_next_run_bills_what_was_missing_once_it_is_opened_again(
    shop: Business, acme: UUID
) -> None:
    spoil(
        shop,
        "UPDATE invoice_line SET amount = 5 WHERE kind = 'usage' AND period_start = '2024-10-01Z'",
    )
    shop.bill("2025-02-02")
    assert amounts(shop) == [("20", "5")], "a run does not look at what is closed"
    found = told(shop, reopen=True)
    assert found.customers == (acme,)
    shop.bill("2025-03-02")
    *_, last = shop.invoices()
    assert shop.lines(last) == [
        ("fixed", "fee", 699),
        ("usage", "late usage for 2024-10-01 to 2024-10-31", 15),
    ]
    assert amounts(shop) == []


def test_the_next_run_takes_back_what_was_too_much(shop: Business, acme: UUID) -> None:
    spoil(
        shop,
        "UPDATE invoice_line SET amount = 95 WHERE kind = 'usage' AND period_start = '2024-10-01Z'",
    )
    told(shop, reopen=True)
    shop.bill("2025-02-02")
    *_, last = shop.invoices()
    assert ("usage", "credit: correction of usage for 2024-10-01 to 2024-10-31", -75) in shop.lines(
        last
    )
    assert amounts(shop) == []


def test_a_difference_is_a_fact_for_other_systems(shop: Business, acme: UUID) -> None:
    assert told(shop).differences == ()
    spoil(
        shop,
        "UPDATE invoice_line SET amount = 5 WHERE kind = 'usage' AND period_start = '2024-10-01Z'",
    )
    told(shop)
    with shop.database.transaction() as tx:
        ((type_, customer_id, count),) = tx.tuples(
            "SELECT type, customer_id, data ->> 'differences' FROM outbox_event"
            " WHERE type = 'billing.differs' AND customer_id IS NOT NULL"
        )
    assert (type_, customer_id, count) == ("billing.differs", acme, "1")


def test_nothing_is_told_of_what_is_about_to_be_billed(shop: Business, acme: UUID) -> None:
    shop.use("acme", 30, "2024-10-20")
    shop.use("acme", 700, "2025-01-05")
    by = issuing.Issuer(SELLER, shop.keyring, shop.now, shop.now)
    assert told(shop).differences == ()
    with shop.database.transaction() as tx:
        correcting.credit(
            tx, by, invoice=shop.invoices()[0], reason="wrong", kind=CreditKind.CORRECTION,
            amount=Money(100, "usd"),
        )  # fmt: skip
    assert told(shop).differences == ()
    shop.bill("2025-01-16")
    assert told(shop).differences == ()
    with shop.database.transaction() as tx:
        subscriptions.cancel(
            tx, customer_id=acme, at_period_end=False, credit=True, now=at("2025-01-20")
        )
    assert told(shop).differences == ()
    shop.bill("2025-01-21")
    assert told(shop).differences == ()


def test_what_was_given_away_already_is_not_billed_too_much(shop: Business, acme: UUID) -> None:
    by = issuing.Issuer(SELLER, shop.keyring, shop.now, shop.now)
    with shop.database.transaction() as tx:
        correcting.credit(tx, by, invoice=shop.invoices()[-1], reason="sorry")
        subscriptions.cancel(
            tx, customer_id=acme, at_period_end=False, credit=True, now=at("2025-01-16")
        )
    shop.bill("2025-01-17")
    assert told(shop).differences == ()


def test_a_recompute_sees_one_moment_while_a_run_bills(shop: Business, acme: UUID) -> None:
    with shop.database.snapshot() as tx:
        assert tx.value("SELECT count(*) FROM invoice") == 4
        shop.bill("2025-03-02")
        assert billing.verify(tx) == []
    assert shop.verify() == []


def test_every_page_is_recomputed(shop: Business, now: datetime) -> None:
    ids = shop.customers([f"c{number:04}" for number in range(1_050)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2024-12-01"), now=now
        )
    shop.bill("2025-02-02")
    assert told(shop).differences == ()
    spoiled = sorted(ids.values())[::525]
    with shop.database.transaction() as tx:
        tx.raw.execute(
            "UPDATE invoice_line SET amount = 1 WHERE customer_id = ANY(%s)"
            " AND kind = 'fixed' AND period_start = '2024-12-01Z'",
            [spoiled],
        )
    found = told(shop)
    assert found.customers == tuple(spoiled)


def test_the_worker_recomputes_every_night_and_the_command_at_any_time(
    shop: Business, acme: UUID, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    fine = CliRunner().invoke(app, ["recompute"])
    assert (fine.exit_code, fine.stdout.strip()) == (0, "everything is billed as it is owed")
    spoil(
        shop,
        "UPDATE invoice_line SET amount = 5 WHERE kind = 'usage' AND period_start = '2024-10-01Z'",
    )
    with opened(load_settings(dict(os.environ))) as product:
        chore = chores(product)["convergio.recompute"]
        assert chore.cron.split()[2:] == ["*", "*", "*"]
        chore.work()
    found = CliRunner().invoke(app, ["recompute", "--reopen", "--json"])
    value = json.loads(found.stdout.splitlines()[-1])
    assert (found.exit_code, value["ok"], value["reopened"]) == (1, False, 1)
    assert value["customers"] == [typeid("cus", acme)]
    with shop.database.transaction() as tx:
        assert tx.value("SELECT count(*) FROM outbox_event WHERE type = 'billing.differs'") == 2
    shop.bill("2025-02-02")
    assert CliRunner().invoke(app, ["recompute"]).exit_code == 0
