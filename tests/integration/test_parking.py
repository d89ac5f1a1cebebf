"""One customer whose facts contradict each other never stops a run, is told of, and goes on.

What breaks is put into the tables by hand, because no verb of the product would do it.
"""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from uuid import UUID

import psycopg
import pytest

from convergio.billing import actions as billing
from convergio.billing import correcting, issuing
from convergio.billing.model import Voiding
from convergio.billing.reporting import LINES_A_DAY_MAX
from convergio.infra.clock import pause
from convergio.infra.db import Database
from convergio.subscriptions import actions as subscriptions
from tests.fakes.business import SELLER, Business, at

USAGE_AGAIN = """
INSERT INTO invoice_line (customer_id, invoice_id, line_number, subscription_id, item_id,
    period_start, kind, dimensions, period_end, price_id, reason, description, quantity, amount,
    currency, detail)
SELECT customer_id, invoice_id, line_number + n, subscription_id, item_id, period_start, kind,
    dimensions, period_end, price_id, %s, description, 0, CASE n %% 2 WHEN 1 THEN 1 ELSE -1 END,
    currency, detail
FROM invoice_line, generate_series(1, %s) AS n
WHERE customer_id = %s AND kind = 'fixed' AND period_start = '2024-12-01Z'
"""


@pytest.fixture
def shop(database: Database, now: datetime) -> Business:
    return Business(database, now)


@pytest.fixture
def pair(shop: Business) -> tuple[UUID, UUID]:
    """Return a customer to break and one beside, each billed for December."""
    ids = shop.customer("bad"), shop.customer("good")
    for one in ids:
        shop.subscribe(one, "pro", "2024-12-01")
    shop.bill("2024-12-02T00:00:00Z")
    return ids


def changed(shop: Business, statement: str, *values: object) -> None:
    with shop.database.transaction() as tx:
        assert tx.raw.execute(statement, values).rowcount > 0


def parked(shop: Business) -> list[tuple[UUID, str]]:
    with shop.database.transaction() as tx:
        return [(one.customer_id, one.code) for one in billing.parked(tx)]


def facts(shop: Business) -> list[tuple[str, str | None]]:
    with shop.database.transaction() as tx:
        return tx.tuples(
            "SELECT type, data ->> 'code' FROM outbox_event WHERE type LIKE 'billing.%%park%%'"
            " ORDER BY outbox_id"
        )


def priced(shop: Business, customer_id: UUID, charge: str) -> None:
    """Let a customer pin a price of its own that cannot be right."""
    changed(
        shop,
        "INSERT INTO price SELECT (jsonb_populate_record(p, jsonb_build_object('price_id',"
        " '00000000-0000-0000-0000-000000000009', 'version', 99, 'customer_id', %s::text,"
        " 'charge', %s::jsonb))).* FROM price AS p WHERE price_key = 'pro_fee'",
        str(customer_id),
        charge,
    )
    changed(
        shop,
        "UPDATE subscription_item SET price_id = '00000000-0000-0000-0000-000000000009'"
        " WHERE customer_id = %s AND price_id = (SELECT price_id FROM price"
        " WHERE price_key = 'pro_fee' AND version = 1)",
        customer_id,
    )


def zone(name: str) -> Callable[[Business, UUID], None]:
    return lambda shop, who: changed(
        shop, "UPDATE subscription SET time_zone = %s WHERE customer_id = %s", name, who
    )


def repriced(shop: Business, customer_id: UUID) -> None:
    changed(
        shop,
        "UPDATE subscription_item SET price_id = (SELECT price_id FROM price"
        " WHERE price_key = 'pro_fee' AND version = 1) WHERE customer_id = %s"
        " AND price_id = '00000000-0000-0000-0000-000000000009'",
        customer_id,
    )


