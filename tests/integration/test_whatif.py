"""A price change is seen before it is made, and seeing it changes nothing."""

from pathlib import Path

import pytest

from convergio.cli import whatif as command
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import Period
from convergio.simulation import whatif
from convergio.simulation.whatif import Compared
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
        return {one.customer: one for one in whatif.compared(tx, source, during=during)}


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


def test_the_csv_holds_no_formula_and_the_chart_every_changed_customer(shop: Business) -> None:
    rows = list(found(shop, CATALOG.replace(b"unit: 31", b"unit: 93")).values())
    lines = command.csv_of(rows).split("\r\n")
    assert '"\'=cmd",usd,124.00,372.00,248.00' in lines
    chart = command.chart_of(rows)
    assert chart.count("<rect") == 2
    assert "248.00 USD" in chart


def test_the_summary_adds_up_by_currency(shop: Business) -> None:
    value = command.summary(
        list(found(shop, CATALOG.replace(b"amount: 31", b"amount: 21")).values()), DURING
    )
    assert value["revenue"]["usd"]["difference"] == "-20.00"
    assert [one["customer"] for one in value["less"]] == ["acme"]
    assert value["more"] == []
