"""The hot path: count events with a process's caches.

A stale cache can only cost a second try, never a wrong count, because every write names the
version of the window that it was prepared for.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Catalog, Meter
from convergio.customers import actions as customer_actions
from convergio.infra.db import (
    AlreadyThere,
    Contended,
    Database,
    Overlapping,
    Tx,
    stand_back,
)
from convergio.infra.pipe import Question
from convergio.kernel.errors import Conflict, NotFound, Unavailable, require
from convergio.metering import intake, rules, store, totals
from convergio.metering.corrections import correct, counted_late
from convergio.metering.errors import BoundaryMoved, WindowsChanged
from convergio.metering.model import ACCEPTED, CONFLICT, DUPLICATE, OLDEST, Event, Verdict
from convergio.metering.windows import FROM_EVER, Moment, Opened, ensure_windows

_TRIES: Final = 8
_FEW: Final = 64  # rows: up to here an INSERT that travels with others is quicker than COPY
_CUSTOMERS_MAX: Final = 200_000
_CATALOG_SECONDS_MAX: Final = 1
_SETTLED: Final = 400 * 86_400_000_000  # the retention boundary is never nearer: 18 months

_Known = Mapping[str, intake.Customer | None]


class Ingestor:
    """Count events with a process's caches. Safe to call from several threads."""

    def __init__(self, database: Database, *, back: timedelta | None = timedelta(days=35)) -> None:
        """Start with empty caches; `back` is how late an event may be without usage:import."""
        self._database = database
        self._back = back
        self._customers: dict[str, intake.Customer] = {}
        self._types: dict[str, intake.EventType] = {}
        self._meters: dict[str, rules.MeterPlan] = {}
        self.catalog: Catalog | None = None
        self._catalog_seen: datetime | None = None
        self._accepts_from = rules.microseconds(FROM_EVER)
        self._expect_duplicates = False

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
        start of the same transaction, perhaps twice when the first one is given up; with it a
        conflict undoes all. Raises: Unavailable when the database is not there; the same events
        may be sent again.
        """
        self._refresh_catalog(events, now=now)
        moment = rules.microseconds(now)
        back = None if importing else self._back
        live = rules.microseconds(OLDEST if back is None else max(OLDEST, now - back))
        known: _Known = self._customers
        for tries in range(_TRIES):
            closed = self._accepts_from  # once a try: another thread may follow it meanwhile
            batch = intake.prepare(
                events,
                self._types,
                known,
                now=moment,
                oldest=max(live, closed),
                closed=closed,
            )
            if batch.unknown or batch.unopened:
                known = _without(known, self._load(batch.unknown, batch.unopened, now=now))
                continue
            try:
                is_late = live < moment - _SETTLED
                guards = _guards(batch.rows, moment, closed) if is_late else []
                self._count(events, batch, now=now, first=first, guards=guards)
                self._correct(events, batch, now=now)
                return self._judged(events, batch, now=now)
            except WindowsChanged as changed:
                self.forget(changed.customers)
            except Overlapping:  # a group of a window that is laid otherwise by now
                self.forget(one.customer for row in batch.rows for one, *_ in row.adds)
            except Contended:
                stand_back(tries)
            except BoundaryMoved:
                self._catalog_seen = None
                self._refresh_catalog(events, now=now)
        raise Unavailable("plans change faster than this batch can be counted", code="contended")

    def windows(
        self, wanted: Sequence[tuple[str, str]], *, now: datetime
    ) -> list[intake.Window | None]:
        """Return the open window of each (customer key, meter key), opened if need be.

        None where there is no such customer or meter.
        """
        self._refresh_catalog((), now=now)
        moment = rules.microseconds(now)
        known: _Known = self._customers
        for _ in range(_TRIES):
            found: list[intake.Window | None] = []
            unopened: list[intake.Wanted] = []
            unknown: set[str] = set()
            for customer_key, meter_key in wanted:
                customer, meter = known.get(customer_key), self._meters.get(meter_key)
                window = None
                if customer_key not in known:
                    unknown.add(customer_key)
                elif customer is not None and meter is not None:
                    window = customer.window(meter.meter_id, moment)
                    if window is None:
                        unopened.append(intake.Wanted(customer, meter, moment, ""))
                found.append(window)
            if not unknown and not unopened:
                return found
            known = _without(known, self._load(unknown, unopened, now=now))
        raise Unavailable("plans change faster than windows can be read", code="contended")

    def knows_meter(self, meter_key: str) -> bool:
        """Say whether the catalog, as last read, has the meter."""
        return meter_key in self._meters

    def meter_plan(self, meter_key: str) -> rules.MeterPlan | None:
        """Return a meter ready for the loop, None where the catalog, as last read, has none."""
        return self._meters.get(meter_key)

    def meter(self, meter_id: int, *, now: datetime) -> Meter:
        """Return a meter by its id, from the catalog as it is kept.

        It may open a transaction: call it outside one. Raises: NotFound for a meter that the
        catalog has no more.
        """
        self._refresh_catalog((), now=now)
        for _ in range(2):
            meters = self.catalog.meters.values() if self.catalog else ()
            found = next((one for one in meters if one.meter_id == meter_id), None)
            if found is not None:
                return found
            self._catalog_seen = None  # it may be newer than what is kept
            self._refresh_catalog((), now=now)
        raise NotFound("the catalog has this meter no more", code="unknown_meter", field="meter")

    def customer(self, customer_key: str, *, now: datetime) -> UUID | None:
        """Return a customer's id by key, or None."""
        self._refresh_catalog((), now=now)
        if customer_key not in self._customers:
            self._load({customer_key}, [], now=now)
        found = self._customers.get(customer_key)
        return found.customer_id if found else None

    def forget(self, customers: Iterable[intake.Customer]) -> None:
        """Drop cached windows that turned out to be stale."""
        for customer in customers:
            customer.windows.clear()

    def _refresh_catalog(self, events: Sequence[Event], *, now: datetime) -> None:
        """Follow the catalog: at most a second behind, at once for a type not known yet."""
        seen = self._catalog_seen
        fresh = seen is not None and abs((now - seen).total_seconds()) < _CATALOG_SECONDS_MAX
        if fresh and {event.type for event in events} <= self._types.keys():
            return
        with self._database.transaction() as tx:
            accepts_from = store.find_retention(tx).accepts_from
            if self.catalog is None or catalog_actions.version(tx) != self.catalog.version:
                self._follow(catalog_actions.current(tx))
        self._accepts_from = rules.microseconds(accepts_from)
        self._catalog_seen = now

    def _follow(self, catalog: Catalog) -> None:
        self._types = intake.event_types(catalog)
        self._meters = {m.key: m for kind in self._types.values() for m in kind.meters}
        self.catalog = catalog

    def _load(
        self, unknown: set[str], unopened: Sequence[intake.Wanted], *, now: datetime
    ) -> set[str]:
        """Read customers and windows into the cache; open windows that do not exist.

        Returns the customers that do not exist.
        """
        if len(self._customers) > _CUSTOMERS_MAX:
            self._customers.clear()
        moments = [
            Moment(
                one.customer.customer_id,
                one.meter.meter_id,
                one.meter.key,
                rules.instant(one.moment),
                one.dimensions,
            )
            for one in unopened
        ]

        def read(tx: Tx) -> tuple[dict[str, UUID], Opened]:
            found = customer_actions.ids_by_key(tx, sorted(unknown)) if unknown else {}
            return found, ensure_windows(tx, moments, now=now)

        found, opened = self._database.insist(read)
        for key, customer_id in found.items():
            self._customers.setdefault(key, intake.Customer(customer_id))
        by_id = {one.customer.customer_id: one.customer for one in unopened}
        for row in sorted(opened.rows, key=lambda row: row.dimensions):
            full = (row.customer_id, row.meter_id, row.start_at) in opened.full
            by_id[row.customer_id].keep(row, is_full=full)
        return unknown - found.keys()

    def _count(
        self,
        events: Sequence[Event],
        batch: intake.Prepared,
        *,
        now: datetime,
        first: Callable[[Tx], None] | None,
        guards: Sequence[Question[Any]],
    ) -> None:
        """Store the rows and move the totals in one transaction; with `first`, all or nothing."""
        rows = batch.rows
        if not rows:
            return
        if not self._expect_duplicates:
            try:
                with self._database.pipelined() as tx:
                    if first:
                        first(tx)
                    before = [*guards, *_stored(tx, rows)]
                    passed = totals.move(tx, rows, now=now, before=before)
            except (store.HasDuplicates, AlreadyThere):
                pass
            else:
                totals.drop_marks(passed)
                for row in rows:
                    batch.verdicts[row.place] = ACCEPTED
                return
        with self._database.transaction() as tx:
            tx.together(*guards)
            if first:
                first(tx)
            repeated = _insert_apart(tx, events, batch, self._types, now=now)
            if first and CONFLICT in batch.verdicts:
                detail = "an event with this id was counted with another payload"
                raise Conflict(detail, code="other_payload")
        self._expect_duplicates = repeated

    def _correct(self, events: Sequence[Event], batch: intake.Prepared, *, now: datetime) -> None:
        """Work off the voids and amendments of a batch, each in a transaction of its own."""
        for place in batch.corrections:
            event = events[place]
            customer = self._customers.get(event.subject)
            if customer is not None:
                work = partial(
                    correct,
                    event=event,
                    customer_id=customer.customer_id,
                    types=self._types,
                    now=now,
                )
                batch.verdicts[place] = self._database.insist(work)

    def _judged(
        self, events: Sequence[Event], batch: intake.Prepared, *, now: datetime
    ) -> list[Verdict]:
        """Judge events that came twice in one batch by the first of them, or by what is stored."""
        rows = {row.place: row for row in batch.rows} if batch.repeats else {}
        differing: list[tuple[int, intake.Row]] = []
        for later, first in batch.repeats:
            conflicts = batch.verdicts[first] == CONFLICT
            kept = self._types[events[first].type].kept
            if intake.is_same(events[later], events[first], kept, now=now):
                batch.verdicts[later] = CONFLICT if conflicts else DUPLICATE
            elif conflicts:
                differing.append((later, rows[first]))
            else:
                batch.verdicts[later] = CONFLICT
        if differing:
            with self._database.transaction() as tx:
                for later, row in differing:
                    kept = self._types[events[later].type].kept
                    value = intake.compared(events[later], row, kept)
                    same = store.compare_events(tx, [value])
                    batch.verdicts[later] = DUPLICATE if all(same.values()) else CONFLICT
        done = [verdict for verdict in batch.verdicts if verdict is not None]
        require(len(done) == len(events), "every event has a verdict")
        return done