BREAKS = {
    "an unknown time zone": (zone("Mars/Base"), zone("UTC")),
    "a price that is none": (lambda s, who: priced(s, who, '{"model": "none"}'), repriced),
    "a fee beyond all numbers": (
        lambda s, who: priced(s, who, '{"model": "flat", "amount": "99999999999999999999999"}'),
        repriced,
    ),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_customer_is_parked_told_of_once_and_goes_on_when_mended(
    shop: Business, pair: tuple[UUID, UUID], what: str
) -> None:
    bad, good = pair
    breaking, mending = BREAKS[what]
    breaking(shop, bad)
    for day in ("2025-01-02", "2025-01-03"):
        report = shop.bill(day)
        assert [one.customer_id for one in report.problems] == [bad]
        assert report.customers == 2
    assert (len(shop.invoices(bad)), len(shop.invoices(good))) == (1, 2)
    assert [who for who, _ in parked(shop)] == [bad]
    assert [type_ for type_, _ in facts(shop)] == ["billing.parked"]
    mending(shop, bad)
    assert shop.bill("2025-01-04").problems == []
    assert parked(shop) == []
    assert [type_ for type_, _ in facts(shop)] == ["billing.parked", "billing.unparked"]
    assert len(shop.invoices(bad)) == 2


def test_what_only_the_database_refuses_parks_that_customer_alone(
    shop: Business, now: datetime
) -> None:
    ids = shop.customers([f"c{number:03}" for number in range(40)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2024-12-01"), now=now
        )
        bad = ids["c017"]
        tx.raw.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.customer_id = '{bad}' THEN RAISE numeric_value_out_of_range; END IF;"
            " RETURN NEW; END $$"
        )
        tx.raw.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON invoice_line"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    report = shop.bill("2024-12-02")
    assert [(one.customer_id, one.code) for one in report.problems] == [(bad, "fault")]
    assert (report.customers, report.invoices) == (40, 39)
    assert [one.number for one in shop.invoices()] == list(range(1, 40))
    assert parked(shop) == [(bad, "fault")]


def test_who_meets_another_transaction_while_a_page_is_billed_apart_is_not_parked(
    shop: Business, now: datetime
) -> None:
    ids = shop.customers([f"c{number:03}" for number in range(8)])
    bad, met = ids["c001"], ids["c006"]
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2024-12-01"), now=now
        )
        tx.raw.execute("CREATE SEQUENCE meeting")  # it goes on when a transaction is undone
        tx.raw.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.customer_id = '{bad}' THEN RAISE numeric_value_out_of_range; END IF;"
            f" IF NEW.customer_id = '{met}' AND nextval('meeting') <= 3"
            " THEN RAISE deadlock_detected; END IF; RETURN NEW; END $$"
        )
        tx.raw.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON invoice_line"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    report = shop.bill("2024-12-02")
    assert parked(shop) == [(bad, "fault")]
    assert (report.customers, report.invoices) == (8, 7)


def test_a_page_that_is_billed_apart_holds_everyone_before_it_numbers_anything(
    shop: Business, now: datetime, dsn: str
) -> None:
    ids = shop.customers([f"c{number:03}" for number in range(8)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2024-12-01"), now=now
        )
        tx.raw.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.customer_id = '{ids['c001']}' THEN RAISE numeric_value_out_of_range; END IF;"
            " RETURN NEW; END $$;"
            "CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.customer_id = '{ids['c000']}' THEN PERFORM pg_sleep(2); END IF;"
            " RETURN NEW; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON invoice_line"
            " FOR EACH ROW EXECUTE FUNCTION refuse();"
            "CREATE TRIGGER rest BEFORE INSERT ON invoice FOR EACH ROW EXECUTE FUNCTION rest()"
        )
    with ThreadPoolExecutor(1) as pool, psycopg.connect(dsn, autocommit=True) as beside:
        run = pool.submit(shop.bill, "2024-12-02")
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        while not beside.execute(asleep).fetchone():  # it has taken the first number
            pause(0.02)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            beside.execute(
                "SELECT 1 FROM subscription WHERE customer_id = %s FOR UPDATE NOWAIT", [ids["c007"]]
            )
        assert run.result().invoices == 7


def test_what_breaks_everyone_is_no_customers_own_and_stops_the_run(
    shop: Business, now: datetime
) -> None:
    ids = shop.customers([f"c{number:03}" for number in range(60)])
    with shop.database.transaction() as tx:
        subscriptions.create_many(
            tx, customer_ids=list(ids.values()), plan_key="pro", start=at("2024-12-01"), now=now
        )
        tx.raw.execute('UPDATE price SET charge = \'{"model": "none"}\'')
    with pytest.raises(Exception, match="none"):
        shop.bill("2024-12-02")
    assert parked(shop) == []


