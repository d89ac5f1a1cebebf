"""The works that the bench times in its own process: COPY, ingest, the naive way, rating, billing.

A yardstick and what it measures run in turns on one database, so that whatever slows the machine
for a while slows both. Each function does one repetition and returns how many a second.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from convergio import wiring
from convergio.billing.reporting import Report
from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.entitlements.model import Allowed, Ask
from convergio.infra import sql
from convergio.infra.clock import stopwatch
from convergio.infra.db import Database
from convergio.kernel.errors import require
from convergio.metering import intake, rules
from convergio.metering.model import Event
from convergio.rating.model import Graduated, Tier
from convergio.rating.rules import rate
from convergio.simulation.bench_events import START, Usage, events
from convergio.subscriptions import actions as subscriptions
from convergio.wiring import App
from convergio_client.lease import Slice

BATCH: Final = 5_000
CALLERS: Final = 64
_CONNECTIONS: Final = 8
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_YARDSTICKS: Final = sql.load(Path(__file__).with_name("yardsticks.sql"))


def prepare(database: Database) -> None:
    """Make the tables that stand beside the product's own."""
    with database.transaction() as tx:
        for name in ("make_bare", "make_naive", "index_naive"):
            tx.run(_YARDSTICKS[name])


def subscribe(app: App, keys: Iterable[str], *, start: datetime = START) -> None:
    """Make customers on a plan with a fee and overage, since before their first event."""
    now = app.clock.now()
    with app.database.transaction() as tx:
        found = customers.create_many(tx, list(keys), now=now)
        ids = sorted(found.values())
        subscriptions.create_many(tx, customer_ids=ids, plan_key="pro", start=start, now=now)


def timed(work: Callable[[], object], amount: int) -> float:
    """Return how many a second."""
    begin = stopwatch()
    work()
    return amount / (stopwatch() - begin)


def split(made: Sequence[Event], size: int) -> list[Sequence[Event]]:
    """Return batches."""
    return [made[at : at + size] for at in range(0, len(made), size)]


def ingest(app: App, made: Sequence[Event], *, threads: int) -> float:
    """Count decoded events, batch after batch, every one of them new."""

    def count(batch: Sequence[Event]) -> None:
        verdicts = app.ingestor.ingest(batch, now=app.clock.now(), importing=True)
        require(all(v.status == "accepted" for v in verdicts), "the bench sends new events")

    with ThreadPoolExecutor(threads) as pool:
        return timed(lambda: list(pool.map(count, split(made, BATCH))), len(made))


def rows_of(app: App, made: Sequence[Event]) -> list[bytes]:
    """Return the COPY data of each batch of `ingest`, prepared by the same pure loop."""
    now = app.clock.now()
    with app.database.transaction() as tx:
        types = intake.event_types(catalog.current(tx))
        ids = customers.ids_by_key(tx, {event.subject for event in made})
    known = {key: intake.Customer(customer_id) for key, customer_id in ids.items()}
    oldest = rules.microseconds(START)
    batches = [
        intake.prepare(batch, types, known, now=rules.microseconds(now), oldest=oldest)
        for batch in split(made, BATCH)
    ]
    require(sum(len(b.rows) for b in batches) == len(made), "the yardstick loads every event")
    return [b"".join((_SIGNATURE, *(row.data for row in b.rows), _TRAILER)) for b in batches]


def copy(database: Database, data: Sequence[bytes], amount: int, *, anew: bool = False) -> float:
    """Load what `ingest` would load, in the same batches and transactions, with nothing around.

    With `anew` the table is emptied before.
    """
    if anew:
        with database.transaction() as tx:
            tx.run(_YARDSTICKS["empty_bare"])

    def load() -> None:
        for each in data:
            with database.transaction() as tx:
                tx.copy_bytes(_YARDSTICKS["copy_bare"], each)

    return timed(load, amount)


class Naive:
    """INSERT an event, SUM the history for every check: the usual first design, and ours beside."""

    def __init__(self, app: App, *, size: int, history: int, tag: str = "") -> None:
        """Give some customers the same long history in both designs; `tag` makes them new ones."""
        self._app = app
        keys = [f"history-{tag}{place:03d}" for place in range(size)]
        subscribe(app, keys)
        with app.database.transaction() as tx:
            tx.run(_YARDSTICKS["empty_naive"])
            self._ids = customers.ids_by_key(tx, keys)
            for customer_id in self._ids.values():
                tx.run(
                    _YARDSTICKS["fill_naive"], customer_id=customer_id, since=START, events=history
                )
            tx.run(_YARDSTICKS["analyze_naive"])
        self._usage = [
            Usage(key, START + timedelta(seconds=place), {})
            for place in range(history)
            for key in keys
        ]
        for batch in split(events(self._usage, f"history{tag}"), BATCH):
            app.ingestor.ingest(batch, now=app.clock.now(), importing=True)

    def naive(self, checks: int) -> float:
        """Check and count one event after the other, on several connections."""
        ids = list(self._ids.values())

        def one(place: int) -> None:
            customer_id = ids[place % len(ids)]
            with self._app.database.transaction() as tx:
                tx.value(_YARDSTICKS["sum_naive"], customer_id=customer_id, since=START)
                tx.run(
                    _YARDSTICKS["insert_naive"],
                    customer_id=customer_id,
                    occurred_at=self._app.clock.now(),
                )

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return timed(lambda: list(pool.map(one, range(checks))), checks)

    def counted(self, checks: int, tag: str) -> float:
        """Count events; the number that a check reads is right at any time."""
        return ingest(self._app, self._events(checks, tag), threads=2)

    def _events(self, count: int, tag: str) -> list[Event]:
        now = self._app.clock.now()
        some = islice(cycle(self._usage), count)
        return events([Usage(one.subject, now, {}) for one in some], tag)

    def asked(self, checks: int, tag: str) -> float:
        """Ask and count, `CALLERS` events at a time, as a server's batches would be."""
        made = split(self._events(checks, tag), CALLERS)

        def work() -> None:
            for batch in made:
                now = self._app.clock.now()
                asks = [Ask(event.subject, "questions", Decimal(1)) for event in batch]
                answers = self._app.gate.authorize(asks, now=now)
                require(all(isinstance(a, Allowed) for a in answers), "pro has no hard limit")
                self._app.ingestor.ingest(batch, now=now, importing=True)

        return timed(work, checks)


CHARGE: Final = Graduated(
    tiers=(
        Tier(up_to="1000", unit="0.01", flat="5"),
        Tier(up_to="10000", unit="0.008"),
        Tier(up_to=None, unit="0.005"),
    ),
    included="100",
)


def lease(decisions: int) -> float:
    """Decide in-process by a lease: take, then count."""
    one = Slice(decisions, until=float("inf"))

    def work() -> None:
        for _ in range(decisions):
            require(one.take(), "the slice is as large as the work")
            one.done()

    return timed(work, decisions)


def rating(charges: int) -> float:
    """Rate a graduated charge of three tiers at many quantities."""
    quantities = [Decimal(place * 7 % 40_000) for place in range(charges)]
    return timed(
        lambda: [rate(CHARGE, quantity, currency="usd") for quantity in quantities], charges
    )


def bill(app: App, as_of: datetime) -> tuple[float, Report]:
    """Bill what is owed at an instant; return invoices a second and the report."""
    begin = stopwatch()
    report = wiring.bill(app, as_of=as_of, now=as_of)
    return report.invoices / (stopwatch() - begin), report
