"""The hot path: count events with a process's caches.

A stale cache can only cost a second try, never a wrong count, because every write names the
version of the window that it was prepared for.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.customers import actions as customer_actions
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Unavailable, require
from convergio.metering import intake, rules, store
from convergio.metering.actions import FROM_EVER, ensure_windows
from convergio.metering.errors import WindowsChanged
from convergio.metering.model import ACCEPTED, CONFLICT, DUPLICATE, Event, Verdict

_TRIES: Final = 8
_CUSTOMERS_MAX: Final = 200_000
_CATALOG_SECONDS_MAX: Final = 1


class Ingestor:
    """Count events with a process's caches. Safe to call from several threads."""

    def __init__(self, database: Database, *, back: timedelta | None = timedelta(days=35)) -> None:
        """Start with empty caches; `back` is how late an event may be without usage:import."""
        self._database = database
        self._back = back
        self._customers: dict[str, intake.Customer | None] = {}
        self._types: dict[str, intake.EventType] = {}
        self._meters: dict[str, rules.MeterPlan] = {}
        self._catalog_version = -1
        self._catalog_seen: datetime | None = None
        self._expect_duplicates = False
        self._missing: set[str] = set()

    def ingest(
        self,
        events: Sequence[Event],
        *,
        now: datetime,
        importing: bool = False,
        first: Callable[[Tx], None] | None = None,
    ) -> list[Verdict]:
        """Count a batch in one transaction and return a verdict for each event, in order.

        Durable when it returns. `importing` lifts the limit on late events. `first` runs at the
        start of the same transaction, perhaps twice when the first one is given up. Raises:
        Unavailable when the database is not there; the same events may be sent again.
        """
        self._refresh_catalog(events, now=now)
        moment = rules.microseconds(now)
        back = None if importing else self._back
        oldest = rules.microseconds(FROM_EVER if back is None else now - back)
        for _ in range(_TRIES):
            batch = intake.prepare(events, self._types, self._customers, now=moment, oldest=oldest)
            if batch.unknown or batch.unopened:
                self._load(batch)
                continue
            try:
                return self._count(events, batch, now=now, first=first)
            except WindowsChanged as changed:
                self.forget(changed.customers)
        raise Unavailable("plans change faster than this batch can be counted", code="contended")

    def windows(
        self, wanted: Sequence[tuple[str, str]], *, now: datetime
    ) -> list[intake.Window | None]:
        """Return the open window of each (customer key, meter key), opened if need be.

        None where there is no such customer or meter.
        """
        self._refresh_catalog((), now=now)
        moment = rules.microseconds(now)
        for _ in range(_TRIES):
            found: list[intake.Window | None] = []
            unopened, unknown = [], set()
            for customer_key, meter_key in wanted:
                customer, meter = self._customers.get(customer_key), self._meters.get(meter_key)
                window = None
                if customer_key not in self._customers:
                    unknown.add(customer_key)
                elif customer is not None and meter is not None:
                    window = customer.window(meter.meter_id, moment)
                    if window is None:
                        unopened.append((customer, meter, moment))
                found.append(window)
            if not unknown and not unopened:
                break
            self._load(intake.Prepared([], [], [], unknown, unopened))
        self._forget_missing()
        return found

    def knows_meter(self, meter_key: str) -> bool:
        """Say whether the catalog, as last read, has the meter."""
        return meter_key in self._meters

    def customer(self, customer_key: str, *, now: datetime) -> UUID | None:
        """Return a customer's id by key, or None."""
        self._refresh_catalog((), now=now)
        if customer_key not in self._customers:
            self._load(intake.Prepared([], [], [], {customer_key}, []))
        found = self._customers.get(customer_key)
        self._forget_missing()
        return found.customer_id if found else None

    def forget(self, customers: Iterable[intake.Customer]) -> None:
        """Drop cached windows that turned out to be stale."""
        for customer in customers:
            customer.windows.clear()

    def _refresh_catalog(self, events: Sequence[Event], *, now: datetime) -> None:
        """Follow the catalog: at most a second behind, at once for a type not known yet."""
        seen = self._catalog_seen
        fresh = seen is not None and abs((now - seen).total_seconds()) < _CATALOG_SECONDS_MAX
        if fresh and all(event.type in self._types for event in events):
            return
        with self._database.transaction() as tx:
            catalog = catalog_actions.current(tx)
        self._catalog_seen = now
        if catalog.version != self._catalog_version:
            self._types = intake.event_types(catalog)
            self._meters = {m.key: m for kind in self._types.values() for m in kind.meters}
            self._catalog_version = catalog.version

    def _load(self, batch: intake.Prepared) -> None:
        """Read customers and windows into the cache; open windows that do not exist."""
        if len(self._customers) > _CUSTOMERS_MAX:
            self._customers.clear()
        with self._database.transaction() as tx:
            if batch.unknown:
                found = customer_actions.ids_by_key(tx, sorted(batch.unknown))
                for key in batch.unknown:
                    known = found.get(key)
                    self._customers[key] = intake.Customer(known) if known else None
                    if not known:
                        self._missing.add(key)
            rows = ensure_windows(
                tx,
                [
                    (customer.customer_id, meter.meter_id, meter.key, rules.instant(moment))
                    for customer, meter, moment in batch.unopened
                ],
            )
        by_id = {customer.customer_id: customer for customer, _, _ in batch.unopened}
        for row in rows:
            customer = by_id[row.customer_id]
            start, end = rules.microseconds(row.start_at), rules.microseconds(row.end_at)
            customer.add(intake.Window(customer, row.meter_id, start, end, row.version))

    def _count(
        self,
        events: Sequence[Event],
        batch: intake.Prepared,
        *,
        now: datetime,
        first: Callable[[Tx], None] | None,
    ) -> list[Verdict]:
        """Store the rows and move the totals in one transaction."""
        self._forget_missing()
        verdicts = batch.verdicts
        if not batch.rows:
            return _with_repeats(events, verdicts, batch.repeats)
        if not self._expect_duplicates:
            try:
                with self._database.transaction() as tx:
                    if first:
                        first(tx)
                    store.copy_events(tx, [row.data for row in batch.rows])
                    _add(tx, batch.rows)
            except store.HasDuplicates:
                pass
            else:
                for row in batch.rows:
                    verdicts[row.place] = ACCEPTED
                return _with_repeats(events, verdicts, batch.repeats)
        with self._database.transaction() as tx:
            if first:
                first(tx)
            repeated = _insert_apart(tx, events, batch.rows, verdicts, now=now)
        self._expect_duplicates = repeated
        return _with_repeats(events, verdicts, batch.repeats)

    def _forget_missing(self) -> None:
        """Let a customer that was not there be looked up again next time."""
        while self._missing:
            key = self._missing.pop()
            if self._customers.get(key, key) is None:
                del self._customers[key]


