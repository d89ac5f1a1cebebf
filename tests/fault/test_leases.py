"""Nodes with leases, their server and its database die by kill -9: the quota is never oversold.

What each node let through stands in its journal. It never passes the limit; what is not reported
of it is still blocked, for nobody declared a lease lost; and what is counted is never more.
"""

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random

import pytest

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra import migrate
from convergio.infra.db import Database
from convergio.subscriptions import actions as subscriptions
from tests.fault.lease_node import CUSTOMERS
from tests.fault.stage import Stage, built, kills, real_now

NODES = 4
NODE_KILLS = kills(100)
SERVER_KILLS = 10
POSTGRES_KILLS = 3
LIMIT = 600
CATALOG = f"""
currency: usd
events: [{{type: ai.request}}]
meters: [{{key: questions, name: Questions, event: ai.request, value: quantity}}]
plans:
  - key: pool
    name: Pool
    prices:
      - key: questions
        name: Questions
        meter: questions
        quota: {{limit: {LIMIT}, hard: true}}
        charge: {{model: unit, unit: 0, included: {LIMIT}}}
""".encode()


@dataclass
class Left:
    """What the nodes let through, and what the database holds when all is calm again."""

    through: Counter[str] = field(default_factory=Counter)
    used: dict[str, Decimal] = field(default_factory=dict)
    reserved: dict[str, Decimal] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    verified: dict[str, object] = field(default_factory=dict)


class _Pool:
    """The nodes of a stage; one that dies is replaced by a new one."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.stage, self.key = stage, key
        self.journals: list[Path] = []
        self.nodes = [self._start() for _ in range(NODES)]

    def _start(self) -> subprocess.Popen[bytes]:
        journal = self.stage.home / f"node-{len(self.journals)}.journal"
        first = self._first_open()
        self.journals.append(journal)
        words = (str(self.stage.port), self.key, str(journal), str(first))
        with (self.stage.home / "nodes.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.fault.lease_node", *words],
                env=self.stage.environment(), stdout=log, stderr=log,
            )  # fmt: skip

    def _first_open(self) -> int:
        """Return the customer that the nodes are at: an earlier one is full or blocked."""
        seen = self.through()
        return max((int(name[-2:]) for name in seen), default=0)

    def kill(self, place: int) -> None:
        """Kill -9 a node with whatever it holds, and start another."""
        self.nodes[place].kill()
        self.nodes[place].wait()
        self.nodes[place] = self._start()

    def stop(self) -> None:
        """Let the nodes settle, and wait for them."""
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.wait(timeout=60)

    def through(self) -> Counter[str]:
        """Return what was let through by customer, from the journals."""
        lines = (path.read_text().split() for path in self.journals if path.exists())
        return Counter(name for journal in lines for name in journal)


def prepare(stage: Stage, now: datetime) -> str:
    migrate.upgrade(stage.dsn)
    with Database(stage.dsn) as database, database.transaction() as tx:
        catalog.apply(tx, CATALOG, now=now)
        ids = customers.create_many(tx, [f"pool-{n:02d}" for n in range(CUSTOMERS)], now=now)
        subscriptions.create_many(
            tx, customer_ids=sorted(ids.values()), plan_key="pool", start=now, now=now
        )
    key: str = stage.command("apikey", "create", "fault", "--scope", "quota:write")["key"]
    return key


@pytest.fixture(scope="module")
def left(seed: int, figures: list[str]) -> Left:
    """What is left after the storm: it rages once, every test judges the same one."""
    chance, found = Random(f"leases-{seed}"), Left()
    with built() as stage:
        pool = _Pool(stage, prepare(stage, real_now()))
        stage.serve(2)
        acts = [partial(pool.kill, n % NODES) for n in range(NODE_KILLS)]
        acts += [partial(_restart_server, stage)] * SERVER_KILLS
        acts += [partial(_restart_postgres, stage)] * POSTGRES_KILLS
        chance.shuffle(acts)
        try:
            for act in acts:
                time.sleep(chance.uniform(0.1, 0.7))
                act()
            time.sleep(2)
        finally:
            pool.stop()
            stage.stop_server()
        found.through = pool.through()
        _read(stage, found)
        found.verified = stage.command("verify")
        figures.append(
            f"leases: {NODE_KILLS} node kills, {SERVER_KILLS} server kills, "
            f"{POSTGRES_KILLS} postgres kills, {found.through.total():,} let through, "
            f"{sum(found.used.values()):,.0f} reported, {found.states}"
        )
    return found


def _restart_server(stage: Stage) -> None:
    stage.kill_server()
    stage.serve(2)


def _restart_postgres(stage: Stage) -> None:
    stage.kill_postgres()
    stage.start_postgres()


def _read(stage: Stage, found: Left) -> None:
    with stage.connected() as connection:
        for name, used, reserved in connection.execute("""
            SELECT customer_key, used, reserved FROM usage_total JOIN customer USING (customer_id)
            WHERE dimensions = ''"""):
            found.used[name], found.reserved[name] = used, reserved
        found.states = dict(
            connection.execute("SELECT state, count(*) FROM lease GROUP BY 1 ORDER BY 1").fetchall()
        )


def test_the_storm_pressed_on_full_quotas_and_left_dead_nodes(left: Left) -> None:
    full = [name for name, used in left.used.items() if used + left.reserved[name] == LIMIT]
    assert full
    assert left.through.total() > 10 * NODE_KILLS
    assert left.states.get("open", 0) > NODE_KILLS / 10, "dead nodes leave leases open"
    assert left.states.get("settled", 0) > 0


def test_no_more_was_let_through_than_the_limit(left: Left) -> None:
    over = {name: count for name, count in left.through.items() if count > LIMIT}
    assert over == {}


def test_the_server_never_promised_more_than_the_limit(left: Left) -> None:
    over = [name for name, used in left.used.items() if used + left.reserved[name] > LIMIT]
    assert over == []


def test_what_dead_nodes_did_not_report_is_still_blocked(left: Left) -> None:
    unblocked = [
        name
        for name, count in left.through.items()
        if count - left.used[name] > left.reserved[name]
    ]
    assert unblocked == []


def test_nothing_is_counted_that_no_node_let_through(left: Left) -> None:
    assert [name for name, used in left.used.items() if used > left.through[name]] == []


def test_verify_finds_no_difference(left: Left) -> None:
    assert left.verified["ok"] is True