def test_another_reason_is_told_of_again(shop: Business, pair: tuple[UUID, UUID]) -> None:
    bad, _ = pair
    changed(shop, "UPDATE invoice_line SET item_id = %s WHERE customer_id = %s", UUID(int=9), bad)
    for _ in range(2):
        shop.bill("2025-01-02")
    changed(shop, "UPDATE billing_park SET code = 'tax_unknown'")
    for _ in range(2):
        shop.bill("2025-01-02")
    assert [code for _, code in facts(shop)] == ["stray", "stray"]


def test_a_circle_parks_after_so_many_lines_and_goes_on_after_a_day(
    shop: Business, pair: tuple[UUID, UUID]
) -> None:
    bad, good = pair
    shop.use("bad", 510, "2024-12-05")
    shop.use("good", 510, "2024-12-05")
    shop.bill("2025-01-02")
    changed(shop, USAGE_AGAIN, "late fee for a test", LINES_A_DAY_MAX, bad)
    changed(shop, USAGE_AGAIN, "fee", LINES_A_DAY_MAX, good)
    changed(shop, "UPDATE invoice SET finalized_at = '2025-02-01T01:00:00Z'")
    for key in ("bad", "good"):
        shop.use(key, 1, "2024-12-06")
    report = shop.bill("2025-02-01T02:00:00Z")
    assert [(one.customer_id, one.code) for one in report.problems] == [(bad, "too_many_lines")]
    assert shop.bill("2025-02-02T02:00:00Z").problems == []
    assert len(shop.invoices(bad)) == len(shop.invoices(good)) == 3


def test_what_a_person_voids_to_be_billed_again_is_no_circle(
    shop: Business, pair: tuple[UUID, UUID]
) -> None:
    by = issuing.Issuer(SELLER, shop.keyring, at("2025-01-02"), at("2025-01-02"))
    with shop.database.transaction() as tx:
        (invoice,) = billing.page(tx, customer_id=pair[0])
        correcting.void(tx, by, invoice=invoice, how=Voiding.REISSUE)
    assert shop.bill("2025-01-02", lines_max=1).problems == []
    assert [len(shop.invoices(one)) for one in pair] == [2, 2]


def test_a_run_that_may_amend_more_lines_bills_who_was_looked_at(
    shop: Business, pair: tuple[UUID, UUID]
) -> None:
    bad, _ = pair
    shop.use("bad", 510, "2024-12-05")
    shop.bill("2025-01-02")
    changed(shop, USAGE_AGAIN, "late fee for a test", LINES_A_DAY_MAX, bad)
    changed(shop, "UPDATE invoice SET finalized_at = '2025-02-01T01:00:00Z'")
    shop.use("bad", 1, "2024-12-06")
    (problem,) = shop.bill("2025-02-01T02:00:00Z").problems
    asked = re.search(r"convergio bill --lines-max (\d+)", problem.reason)
    assert asked is not None
    lines_max = int(asked[1])
    (problem,) = shop.bill("2025-02-01T03:00:00Z", lines_max=lines_max - 1).problems
    assert problem.code == "too_many_lines"
    assert shop.bill("2025-02-01T04:00:00Z", lines_max=lines_max).problems == []
    assert len(shop.invoices(bad)) == 3


def test_the_bound_is_for_each_subscription(shop: Business) -> None:
    half = LINES_A_DAY_MAX // 2 + 1
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", "2024-12-01")
    shop.use("acme", 510, "2024-12-05")
    shop.bill("2024-12-02")
    changed(shop, USAGE_AGAIN, "late fee for a test", half - half % 2, acme)
    shop.cancel(acme, "2024-12-20", at_period_end=False)
    shop.subscribe(acme, "pro", "2024-12-21")
    shop.bill("2024-12-22")
    changed(
        shop,
        USAGE_AGAIN.replace("2024-12-01Z", "2024-12-21Z"),
        "late fee for a test",
        half - half % 2,
        acme,
    )
    changed(shop, "UPDATE invoice SET finalized_at = '2025-01-21T01:00:00Z'")
    shop.use("acme", 600, "2024-12-06")
    shop.use("acme", 1, "2024-12-22")
    assert shop.bill("2025-01-21T02:00:00Z").problems == []
