"""A billing run that dies at random points, again and again, ends as if it had never died."""

import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra import migrate
from convergio.infra.db import Database
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Event
from convergio.subscriptions import actions as subscriptions
from tests.fault import stage
from tests.fault.stage import Stage

CUSTOMERS = 3_000
KILLS = 20
START = datetime(2024, 11, 1, tzinfo=UTC)
NOW = datetime(2025, 2, 1, 12, tzinfo=UTC)
RUN = ("bill", "--as-of", "2025-02-01T12:00:00Z")
SECONDS_MAX = 120
INVOICES = """
    SELECT i.customer_id, i.boundary_at, i.currency, i.total, i.issued_on, i.due_on,
        (SELECT array_agg((l.line_number, l.item_id, l.period_start, l.period_end, l.reason,
            l.quantity, l.amount)::text ORDER BY l.line_number)
        FROM invoice_line l
        WHERE l.customer_id = i.customer_id AND l.invoice_id = i.invoice_id) AS lines
    FROM invoice i ORDER BY i.customer_id, i.boundary_at"""
NUMBERS = "SELECT series, year, number FROM invoice ORDER BY 1, 2, 3"


@pytest.fixture
def shop() -> Iterator[Stage]:
    """Customers on three plans, with usage in two months, never billed."""
    with stage.built() as built:
        migrate.upgrade(built.dsn)
        with Database(built.dsn) as database:
            with database.transaction() as tx:
                catalog.ensure_example(tx, now=START)
                found = customers.create_many(
                    tx, [f"billed-{n:04d}" for n in range(CUSTOMERS)], now=START
                )
            ids = sorted(found.values())
            for place, plan in enumerate(("pro", "team", "enterprise")):
                with database.transaction() as tx:
                    subscriptions.create_many(
                        tx, customer_ids=ids[place::3], plan_key=plan, start=START, now=START
                    )
            Ingestor(database).ingest(list(_usage(sorted(found))), now=NOW, importing=True)
        yield built


def _usage(keys: list[str]) -> Iterator[Event]:
    for place, key in enumerate(keys[::2]):
        for month in (0, 31):
            yield Event(
                id=f"{key}-{month}",
                source="fault",
                type="ai.request",
                subject=key,
                time=START + timedelta(days=month + place % 28),
                data={"quantity": str(400 + place)},
            )


def _copy(shop: Stage, name: str) -> None:
    with shop.connected("postgres") as connection:
        deadline = time.monotonic() + 30
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'convergio'"
        ).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        text = f"CREATE DATABASE {name} TEMPLATE convergio"
        connection.execute(text.encode())


def _billed(shop: Stage, database: str) -> tuple[list[Any], list[Any]]:
    with shop.connected(database) as connection:
        return connection.execute(INVOICES).fetchall(), connection.execute(NUMBERS).fetchall()


def _run_and_die(shop: Stage, chance: Random, working_seconds: float) -> bool:
    """Begin a run, let it work for a random time, kill it; False when it was done before."""
    run = shop.begin(*RUN)
    try:
        _wait_for_session(shop, run)
        run.wait(chance.uniform(0.0, working_seconds))
    except subprocess.TimeoutExpired:
        stage.kill(run.pid)
        return run.wait() == -signal.SIGKILL
    assert run.returncode == 0, shop.log[-1].read_text()
    return False


def _wait_for_session(shop: Stage, run: subprocess.Popen[bytes]) -> None:
    """Wait until the run has begun to work: its row in `billing_run` is the last thing before."""
    with shop.connected() as connection:
        text = "SELECT count(*) FROM billing_run"
        before = connection.execute(text).fetchone()
        deadline = time.monotonic() + SECONDS_MAX
        while run.poll() is None and connection.execute(text).fetchone() == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_killed_billing_run_is_finished_without_a_trace(
    shop: Stage, seed: int, figures: list[str]
) -> None:
    chance = Random(f"bill-{seed}")
    _copy(shop, "undisturbed")
    shop.database = "undisturbed"
    begin = time.monotonic()
    expected_report = shop.command(*RUN)
    working_seconds = (time.monotonic() - begin) / 8
    expected, _ = _billed(shop, "undisturbed")
    assert len(expected) == expected_report["invoices"] > CUSTOMERS

    kills, rounds, partial = 0, 0, 0
    while kills < KILLS:
        shop.database = f"round{rounds}"
        _copy(shop, shop.database)
        while kills < KILLS and _run_and_die(shop, chance, working_seconds):
            kills += 1
            partial += 0 < len(_billed(shop, shop.database)[0]) < len(expected)
        shop.command(*RUN)
        _expect_same(shop, expected)
        rounds += 1
    assert partial > 0, "no kill came in the middle of the work"
    figures.append(
        f"billing: {kills} kills, {partial} of them left a part billed; {rounds} runs finished, "
        f"{len(expected):,} invoices each"
    )


def _expect_same(shop: Stage, expected: list[Any]) -> None:
    """Compare invoices with those of the undisturbed run; check numbers, then everything."""
    found, numbers = _billed(shop, shop.database)
    assert found == expected
    series, year = numbers[0][:2]
    assert numbers == [(series, year, place) for place in range(1, len(numbers) + 1)]
    assert shop.command(*RUN)["invoices"] == 0
    assert shop.command("verify")["ok"] is True
