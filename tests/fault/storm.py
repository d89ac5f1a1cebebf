"""A storm: load on a stage, a hundred disasters of one kind, then calm; tests judge what is left.

Now and then the load rests for a moment, and everything is judged in between: a later disaster
must not hide what an earlier one did.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra import migrate
from convergio.infra.db import Database
from convergio.subscriptions import actions as subscriptions
from tests.fault.cutter import SIDES, Cutter
from tests.fault.load import Asker, Client, Journal, Sender
from tests.fault.stage import Stage, alive, kills, real_now

KILLS = kills(100)
REST_EVERY = 20
UNDER_LOAD = 60  # so many answers since the last disaster make it load again
AIM_SECONDS_MAX = 0.4
RECOVERY_SECONDS_MAX = 60.0
SENDERS = 6
ASKERS = 3
LIMITED = 2_000
LIMIT = Decimal(50)  # the free plan of the example catalog
DENIALS_BEFORE_NEXT = 4


@dataclass
class Facts:
    """What the database holds at one moment."""

    stored: Counter[tuple[str, str]] = field(default_factory=Counter)
    used: dict[str, Decimal] = field(default_factory=dict)
    limited: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)
    reservations: dict[str, tuple[str, Decimal, Decimal | None]] = field(default_factory=dict)


@dataclass
class Outcome:
    """What the clients were promised, and what the database holds when all is calm again."""

    journal: Journal
    facts: Facts = field(default_factory=Facts)
    rests: list[list[str]] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)
    verified: dict[str, object] = field(default_factory=dict)


Disaster = Callable[[Random, Outcome], None]


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
    """Let load run while things of one kind happen; return what is left."""
    chance = Random(f"{kind}-{seed}")
    key = prepare(stage, real_now())
    stop = threading.Event()
    clients = _clients(stage, key, f"{kind}-{seed}", stop)
    outcome = Outcome(Journal())
    with _disaster(stage, kind) as disaster:
        stage.serve(2)
        for client in clients:
            client.start()
        try:
            for number in range(KILLS * (len(SIDES) if kind == "commit" else 1)):
                _wait_for_load(clients)
                time.sleep(chance.uniform(0.0, AIM_SECONDS_MAX) if kind != "commit" else 0)
                disaster(chance, outcome)
                if number % REST_EVERY == REST_EVERY - 1:
                    outcome.rests.append(_rest(stage, clients))
            _wait_for_load(clients)
        finally:
            stop.set()
            for client in clients:
                client.join(timeout=180)
        stage.stop_server()
    for client in clients:
        outcome.journal.add(client.journal)
        if client.is_alive():
            outcome.journal.problems.append(f"{client.name} hangs")
    outcome.facts = read(stage)
    outcome.verified = stage.command("verify")
    return outcome


def _wait_for_load(clients: list[Client]) -> None:
    """Wait until the product works again and clients have had answers."""

    def answered() -> int:
        return sum(client.journal.figures["answered"] for client in clients)

    begin, deadline = answered(), time.monotonic() + RECOVERY_SECONDS_MAX
    while answered() < begin + UNDER_LOAD:
        assert time.monotonic() < deadline, "the product does not recover"
        time.sleep(0.005)


def _rest(stage: Stage, clients: list[Client]) -> list[str]:
    """Let every client finish what it does, judge, and let them go on; return what is wrong."""
    with ExitStack() as held:
        for client in clients:
            held.enter_context(client.turn)
        journal = Journal()
        for client in clients:
            journal.add(client.journal)
        wrong = judged(journal, read(stage))
        if stage.command("verify")["ok"] is not True:
            wrong.append("verify found a difference")
        return wrong


def judged(journal: Journal, facts: Facts) -> list[str]:
    """Compare what was acknowledged, what is stored and what the totals say: exactly equal."""
    wrong = [f"{one} is stored {n} times" for one, n in facts.stored.items() if n != 1]
    wrong += [f"{one} is lost" for one in journal.acknowledged - facts.stored.keys()]
    wrong += [f"{one} was never sent" for one in facts.stored.keys() - journal.sent.keys()]
    expected: Counter[str] = Counter()
    for one in facts.stored.keys() & journal.sent.keys():
        expected[one[0]] += journal.sent[one]  # type: ignore[assignment]  # it counts Decimals
    metered = {name: used for name, used in facts.used.items() if name.startswith("metered-")}
    wrong += [
        f"{name}: {metered.get(name)} counted, {expected.get(name)} stored"
        for name in metered.keys() | expected.keys()
        if metered.get(name) != expected.get(name)
    ]
    wrong += [f"{name} is oversold" for name, used, held in facts.limited if used + held > LIMIT]
    settled = sum((row[2] or Decimal(0) for row in facts.reservations.values()), Decimal(0))
    used = sum((row[1] for row in facts.limited), Decimal(0))
    return wrong + ([f"{used} used, {settled} committed"] if used != settled else [])


def _clients(stage: Stage, key: str, seed: str, stop: threading.Event) -> list[Client]:
    Sender.customers = [f"metered-{n}" for n in range(60)]
    Asker.current = staticmethod(_Queue().current)
    classes: list[type[Client]] = [*[Sender] * SENDERS, *[Asker] * ASKERS]
    return [one(stage.port, key, f"{seed}-{place}", stop) for place, one in enumerate(classes)]


@contextmanager
def _disaster(stage: Stage, kind: str) -> Iterator[Disaster]:
    """Make ready for disasters of a kind, and return how to bring one about."""
    if kind != "commit":
        yield partial(_server_disaster if kind == "server" else _postgres_disaster, stage)
        return
    real = stage.embedded.socket / ".s.PGSQL.5432"
    with TemporaryDirectory(prefix="cut-") as folder:
        cutter = Cutter(Path(folder), real)
        stage.through = Path(folder)
        try:
            yield partial(_cut, cutter)
        finally:
            stage.through = None
            cutter.close()


def _server_disaster(stage: Stage, chance: Random, outcome: Outcome) -> None:
    """Kill the whole server; one time in four a single worker of it first."""
    if chance.random() < 0.25 and stage.kill_worker(chance.random()):
        outcome.journal.figures["worker kills"] += 1
        time.sleep(chance.uniform(0.0, 0.5))
    stage.kill_server()
    outcome.journal.figures["server kills"] += 1
    stage.serve(chance.choice([1, 2]))


def _postgres_disaster(stage: Stage, chance: Random, outcome: Outcome) -> None:
    """Kill the database's first process; one time in four a session of it first."""
    if chance.random() < 0.25 and stage.kill_backend(chance.random()):
        outcome.journal.figures["session kills"] += 1
        time.sleep(chance.uniform(0.0, 0.5))
    family = stage.kill_postgres()
    outcome.journal.figures["postgres kills"] += 1
    time.sleep(chance.choice([0.0, 0.0, 0.2]))
    stage.start_postgres()
    outcome.survivors += [pid for pid in family if alive(pid)]


