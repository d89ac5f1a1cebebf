"""Stream a trace through the ingest path, in this process or over HTTP.

One batch is read, counted and committed after the other, so memory stays flat. Event ids come from
the file: a replay that was stopped is simply run again, and what was counted is a duplicate then.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, Protocol, TypeVar

from convergio.customers import actions as customers
from convergio.infra.clock import pause
from convergio.kernel.errors import Conflict, Unavailable
from convergio.metering.model import Event, Verdict
from convergio.simulation.mapping import Unmappable
from convergio.simulation.rejects import Rejects
from convergio.simulation.traces import Row
from convergio.subscriptions import actions as subscriptions
from convergio.wiring import App

BATCH_SIZE: Final = 5_000
_KNOWN_MAX: Final = 200_000
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 0.5
T = TypeVar("T")


class Target(Protocol):
    """Where events are counted: this process, or a server."""

    batch_size: int

    def count(self, events: Sequence[Event]) -> list[Verdict]:
        """Return a verdict for each event, in order. Raises: Unavailable after some tries."""
        ...


@dataclass(slots=True)
class Tally:
    """What became of the rows so far."""

    rows: int = 0
    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    rejected: int = 0
    unmapped: int = 0
    before_start: int = 0


@dataclass(frozen=True, slots=True)
class Newcomers:
    """How customers whom nobody knows yet are put on a plan."""

    plan_key: str
    start: datetime
    time_zone: str
    currency: str


class InProcess:
    """Count events with this process's ingest; old times pass, as with the scope usage:import."""

    batch_size = BATCH_SIZE

    def __init__(self, product: App, newcomers: Newcomers | None = None) -> None:
        """Make unknown customers first where `newcomers` says how."""
        self.created = 0
        self._product = product
        self._newcomers = newcomers
        self._known: set[str] = set()

    def count(self, events: Sequence[Event]) -> list[Verdict]:
        """Count a batch in one transaction, after its unknown customers were made in another."""
        if not events:
            return []
        if self._newcomers is not None:
            self._welcome({event.subject for event in events}, self._newcomers)
        return _patiently(
            lambda: self._product.ingestor.ingest(
                events, now=self._product.clock.now(), importing=True
            )
        )

    def _welcome(self, keys: set[str], plan: Newcomers) -> None:
        """Make and subscribe the customers that do not exist, in one transaction."""
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        unseen = keys - self._known
        if unseen:
            self.created += _patiently(lambda: self._subscribe(unseen, plan))
            self._known |= unseen

    def _subscribe(self, keys: set[str], plan: Newcomers) -> int:
        now = self._product.clock.now()
        with self._product.database.transaction() as tx:
            new = keys - customers.ids_by_key(tx, keys).keys()
            made = customers.create_many(tx, sorted(new), now=now, currency=plan.currency)
            try:
                subscriptions.create_many(
                    tx,
                    customer_ids=list(made.values()),
                    plan_key=plan.plan_key,
                    start=plan.start,
                    now=now,
                    time_zone=plan.time_zone,
                )
            except Conflict as error:
                raise Unavailable("another replay makes the same customers; try again") from error
        return len(made)


def replay(
    rows: Iterable[Row],
    to_event: Callable[[Row], Event],
    target: Target,
    *,
    rejects: Rejects,
    tally: Tally,
    start: datetime | None = None,
    progress: Callable[[int], None],
) -> None:
    """Send every row to the target, counting in `tally` what became of it.

    `tally` is right also after an exception: it has every batch that was committed. `start` is
    that of new subscriptions, to count the events that lie before it.
    """
    remaining = iter(rows)
    while taken := list(islice(remaining, target.batch_size)):
        sources, events = _mapped(taken, to_event, rejects=rejects, tally=tally)
        verdicts = target.count(events)
        _settle(sources, verdicts, rejects=rejects, tally=tally)
        if start is not None:
            tally.before_start += sum(_before(event, start) for event in events)
        progress(len(taken))


def _mapped(
    rows: Sequence[Row], to_event: Callable[[Row], Event], *, rejects: Rejects, tally: Tally
) -> tuple[list[Row], list[Event]]:
    """Return the rows that become events, and the events; the others are told and passed over."""
    sources: list[Row] = []
    events: list[Event] = []
    for row in rows:
        try:
            events.append(to_event(row))
            sources.append(row)
        except Unmappable as why:
            tally.unmapped += 1
            rejects.add(row, reason=why.reason, field=why.field, detail=why.detail)
    tally.rows += len(rows)
    return sources, events


def _settle(
    rows: Sequence[Row], verdicts: Sequence[Verdict], *, rejects: Rejects, tally: Tally
) -> None:
    """Count what became of the rows."""
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict.status == "accepted":
            tally.accepted += 1
        elif verdict.status == "duplicate":
            tally.duplicate += 1
        else:
            tally.conflict += verdict.status == "conflict"
            tally.rejected += verdict.status != "conflict"
            rejects.add(
                row,
                reason=verdict.reason or verdict.status,
                field=verdict.field or "",
                detail=verdict.detail or "",
            )


def _before(event: Event, start: datetime) -> bool:
    return event.time is not None and event.time < start


def _patiently(attempt: Callable[[], T]) -> T:
    """Try again a few times when nothing was done."""
    for number in range(1, _TRIES):
        try:
            return attempt()
        except Unavailable as error:
            if error.code == "no_disk":
                raise
            pause(_PAUSE_SECONDS * number)
    return attempt()
