"""A billing run that dies at random points, again and again, ends as if it had never died.

Two workers share each run. Some kills take the whole run, some one worker of it, and some the
process that hands out the work, so that the next run begins while orphans still finish a page.
FAULT_CUSTOMERS sets the size: 100000 is what the run has to stand, 6000 what `make fault` has time
for.
"""

import os
import signal
import subprocess
import time
from collections import Counter
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

CUSTOMERS = int(os.environ.get("FAULT_CUSTOMERS", "6000"))
KILLS = 20
CHUNK = 10_000
START = datetime(2025, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 2, 1, 12, tzinfo=UTC)
RUN = ("bill", "--as-of", "2025-02-01T12:00:00Z", "--workers", "2")
SECONDS_MAX = 600
INVOICES = """
    SELECT i.customer_id, i.boundary_at, i.currency, i.total, i.issued_on, i.due_on,
        (SELECT array_agg((l.line_number, l.item_id, l.period_start, l.period_end, l.reason,
            l.quantity, l.amount)::text ORDER BY l.line_number)
        FROM invoice_line l
        WHERE l.customer_id = i.customer_id AND l.invoice_id = i.invoice_id) AS lines
    FROM invoice i ORDER BY i.customer_id, i.boundary_at"""
REPORTED = "SELECT sum((report ->> 'invoices')::bigint)::bigint FROM billing_page"
NUMBERS = "SELECT series, year, number FROM invoice ORDER BY 1, 2, 3"


@pytest.fixture
def shop() -> Iterator[Stage]:
    """Customers on three plans, with usage in two months, never billed."""
    with stage.built() as built:
        migrate.upgrade(built.dsn)
        with Database(built.dsn) as database:
            with database.transaction() as tx:
                catalog.ensure_example(tx, now=START)
            keys = [f"billed-{n:06d}" for n in range(CUSTOMERS)]
            for first in range(0, CUSTOMERS, CHUNK):
                _subscribe(database, keys[first : first + CHUNK])
            ingestor, used = Ingestor(database), list(_usage(keys))
            for first in range(0, len(used), CHUNK):
                ingestor.ingest(used[first : first + CHUNK], now=NOW, importing=True)
        yield built


def _subscribe(database: Database, keys: list[str]) -> None:
    with database.transaction() as tx:
        ids = sorted(customers.create_many(tx, keys, now=START).values())
    for place, plan in enumerate(("pro", "team", "enterprise")):
        with database.transaction() as tx:
            subscriptions.create_many(
                tx, customer_ids=ids[place::3], plan_key=plan, start=START, now=START
            )


def _usage(keys: list[str]) -> Iterator[Event]:
    for place, key in enumerate(keys[::2]):
        yield Event(
            id=key,
            source="fault",
            type="ai.request",
            subject=key,
            time=START + timedelta(days=place % 28),
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


def _run_and_die(shop: Stage, chance: Random, working_seconds: float) -> str | None:
    """Begin a run, let it work for a random time, kill; None when it was done before.

    One worker that is killed is no end: the run goes on without it, and must finish.
    """
    run = shop.begin(*RUN)
    victim = chance.choice(["run", "run", "run", "run", "parent", "parent", "worker"])
    _wait_for_session(shop, run)
    try:
        run.wait(chance.uniform(0.0, working_seconds))
    except subprocess.TimeoutExpired:
        return _killed(shop, run, victim, chance)
    assert run.returncode == 0, shop.log[-1].read_text()
    return None


def _killed(shop: Stage, run: subprocess.Popen[bytes], victim: str, chance: Random) -> str:
    if victim == "worker":
        workers = [pid for pid in stage.children(run.pid) if b"spawn_main" in stage.words(pid)]
        if workers and stage.kill(chance.choice(workers)):
            assert run.wait(SECONDS_MAX) == 0, shop.log[-1].read_text()
            return victim
    if victim == "parent":
        stage.kill(run.pid)
    else:
        os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    return "parent" if victim == "parent" else "run"


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

    kills: Counter[str] = Counter()
    rounds, partial = 0, 0
    while kills.total() < KILLS:
        shop.database = f"round{rounds}"
        _copy(shop, shop.database)
        while kills.total() < KILLS and _count(shop) < len(expected):
            victim = _run_and_die(shop, chance, working_seconds)
            kills[victim or "nobody"] += 1
            partial += 0 < _count(shop) < len(expected)
        del kills["nobody"]
        shop.command(*RUN)
        _expect_same(shop, expected)
        rounds += 1
    assert partial > 0, "no kill came in the middle of the work"
    figures.append(
        f"billing: {kills.total()} kills ({_shares(kills)}"
        f"), {partial} of them left a part billed; {rounds} runs finished, {CUSTOMERS:,} customers "
        f"and {len(expected):,} invoices each, {working_seconds * 8:.0f} s undisturbed"
    )


def _shares(kills: Counter[str]) -> str:
    return ", ".join(f"{count} of a {victim}" for victim, count in sorted(kills.items()))


def _count(shop: Stage) -> int:
    with shop.connected() as connection:
        found = connection.execute("SELECT count(*) FROM invoice").fetchone()
    return int(found[0]) if found else 0


def _expect_same(shop: Stage, expected: list[Any]) -> None:
    """Compare invoices with those of the undisturbed run; check numbers, then everything."""
    found, numbers = _billed(shop, shop.database)
    assert found == expected
    series, year = numbers[0][:2]
    assert numbers == [(series, year, place) for place in range(1, len(numbers) + 1)]
    with shop.connected() as connection:
        told = connection.execute(REPORTED).fetchone()
    assert told == (len(expected),), "each invoice is in the report of the run that made it"
    assert shop.command(*RUN)["invoices"] == 0
    assert shop.command("verify")["ok"] is True