def _cut(cutter: Cutter, chance: Random, outcome: Outcome) -> None:
    """Lose a connection at its COMMIT, and wait until it happened."""
    before, deadline = cutter.total, time.monotonic() + RECOVERY_SECONDS_MAX
    cutter.arm(SIDES[before % len(SIDES)])
    while cutter.total == before:
        assert time.monotonic() < deadline, "nothing is committed any more"
        time.sleep(chance.uniform(0.0, 0.01))
    figures = outcome.journal.figures
    for name, count in cutter.cuts.items():
        figures[f"cuts {name}"] = count
    figures["commit kills"] = min(cutter.cuts[side] for side in SIDES)


def read(stage: Stage) -> Facts:
    """Read everything that the tests judge, as of one moment."""
    with stage.connected() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        run = connection.execute
        stored = run("""
            SELECT customer_key, event_id FROM usage_event JOIN customer USING (customer_id)
            WHERE source = 'fault'""").fetchall()
        used = run("""
            SELECT customer_key, sum(used) FROM usage_total JOIN customer USING (customer_id)
            WHERE meter_id = (SELECT meter_id FROM meter WHERE meter_key = 'questions')
            GROUP BY 1""").fetchall()
        limited = run("""
            SELECT customer_key, used, reserved FROM usage_total JOIN customer USING (customer_id)
            WHERE quota_limit IS NOT NULL AND used + reserved > 0""").fetchall()
        held = run("SELECT reservation_id, state, quantity, settled FROM reservation").fetchall()
    return Facts(
        stored=Counter(stored),
        used=dict(used),
        limited=limited,
        reservations={str(row[0]): (row[1], row[2], row[3]) for row in held},
    )