def _add(tx: Tx, rows: Sequence[intake.Row]) -> None:
    """Move the totals by what the rows add, in the order of the primary key."""
    sums: dict[intake.Window, int] = {}
    for row in rows:
        for window, quantity in row.adds:
            sums[window] = sums.get(window, 0) + quantity
    ordered = sorted(sums, key=lambda w: (w.customer.raw, w.meter_id, w.start))
    values = [
        (
            window.customer.customer_id,
            window.meter_id,
            rules.instant(window.start),
            rules.instant(window.end),
            window.version,
            rules.nanos_text(sums[window]),
        )
        for window in ordered
    ]
    if store.add_to_totals(tx, values) != len(values):
        raise WindowsChanged(window.customer for window in ordered)


def _insert_apart(
    tx: Tx,
    events: Sequence[Event],
    rows: Sequence[intake.Row],
    verdicts: list[Verdict | None],
    *,
    now: datetime,
) -> bool:
    """Insert a batch that may hold duplicates; say whether it did."""
    values = [intake.row_values(events[row.place], row, now=now) for row in rows]
    fresh = store.insert_new_events(tx, values)
    added = [row for row, value in zip(rows, values, strict=True) if (value[0], value[1]) in fresh]
    _add(tx, added)
    for row in added:
        verdicts[row.place] = ACCEPTED
    old = [
        (row, value)
        for row, value in zip(rows, values, strict=True)
        if (value[0], value[1]) not in fresh
    ]
    compared = store.compare_events(
        tx,
        [
            (v[0], v[1], v[2], v[3] if events[row.place].time is not None else None, v[5])
            for row, v in old
        ],
    )
    for row, value in old:
        same = compared.get((value[0], value[1]), False)
        verdicts[row.place] = DUPLICATE if same else CONFLICT
    return bool(old)


def _with_repeats(
    events: Sequence[Event], verdicts: list[Verdict | None], repeats: Sequence[tuple[int, int]]
) -> list[Verdict]:
    """Judge events that came twice in one batch by the first of them."""
    for later, first in repeats:
        one, two = events[later], events[first]
        same = (one.type, one.time, one.data) == (two.type, two.time, two.data)
        verdicts[later] = DUPLICATE if same else CONFLICT
    done = [verdict for verdict in verdicts if verdict is not None]
    require(len(done) == len(events), "every event has a verdict")
    return done
