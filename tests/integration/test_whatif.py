"""A price change is seen before it is made, and seeing it changes nothing."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from convergio.catalog import actions as catalog
from convergio.cli import whatif as command
from convergio.customers import actions as customers
from convergio.entitlements import grants
from convergio.entitlements.model import Category, GrantTerms
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.periods import Period
from convergio.rating.model import Flat
from convergio.simulation import whatif
from convergio.simulation.whatif import Compared
from convergio.subscriptions import negotiating
from tests.fakes.business import Business, at

CATALOG = (Path(__file__).parents[1] / "golden" / "catalog.yaml").read_bytes()
DURING = Period(at("2025-01-01"), at("2025-03-01"))


@pytest.fixture
def shop(database: Database) -> Business:
    """Three customers who lived January and February."""
    made = Business(database, at("2025-01-01"), CATALOG)
    for key, plan in (("acme", "basic"), ("beta", "pro"), ("=cmd", "team")):
        made.subscribe(made.customer(key), plan, "2025-01-01", seats=2 if plan == "team" else 1)
    made.now = at("2025-02-20")
    made.use("acme", 320, "2025-01-10T00:00:00Z")
    made.use("beta", 3200, "2025-01-10T00:00:00Z")
    made.now = at("2025-03-01")
    made.bill("2025-02-28T12:00:00Z", now=at("2025-02-28T12:00:00Z"))
    return made


def found(shop: Business, source: bytes, during: Period = DURING) -> dict[str, Compared]:
    with shop.database.snapshot() as tx:
        every = whatif.compared(tx, shop.keyring, source, during=during)
        return {one.customer: one for one in every}


def customer_id(shop: Business, key: str) -> UUID:
    with shop.database.transaction() as tx:
        return customers.find(tx, key).customer_id


def test_the_same_catalog_changes_nobodys_bill_and_gives_what_was_billed(shop: Business) -> None:
    same = found(shop, CATALOG)
    assert {key: one.difference.minor for key, one in same.items()} == {
        "acme": 0, "beta": 0, "=cmd": 0,
    }  # fmt: skip
    assert sum(one.now.minor for one in same.values()) == sum(i.total for i in shop.invoices())


def test_a_dearer_unit_costs_who_goes_beyond_the_allowance_alone(shop: Business) -> None:
    dearer = found(
        shop, CATALOG.replace(b"unit: 0.10, included: 310", b"unit: 0.30, included: 310")
    )
    assert {key: one.difference.minor for key, one in dearer.items()} == {
        "acme": 200, "beta": 0, "=cmd": 0,
    }  # fmt: skip


def test_a_dearer_seat_costs_each_seat_each_month(shop: Business) -> None:
    dearer = found(shop, CATALOG.replace(b"model: seat, unit: 31", b"model: seat, unit: 32"))
    assert dearer["=cmd"].difference.minor == 2 * 2 * 100


def test_only_what_falls_due_in_the_time_asked_for_counts(shop: Business) -> None:
    january = found(shop, CATALOG, Period(at("2025-01-01"), at("2025-02-01")))
    assert january["acme"].now.minor == 3100


def test_a_plan_that_the_other_catalog_lacks_is_named(shop: Business) -> None:
    without = CATALOG.replace(b"- key: team\n", b"- key: squad\n")
    with pytest.raises(Invalid, match="no plan 'team'"):
        found(shop, without)


def test_a_meter_without_usage_is_named(shop: Business) -> None:
    other = CATALOG.replace(b"key: questions,", b"key: queries,").replace(
        b"meter: questions", b"meter: queries"
    )
    with pytest.raises(Invalid, match="meter 'queries'"):
        found(shop, other)


def test_it_runs_in_a_transaction_that_cannot_write_and_leaves_every_row_as_it_was(
    shop: Business,
) -> None:
    def written() -> list[tuple[object, ...]]:
        with shop.database.transaction() as tx:
            tx.run("SELECT pg_stat_force_next_flush()")
        with shop.database.transaction() as tx:
            return tx.tuples(
                "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
                " ORDER BY relname"
            )

    before = written()
    found(shop, CATALOG.replace(b"amount: 31", b"amount: 62"))
    assert written() == before
    with shop.database.snapshot() as tx:
        assert tx.value("SHOW transaction_read_only") == "on"


def summed(rows: Iterable[Compared]) -> command.Summary:
    made = command.Summary(DURING)
    for one in rows:
        made.add(one)
    return made


def test_the_csv_holds_no_formula_and_the_chart_every_changed_customer(shop: Business) -> None:
    rows = found(shop, CATALOG.replace(b"unit: 31", b"unit: 93"))
    line = command.csv_of(rows["=cmd"])
    assert line == ('"\'=cmd","usd",124.00,372.00,0.00,0.00,124.00,0.00,248.00,"",""\r\n')
    chart = command.chart_of(summed(rows.values()).bars())
    assert chart.count("<rect") == 2
    assert "248.00 USD" in chart


def test_the_summary_adds_up_by_currency(shop: Business) -> None:
    rows = found(shop, CATALOG.replace(b"amount: 31", b"amount: 21"))
    value = summed(rows.values()).value()
    assert value["revenue"]["usd"]["difference"] == "-20.00"
    assert [one["customer"] for one in value["less"]] == ["acme"]
    assert value["more"] == []
    assert value["unlike_billed"] == 0


def test_the_summary_keeps_no_more_customers_than_it_shows() -> None:
    made = command.Summary(DURING)
    zero = Money(0, "usd")
    for number in range(5_000):
        then = Money(number - 2_500, "usd")
        made.add(Compared(f"c{number:05}", zero, then, zero, zero, zero, zero))
    value = made.value()
    assert [one["difference"] for one in value["more"]][:2] == ["24.99", "24.98"]
    assert [one["difference"] for one in value["less"]][:2] == ["-25.00", "-24.99"]
    assert (value["customers"], value["changed"]) == (5_000, 4_999)
    assert len(made.bars()) == 20


def test_every_plan_that_the_other_catalog_lacks_is_named_at_once(shop: Business) -> None:
    lacking = CATALOG.replace(b"- key: team\n", b"- key: squad\n")
    lacking = lacking.replace(b"- key: pro\n", b"- key: prolific\n")
    with pytest.raises(Invalid, match="no plans 'pro', 'team', which customers are or were on"):
        found(shop, lacking)


def test_a_dimension_that_nothing_was_counted_by_is_named(shop: Business) -> None:
    other = CATALOG.replace(b"value: quantity, default: 1", b"value: quantity, group_by: [model]")
    other = other.replace(
        b"unit: 0.10, included: 310}", b"unit: 0.10, included: 310}\n"
        b"        by: model\n        charges: {large: {model: unit, unit: 1}}", 1,
    )  # fmt: skip
    with pytest.raises(Invalid, match="by 'model', by which no usage is grouped"):
        found(shop, other)


def test_a_price_that_is_left_as_it_is_moves_nobody_from_an_older_version(shop: Business) -> None:
    newer = CATALOG.replace(b"{key: basic_fee,", b"{key: basic_fee, version: 2,")
    newer = newer.replace(b"amount: 31}", b"amount: 41}", 1)
    with shop.database.transaction() as tx:
        catalog.apply(tx, newer, now=shop.now)
    assert found(shop, newer)["acme"].difference.minor == 0
    again = newer.replace(b"version: 2", b"version: 3").replace(b"amount: 41}", b"amount: 51}")
    assert found(shop, again)["acme"].difference.minor == 2 * 20_00


def test_an_agreed_price_survives_a_dearer_list_price_and_goes_with_the_price(
    shop: Business,
) -> None:
    acme = customer_id(shop, "acme")
    terms = negotiating.Terms(Flat(amount="20.00"))
    with shop.database.transaction() as tx:
        step = negotiating.Step(None, {"basic_fee": terms})
        negotiating.agree(tx, customer_id=acme, steps_=[step], now=at("2025-03-01"))
    shop.bill("2025-04-02", now=at("2025-04-02"))
    march = Period(at("2025-03-01"), at("2025-04-01"))
    dearer = found(shop, CATALOG.replace(b"amount: 31}", b"amount: 62}"), march)
    assert (dearer["acme"].now.minor, dearer["acme"].then.minor) == (2_000, 2_000)
    fee = (
        b'      - {key: basic_fee, name: "Basic, monthly fee", charge: {model: flat, amount: 31}}\n'
    )
    assert fee in CATALOG
    assert found(shop, CATALOG.replace(fee, b""), march)["acme"].then.minor == 0


def test_a_new_fee_is_had_for_all_time_on_the_plan_and_one_that_is_asked_once_once(
    shop: Business,
) -> None:
    fee = (
        b'      - {key: basic_fee, name: "Basic, monthly fee", charge: {model: flat, amount: 31}}\n'
    )
    more = fee.replace(b"basic_fee", b"basic_more").replace(b"31", b"7")
    once = more.replace(b"basic_more", b"basic_once").replace(b"charge:", b"once: true, charge:")
    other = CATALOG.replace(fee, fee + more + once)
    assert found(shop, other)["acme"].difference.minor == 2 * 700 + 700


def test_credit_that_would_have_been_drawn_is_drawn(shop: Business) -> None:
    """1,000 units less 10 beyond the 310 that are included; with 100 included, 220 are drawn."""
    terms = GrantTerms(
        key="pack", category=Category.PURCHASED, meter_key="questions", quantity=Decimal(215),
        starts_at=at("2025-03-01"),
    )  # fmt: skip
    with shop.database.transaction() as tx:
        grants.create(tx, "acme", terms, now=at("2025-03-01"))
    shop.now = at("2025-03-10")
    shop.use("acme", 320, "2025-03-09T00:00:00Z")
    shop.bill("2025-04-02", now=at("2025-04-02"))
    march = Period(at("2025-03-15"), at("2025-04-02"))
    less = CATALOG.replace(b"unit: 0.10, included: 310", b"unit: 0.10, included: 100", 1)
    one = found(shop, less, march)["acme"]
    assert (one.now.minor, one.then.minor) == (3_100, 3_100 + 50)
    assert one.is_as_billed
