"""A storm: load on a stage, twenty kills and more, then calm; what is left is what tests judge."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from random import Random

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra import migrate
from convergio.infra.db import Database
from convergio.subscriptions import actions as subscriptions
from tests.fault.load import Asker, Client, Journal, Sender
from tests.fault.stage import Stage, alive, real_now

KILLS = 20
UNDER_LOAD = 100  # so many acknowledgements since the last disaster make it load again
RECOVERY_SECONDS_MAX = 60.0
SENDERS = 6
ASKERS = 3
LIMITED = 2_000
LIMIT = Decimal(50)  # the free plan of the example catalog
DENIALS_BEFORE_NEXT = 4


@dataclass
class Outcome:
    """What the clients were promised, and what the database holds when all is calm again."""

    journal: Journal
    stored: Counter[tuple[str, str]] = field(default_factory=Counter)
    used: dict[str, Decimal] = field(default_factory=dict)
    limited: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)
    reservations: dict[str, tuple[str, Decimal, Decimal | None]] = field(default_factory=dict)
    survivors: list[int] = field(default_factory=list)
    verified: dict[str, object] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)


def prepare(stage: Stage, now: datetime) -> str:
    """Fill the database with customers and return an API key."""
    migrate.upgrade(stage.dsn)
    with Database(stage.dsn) as database, database.transaction() as tx:
        catalog.ensure_example(tx, now=now)
        customers.create_many(tx, [f"metered-{n}" for n in range(60)], now=now)
        limited = customers.create_many(tx, [f"limited-{n:04d}" for n in range(LIMITED)], now=now)
        subscriptions.create_many(
            tx, customer_ids=sorted(limited.values()), plan_key="free", start=now, now=now
        )
    scopes = ("--scope", "usage:write", "--scope", "quota:write")
    key: str = stage.command("apikey", "create", "fault", *scopes)["key"]
    return key


class _Queue:
    """Which limited customer is asked for now: all askers press on the same one."""

    def __init__(self) -> None:
        self._place = 0
        self._lock = threading.Lock()

    def current(self, denials: int) -> str:
        """Return the customer; one that refused often enough is left behind."""
        with self._lock:
            if denials and denials % DENIALS_BEFORE_NEXT == 0:
                self._place += 1
            return f"limited-{min(self._place, LIMITED - 1):04d}"


def rage(stage: Stage, kind: str, seed: int) -> Outcome:
    """Let load run while things of one kind are killed; return what is left."""
    chance = Random(f"{kind}-{seed}")
    key = prepare(stage, real_now())
    stage.serve(2)
    stop = threading.Event()
    clients = _clients(stage, key, f"{kind}-{seed}", stop)
    for client in clients:
        client.start()
    outcome = Outcome(Journal())
    disaster = _server_disaster if kind == "server" else _postgres_disaster
    try:
        for _ in range(KILLS):
            _wait_for_load(clients)
            time.sleep(chance.uniform(0.0, 1.0))
            disaster(stage, chance, outcome)
        _wait_for_load(clients)
    finally:
        stop.set()
        for client in clients:
            client.join(timeout=180)
    for client in clients:
        outcome.journal.add(client.journal)
        if client.is_alive():
            outcome.journal.problems.append(f"{client.name} hangs")
    stage.stop_server()
    outcome.logs = [log.read_text()[-3000:] for log in stage.log if log.read_text().strip()]
    _read(stage, outcome)
    outcome.verified = stage.command("verify")
    return outcome


def _wait_for_load(clients: list[Client]) -> None:
    """Wait until the product works again and clients have had answers."""

    def answered() -> int:
        return sum(client.journal.figures["answered"] for client in clients)

    begin, deadline = answered(), time.monotonic() + RECOVERY_SECONDS_MAX
    while answered() < begin + UNDER_LOAD:
        assert time.monotonic() < deadline, "the product does not recover"
        time.sleep(0.02)


def _clients(stage: Stage, key: str, seed: str, stop: threading.Event) -> list[Client]:
    Sender.customers = [f"metered-{n}" for n in range(60)]
    Asker.current = staticmethod(_Queue().current)
    kinds: list[type[Client]] = [*[Sender] * SENDERS, *[Asker] * ASKERS]
    return [kind(stage.port, key, f"{seed}-{place}", stop) for place, kind in enumerate(kinds)]


def _server_disaster(stage: Stage, chance: Random, outcome: Outcome) -> None:
    """Kill the whole server; one time in two a single worker of it first."""
    if chance.random() < 0.5 and stage.kill_worker(chance.random()):
        outcome.journal.figures["worker kills"] += 1
        time.sleep(chance.uniform(0.0, 1.0))
    stage.kill_server()
    outcome.journal.figures["server kills"] += 1
    stage.serve(2)


def _postgres_disaster(stage: Stage, chance: Random, outcome: Outcome) -> None:
    """Kill the database's first process; one time in three a session of it first."""
    if chance.random() < 0.33 and stage.kill_backend(chance.random()):
        outcome.journal.figures["session kills"] += 1
        time.sleep(chance.uniform(0.0, 1.0))
    family = stage.kill_postgres()
    outcome.journal.figures["postgres kills"] += 1
    time.sleep(chance.choice([0.0, 0.0, 0.5]))
    stage.start_postgres()
    outcome.survivors += [pid for pid in family if alive(pid)]


def _read(stage: Stage, outcome: Outcome) -> None:
    """Read everything that the tests judge."""
    with stage.connected() as connection:
        run = partial(connection.execute)
        outcome.stored = Counter(
            run("""
                SELECT customer_key, event_id FROM usage_event JOIN customer USING (customer_id)
                WHERE source = 'fault'""").fetchall()
        )
        outcome.used = dict(
            run("""
                SELECT customer_key, sum(used) FROM usage_total JOIN customer USING (customer_id)
                WHERE meter_id = (SELECT meter_id FROM meter WHERE meter_key = 'questions')
                GROUP BY 1""").fetchall()
        )
        outcome.limited = run("""
            SELECT customer_key, used, reserved FROM usage_total JOIN customer USING (customer_id)
            WHERE quota_limit IS NOT NULL AND used + reserved > 0""").fetchall()
        outcome.reservations = {
            str(row[0]): (row[1], row[2], row[3])
            for row in run("SELECT reservation_id, state, quantity, settled FROM reservation")
        }
