"""Owners of a spool die by kill -9 while the server comes and goes: nothing lost, nothing twice."""

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.infra.ids import parse_typeid
from convergio.subscriptions import actions as subscriptions
from convergio_client import Convergio
from tests.fault import stage
from tests.fault.spooler import LEASE_SECONDS
from tests.fault.storm import prepare

KILLS = stage.kills(120)
OWNERS = 2
CUSTOMER = "spooled"
SERVER_CHANGES_EVERY = 6
FLUSH_SECONDS_MAX = 120.0
START_SECONDS_MAX = 20.0
AT_WORK = 0.85  # of the kills: the others may hit a process that only opens its spool


@dataclass
class Left:
    """What the owners were promised, and what is there when all is calm again."""

    figures: Counter[str] = field(default_factory=Counter)
    promised: dict[str, Decimal] = field(default_factory=dict)
    committed: dict[str, Decimal] = field(default_factory=dict)
    stored: Counter[str] = field(default_factory=Counter)
    settled: dict[str, Decimal | None] = field(default_factory=dict)
    used: Decimal = Decimal(0)
    flushed: bool = False
    rejected: list[str] = field(default_factory=list)
    verified: dict[str, object] = field(default_factory=dict)


@pytest.fixture(scope="module")
def left(seed: int, figures: list[str], tmp_path_factory: pytest.TempPathFactory) -> Left:
    """Rage once; every test judges the same storm."""
    found = Left()
    with stage.built() as built:
        _rage(built, seed, tmp_path_factory.mktemp("spool"), found)
    told = ", ".join(f"{found.figures[name]:,} {name}" for name in sorted(found.figures))
    figures.append(
        f"spool: {told}; {len(found.promised):,} events and {len(found.committed):,} commits"
        f" promised, {found.stored.total():,} events stored"
    )
    return found


def _rage(built: stage.Stage, seed: int, folder: Path, found: Left) -> None:
    chance = Random(f"spool-{seed}")
    key = prepare(built, stage.real_now())
    _subscribe(built)
    url, spool = f"http://127.0.0.1:{built.port}", folder / "spool"
    words = [url, key, str(spool), str(folder), CUSTOMER]
    owners = [_Owner(words, f"{seed}-{n}") for n in range(OWNERS)]
    up = False
    for number in range(KILLS):
        if number % SERVER_CHANGES_EVERY == 0:
            if up:
                built.kill_server()
            else:
                built.serve(1)
            up = not up
            found.figures["server changes"] += 1
        place = chance.randrange(OWNERS)
        if chance.random() < AT_WORK:
            owners[place].await_work()
        time.sleep(chance.uniform(0.0, 0.5))
        owners[place].kill()
        found.figures["owners killed"] += 1
        owners[place] = _Owner(words, f"{seed}-{OWNERS + number}")
    for owner in owners:
        owner.kill()
        found.figures["owners killed"] += 1
    if not up:
        built.serve(1)
    time.sleep(LEASE_SECONDS)
    with Convergio(url, key, source="fault", spool=spool) as heir:
        found.figures["rows left in the spool"] = heir.backlog().waiting
        found.flushed = heir.flush(FLUSH_SECONDS_MAX)
        found.rejected = [f"{one.kind} {one.target} {one.reason}" for one in heir.rejected()]
    built.stop_server()
    _read(built, folder, found)
    found.verified = built.command("verify")


def _subscribe(built: stage.Stage) -> None:
    """Make the customer, on a plan whose quota refuses nothing."""
    now = stage.real_now()
    with Database(built.dsn) as database, database.transaction() as tx:
        made = customers.create_many(tx, [CUSTOMER], now=now)
        subscriptions.create_many(
            tx, customer_ids=list(made.values()), plan_key="pro", start=now, now=now
        )


class _Owner:
    """A process that tracks, with a journal of its own."""

    def __init__(self, words: list[str], seed: str) -> None:
        url, key, spool, folder, customer = words
        self._journal = Path(folder) / f"journal-{seed}"
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.fault.spooler",
                url, key, spool, str(self._journal), customer, seed,
            ],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def await_work(self) -> None:
        """Wait until something was promised, or it takes too long."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._journal.exists() or not self._journal.stat().st_size:
            assert self._process.poll() is None, f"the owner ended: {self._process.returncode}"
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait()


def _read(built: stage.Stage, folder: Path, found: Left) -> None:
    journals = [file.read_text().splitlines() for file in folder.glob("journal-*")]
    for line in (line for lines in journals for line in lines):
        kind, name, quantity = line.split()
        if kind == "event":
            found.promised[name] = Decimal(quantity)
        elif kind == "commit":
            found.committed[str(parse_typeid("rsv", name))] = Decimal(quantity)
        else:
            found.figures[f"times {kind}"] += 1
    with built.connected() as connection:
        found.stored = Counter(
            name
            for (name,) in connection.execute(
                "SELECT event_id FROM usage_event WHERE source = 'fault'"
            )
        )
        found.settled = {
            str(row[0]): row[1]
            for row in connection.execute("SELECT reservation_id, settled FROM reservation")
        }
        found.used = connection.execute("""
            SELECT sum(used) FROM usage_total JOIN customer USING (customer_id)
            WHERE customer_key = 'spooled' AND dimensions = ''
              AND meter_id = (SELECT meter_id FROM meter WHERE meter_key = 'questions')
            """).fetchone()[0]  # type: ignore[index]  # sum() has a row


def test_the_storm_was_one(left: Left) -> None:
    assert left.figures["owners killed"] >= KILLS
    assert left.figures["server changes"] >= KILLS // SERVER_CHANGES_EVERY
    assert len(left.promised) > 15 * KILLS
    assert len(left.committed) > KILLS / 12
    assert left.figures["times unavailable"] > KILLS / 12


def test_everything_reaches_the_server_in_the_end(left: Left) -> None:
    assert left.flushed
    assert left.rejected == []


def test_no_event_that_track_returned_for_is_lost_or_doubled(left: Left) -> None:
    assert {name: left.stored[name] for name in left.promised} == dict.fromkeys(left.promised, 1)
    assert set(left.stored.values()) == {1}


def test_at_most_one_event_an_owner_is_stored_without_its_promise(left: Left) -> None:
    """It was durable, and the owner died before it could write that down."""
    assert len(left.stored.keys() - left.promised.keys()) <= left.figures["owners killed"]


def test_every_commit_that_returned_is_settled_as_it_said(left: Left) -> None:
    assert {name: left.settled[name] for name in left.committed} == left.committed


def test_the_total_is_what_was_stored_and_committed(left: Left) -> None:
    unknown = left.stored.keys() - left.promised.keys()
    settled = sum((n for n in left.settled.values() if n is not None), Decimal(0))
    known = sum(left.promised.values(), Decimal(0)) + settled
    assert known <= left.used <= known + len(unknown) * Decimal("3.000000001")


def test_verify_finds_no_difference(left: Left) -> None:
    assert left.verified["ok"] is True
