"""Apply the catalog file to a real database: once is enough, and what is in use stays."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from convergio.catalog import actions
from convergio.catalog.actions import EXAMPLE
from convergio.catalog.model import Change, Filter, Quota
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Conflict, Invalid
from convergio.kernel.periods import Interval
from convergio.rating.model import Flat, Unit

SOURCE = EXAMPLE.read_bytes()
TABLES = ("event_type", "meter", "plan", "price", "plan_price", "catalog_state", "outbox_event")


def edited(old: str, new: str, source: bytes = SOURCE) -> bytes:
    text = source.decode()
    assert text.count(old) == 1, old
    return text.replace(old, new).encode()


def without_plan(key: str, source: bytes = SOURCE) -> bytes:
    text = source.decode()
    start = text.index(f"  - key: {key}\n    name: {key.capitalize()}")
    end = text.find("\n  - key: ", start)
    return (text[:start] + (text[end + 1 :] if end > 0 else "")).encode()


def everything(tx: Tx) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    for table in TABLES:
        query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(table))
        found[table] = tx.raw.execute(query).fetchall()
    return found


def states(change: Change) -> dict[tuple[str, str], str]:
    return {(e.what, e.key): e.state for e in change.entries if e.state != "unchanged"}


def price_id(tx: Tx, label: str) -> UUID:
    catalog = actions.current(tx)
    return next(p.price_id for p in catalog.prices_by_id.values() if p.label == label)


@dataclass(frozen=True)
class Subscriber:
    """Someone who pins prices, written without the rooms above."""

    customer_id: UUID
    subscription_id: UUID


def subscribe(tx: Tx, plan_key: str, *, now: datetime) -> Subscriber:
    made = Subscriber(uuid4(), uuid4())
    tx.raw.execute(
        "INSERT INTO customer (customer_id, customer_key, currency, created_at, updated_at)"
        " VALUES (%s, %s, 'usd', %s, %s)",
        (made.customer_id, str(made.customer_id), now, now),
    )
    tx.raw.execute(
        "INSERT INTO subscription (customer_id, subscription_id, plan_key, status, currency,"
        " time_zone, anchor_at, started_at, created_at)"
        " VALUES (%s, %s, %s, 'active', 'usd', 'UTC', %s, %s, %s)",
        (made.customer_id, made.subscription_id, plan_key, now, now, now),
    )
    for price in actions.current(tx).plans[plan_key].prices:
        tx.raw.execute(
            "INSERT INTO subscription_item (customer_id, subscription_id, item_id, price_id,"
            " quantity, active_from) VALUES (%s, %s, %s, %s, 1, %s)",
            (made.customer_id, made.subscription_id, uuid4(), price.price_id, now),
        )
    return made


def refused(tx: Tx, source: bytes, *, now: datetime) -> Conflict:
    """Expect apply and plan to refuse alike, and nothing to have changed."""
    before = everything(tx)
    found = []
    attempts: tuple[Callable[[], Change], ...] = (
        lambda: actions.apply(tx, source, now=now),
        lambda: actions.plan_change(tx, source),
    )
    for attempt in attempts:
        with pytest.raises(Conflict) as caught, tx.savepoint():
            attempt()
        found.append((caught.value.code, caught.value.field, str(caught.value)))
        assert everything(tx) == before
    assert found[0] == found[1]
    return caught.value


def test_the_example_reads_back_as_it_was_written(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    catalog = actions.current(tx)
    assert catalog.version == actions.version(tx) == 1
    assert list(catalog.plans) == ["free", "pro", "team", "enterprise"]
    assert list(catalog.meters) == ["questions", "images", "tokens_in", "tokens_out"]
    assert catalog.event_types == {
        "ai.request": frozenset(
            {"status", "model", "quantity", "images", "tokens_in", "tokens_out"}
        )
    }
    images = catalog.meters["images"]
    assert (images.value, images.default, images.meter_id) == ("images", None, 2)
    assert images.filters == (
        Filter("images", "exists", ("true",)),
        Filter("status", "not_in", ("failed", "pending", "processing")),
    )
    assert catalog.meters["questions"].default == Decimal(1)
    fee, questions = catalog.plans["pro"].prices
    assert (fee.kind, fee.meter_key, fee.quota, fee.interval) == (
        "fixed",
        None,
        None,
        Interval.MONTH,
    )
    assert fee.charge == Flat(amount="6.99")
    assert (questions.kind, questions.quota) == ("usage", Quota(Decimal(500), hard=False))
    assert questions.charge == Unit(unit="0.01", included="500")
    assert actions.prices(tx, [fee.price_id, uuid4()]) == {fee.price_id: fee}
    assert catalog.prices_by_id[fee.price_id] == fee


def test_applying_twice_changes_nothing(tx: Tx, now: datetime) -> None:
    first = actions.apply(tx, SOURCE, now=now)
    assert set(states(first).values()) == {"added"}
    before = everything(tx)
    second = actions.apply(tx, SOURCE, now=now)
    assert second.is_empty
    assert second.version == 1
    assert everything(tx) == before


def test_a_plan_says_what_apply_does_and_changes_nothing(tx: Tx, now: datetime) -> None:
    before = everything(tx)
    assert actions.plan_change(tx, SOURCE) == actions.apply(tx, SOURCE, now=now)
    after = everything(tx)
    assert after != before
    subscribe(tx, "team", now=now)
    after = everything(tx)
    source = without_plan("team", edited("amount: 6.99", "amount: 7.99"))
    planned = actions.plan_change(tx, source)
    assert everything(tx) == after
    assert states(planned) == {
        ("price", "pro_fee"): "changed",
        ("price", "team_seats"): "retired",
        ("price", "team_questions"): "retired",
        ("plan", "team"): "archived",
    }
    assert actions.apply(tx, source, now=now) == planned


def test_a_price_that_nobody_pins_is_replaced(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    old = price_id(tx, "pro_fee v1")
    change = actions.apply(tx, edited("amount: 6.99", "amount: 7.99"), now=now)
    assert states(change) == {("price", "pro_fee"): "changed"}
    assert change.version == 2
    new = price_id(tx, "pro_fee v1")
    assert new != old
    assert actions.prices(tx, [old]) == {}
    assert actions.current(tx).plans["pro"].prices[0].charge == Flat(amount="7.99")


def test_a_price_that_someone_pins_is_refused_and_a_new_version_is_not(
    tx: Tx, now: datetime
) -> None:
    actions.apply(tx, SOURCE, now=now)
    subscribe(tx, "pro", now=now)
    old = price_id(tx, "pro_fee v1")
    error = refused(tx, edited("amount: 6.99", "amount: 7.99"), now=now)
    assert (error.code, error.field) == ("price_in_use", "plans[1].prices[0].charge.amount")
    assert "give it version 2" in error.detail

    newer = edited("key: pro_fee\n", "key: pro_fee\n        version: 2\n")
    newer = edited("amount: 6.99", "amount: 7.99", newer)
    assert states(actions.apply(tx, newer, now=now)) == {
        ("price", "pro_fee"): "changed",
        ("plan", "pro"): "changed",
    }
    catalog = actions.current(tx)
    assert catalog.plans["pro"].prices[0].label == "pro_fee v2"
    assert catalog.prices_by_id[old].charge == Flat(amount="6.99")
    pinned = tx.raw.execute("SELECT price_id FROM subscription_item").fetchall()
    assert (old,) in pinned


def test_a_price_on_an_invoice_line_is_in_use_too(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    made, price = subscribe(tx, "free", now=now), price_id(tx, "pro_fee v1")
    invoice_id = uuid4()
    tx.raw.execute(
        "INSERT INTO invoice (customer_id, invoice_id, boundary_at, series, year, number, status,"
        " currency, total, issued_on, due_on, finalized_at, sealed_buyer)"
        " VALUES (%s, %s, %s, 'CVG', 2025, 1, 'open', 'usd', 699, %s, %s, %s, '')",
        (made.customer_id, invoice_id, now, now.date(), now.date(), now),
    )
    tx.raw.execute(
        "INSERT INTO invoice_line (customer_id, invoice_id, line_number, subscription_id, item_id,"
        " period_start, kind, period_end, price_id, reason, description, quantity, amount,"
        " currency, detail) VALUES (%s, %s, 1, %s, %s, %s, 'fixed', %s, %s, 'fee', 'Fee', 1, 699,"
        " 'usd', '{}')",
        (made.customer_id, invoice_id, made.subscription_id, uuid4(), now, now, price),
    )
    error = refused(tx, edited("amount: 6.99", "amount: 7.99"), now=now)
    assert error.code == "price_in_use"


def test_a_plan_with_subscribers_is_archived_and_comes_back(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    subscribe(tx, "team", now=now)
    ids = [price_id(tx, label) for label in ("team_seats v1", "team_questions v1")]
    change = actions.apply(tx, without_plan("team"), now=now)
    assert states(change)["plan", "team"] == "archived"
    catalog = actions.current(tx)
    assert "team" not in catalog.plans
    assert catalog.archived["team"].archived
    assert catalog.archived["team"].prices == ()
    assert set(ids) <= set(catalog.prices_by_id)
    assert actions.apply(tx, without_plan("team"), now=now).is_empty

    back = actions.apply(tx, SOURCE, now=now)
    assert states(back)["plan", "team"] == "changed"
    assert [price.price_id for price in actions.current(tx).plans["team"].prices] == ids


def test_a_plan_that_nobody_has_is_removed_with_its_prices(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    change = actions.apply(tx, without_plan("team"), now=now)
    assert states(change) == {
        ("price", "team_seats"): "removed",
        ("price", "team_questions"): "removed",
        ("plan", "team"): "removed",
    }
    catalog = actions.current(tx)
    assert not catalog.archived
    assert "team_seats" not in {price.key for price in catalog.prices_by_id.values()}


def test_what_a_meter_counts_stays_and_its_name_does_not(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    error = refused(tx, edited("value: quantity", "value: quantities"), now=now)
    assert (error.code, error.field) == ("meter_changed", "meters[0].value")
    ids = {key: meter.meter_id for key, meter in actions.current(tx).meters.items()}
    change = actions.apply(tx, edited("name: Images", "name: Pictures"), now=now)
    assert states(change) == {("meter", "images"): "changed"}
    meters = actions.current(tx).meters
    assert meters["images"].name == "Pictures"
    assert {key: meter.meter_id for key, meter in meters.items()} == ids


def test_a_meter_with_usage_stays_and_an_unused_one_can_go(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    text = SOURCE.decode()
    start, end = text.index("  - key: images\n"), text.index("  - key: tokens_in\n")
    fewer = (text[:start] + text[end:]).encode()
    meter_id = actions.current(tx).meters["images"].meter_id
    tx.raw.execute(
        "INSERT INTO usage_total (customer_id, meter_id, start_at, end_at, version, used)"
        " VALUES (%s, %s, '2025-01-01', '2025-02-01', 1, 0)",
        (uuid4(), meter_id),
    )
    assert refused(tx, fewer, now=now).code == "meter_in_use"
    tx.raw.execute("DELETE FROM usage_total")
    assert states(actions.apply(tx, fewer, now=now)) == {("meter", "images"): "removed"}


def test_an_empty_file_takes_everything_off_sale(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    change = actions.apply(tx, b"{}", now=now)
    assert set(states(change).values()) == {"removed"}
    catalog = actions.current(tx)
    assert (catalog.version, len(catalog.plans), len(catalog.meters)) == (2, 0, 0)
    assert not catalog.event_types


@pytest.mark.parametrize("source", [b"currency: nope\nplans: []\n\x00", b"a: &a [*a]", b"plans: 5"])
def test_a_wrong_file_touches_nothing(tx: Tx, now: datetime, source: bytes) -> None:
    before = everything(tx)
    with pytest.raises(Invalid):
        actions.apply(tx, source, now=now)
    with pytest.raises(Invalid):
        actions.plan_change(tx, source)
    assert everything(tx) == before


def test_only_an_apply_that_changes_something_is_told_to_the_world(tx: Tx, now: datetime) -> None:
    actions.apply(tx, SOURCE, now=now)
    actions.apply(tx, SOURCE, now=now)
    actions.plan_change(tx, b"{}")
    told = tx.raw.execute("SELECT type, data FROM outbox_event").fetchall()
    assert told == [("catalog.applied", {"version": 1})]


def test_the_example_is_applied_to_an_empty_database_only(tx: Tx, now: datetime) -> None:
    first = actions.ensure_example(tx, now=now)
    assert first is not None
    assert first.version == 1
    assert actions.ensure_example(tx, now=now) is None
    actions.apply(tx, b"{events: [{type: own}]}", now=now)
    assert actions.ensure_example(tx, now=now) is None
    assert not actions.current(tx).plans


def test_concurrent_applies_of_one_file_make_one_version(database: Database, now: datetime) -> None:
    changes: list[Change] = []
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        with database.transaction() as tx:
            changes.append(actions.apply(tx, SOURCE, now=now))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(change.is_empty for change in changes) == [False, True, True, True]
    assert {change.version for change in changes} == {1}
    with database.transaction() as tx:
        assert actions.current(tx).version == 1
        assert len(actions.current(tx).prices_by_id) == 6


def test_a_reader_never_sees_half_of_an_apply(database: Database, now: datetime) -> None:
    other = edited("amount: 6.99", "amount: 7.99")
    with database.transaction() as tx:
        actions.apply(tx, SOURCE, now=now)
    done = threading.Event()

    def write() -> None:
        try:
            for source in [other, SOURCE] * 15:
                with database.transaction() as tx:
                    actions.apply(tx, source, now=now)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or not reads:
        with database.transaction() as tx:
            catalog = actions.current(tx)
        fee = catalog.plans["pro"].prices[0].charge
        assert fee == Flat(amount="7.99" if catalog.version % 2 == 0 else "6.99")
        reads += 1
    writer.join()


def test_the_database_itself_refuses_to_lose_a_pinned_price(
    database: Database, now: datetime
) -> None:
    with database.transaction() as tx:
        actions.apply(tx, SOURCE, now=now)
        subscribe(tx, "pro", now=now)
        fee = price_id(tx, "pro_fee v1")
    with psycopg.connect(database.dsn) as connection:
        connection.execute("DELETE FROM plan_price")
        with pytest.raises(pg.ForeignKeyViolation):
            connection.execute("DELETE FROM price WHERE price_id = %s", (fee,))