def _guards(rows: Sequence[intake.Row], now: int, closed: int) -> list[Question[Any]]:
    """Ask that the retention boundary stays where it is while old events go in.

    Or find that it is not where it was when the batch was prepared. Locks: it, shared.
    """
    if all(row.moment >= now - _SETTLED for row in rows):
        return []
    known = rules.instant_bytes(closed)

    def check(found: bytes) -> None:
        if found != known:
            raise BoundaryMoved

    return [store.hold_boundary(), store.read_boundary(check)]


def _without(known: _Known, absent: set[str]) -> _Known:
    """Return the cache as one batch sees it; that a customer is absent is not remembered."""
    if not absent:
        return known
    nobody: dict[str, intake.Customer | None] = dict.fromkeys(absent)
    return ChainMap(nobody, cast("dict[str, intake.Customer | None]", known))


def _stored(tx: Tx, rows: Sequence[intake.Row]) -> list[Question[Any]]:
    """Store many rows by COPY; of few, return the statements that do, to go with others."""
    if len(rows) > _FEW:
        store.copy_events(tx, [row.data for row in rows])
        return []
    return store.insert_events([intake.row_fields(row.data) for row in rows])


def _insert_apart(
    tx: Tx,
    events: Sequence[Event],
    batch: intake.Prepared,
    types: Mapping[str, intake.EventType],
    *,
    now: datetime,
) -> bool:
    """Insert a batch that may hold duplicates; say whether it did."""
    rows = batch.rows
    values = [intake.row_values(events[row.place], row, now=now) for row in rows]
    fresh = store.insert_new_events(tx, values)
    added = [row for row, value in zip(rows, values, strict=True) if (value[0], value[1]) in fresh]
    totals.move(tx, added, now=now)
    for row in added:
        batch.verdicts[row.place] = ACCEPTED
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
        verdict = DUPLICATE if same else counted_late(tx, value, row.moment, types, now=now)
        batch.verdicts[row.place] = verdict or CONFLICT
    return bool(old)
