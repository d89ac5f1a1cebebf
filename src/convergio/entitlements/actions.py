"""Reserve, commit, release, expire: a quota that cannot be oversold.

A reservation whose time is over holds nothing: reads leave it out, and a window that looks full
expires its own stale ones before it denies, so nobody waits for the sweeper. Locks are taken in
the order spend cap, window; a reservation that waits for its window is passed over, not waited
for.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Meter
from convergio.entitlements import leases, rules, spending, store
from convergio.entitlements.model import (
    Allowed,
    Ask,
    Decision,
    Denied,
    QuotaState,
    Reason,
    Reservation,
)
from convergio.infra import ids
from convergio.infra.db import Contended, Database, Tx
from convergio.kernel.errors import Conflict, Difference, Invalid, NotFound, Unavailable, require
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import add_up
from convergio.metering import actions as metering
from convergio.metering.errors import WindowsChanged
from convergio.metering.ingest import Ingestor
from convergio.metering.intake import Window
from convergio.metering.model import Event
from convergio.metering.rules import event_data, instant, plain
from convergio.subscriptions import actions as subscriptions

SOURCE: Final = "convergio:reservation"
_TRIES: Final = 8
_SWEEP_SIZE: Final = 500
# by window: the places of asks in their batch, and their quantities
_Asked = Sequence[tuple[Window, Sequence[tuple[int, Decimal]]]]


class Gate:
    """Decide with a process's caches. Safe to call from several threads."""

    def __init__(self, database: Database, ingestor: Ingestor, *, hold_seconds: int) -> None:
        """`hold_seconds` is how long a reservation waits to be settled."""
        self._database = database
        self._ingestor = ingestor
        self._hold = timedelta(seconds=hold_seconds)
        self.leases = leases.Leases(database, ingestor, _expire_stale)

    def authorize(self, asks: Sequence[Ask], *, now: datetime) -> list[Decision]:
        """Decide and hold, in one transaction for all asks, in order of arrival.

        Raises: Unavailable; nothing is held then.
        """
        for _ in range(_TRIES):
            wanted = [(ask.customer_key, ask.meter_key) for ask in asks]
            windows = self._ingestor.windows(wanted, now=now)
            try:
                with self._database.transaction() as tx:
                    return self._decide(tx, asks, windows, now=now)
            except Contended:
                continue
            except WindowsChanged as changed:
                self._ingestor.forget(changed.customers)
        raise Unavailable("plans change faster than this can be decided", code="contended")

    def _decide(
        self,
        tx: Tx,
        asks: Sequence[Ask],
        windows: Sequence[Window | None],
        *,
        now: datetime,
    ) -> list[Decision]:
        decisions: list[Decision] = [Denied(Reason.LIMIT_REACHED) for _ in asks]
        grouped = self._may(tx, asks, windows, decisions)
        customer_ids = {window.customer.customer_id for window in grouped}
        accounts = spending.lock_accounts(tx, customer_ids, now=now)
        for window, places in grouped.items():
            account = accounts.get(window.customer.customer_id)
            for at in list(places) if account else ():
                if account and not account.take(window.meter_id, asks[at].quantity):
                    decisions[at] = Denied(Reason.SPEND_CAP, resets_at=instant(window.end))
                    places.remove(at)
        made = []
        asked = [
            (window, [(at, asks[at].quantity) for at in places])
            for window, places in grouped.items()
            if places
        ]
        held = _held(tx, asked, decisions, now=now)
        for window, few in asked:
            for at, quantity in few:
                if at in held:
                    made.append(self._reservation(window, quantity, now=now))
                    decisions[at] = Allowed(
                        made[-1].customer_id, made[-1].reservation_id, made[-1].expires_at
                    )
        if made:
            store.copy_reservations(tx, made)
        return decisions

    def _may(
        self,
        tx: Tx,
        asks: Sequence[Ask],
        windows: Sequence[Window | None],
        decisions: list[Decision],
    ) -> dict[Window, list[int]]:
        """Return the asks of known meters and customers with access by window; deny the others."""
        customer_ids = {window.customer.customer_id for window in windows if window}
        status = subscriptions.live_status(tx, sorted(customer_ids))
        grouped: dict[Window, list[int]] = {}
        for at, window in enumerate(windows):
            if window is None:
                known = self._ingestor.knows_meter(asks[at].meter_key)
                reason = Reason.UNKNOWN_CUSTOMER if known else Reason.UNKNOWN_METER
                decisions[at] = Denied(reason)
                continue
            refused = rules.refusal(rules.access(status.get(window.customer.customer_id)))
            if refused is not None:
                decisions[at] = Denied(refused)
            else:
                grouped.setdefault(window, []).append(at)
        return grouped

    def _reservation(self, window: Window, quantity: Decimal, *, now: datetime) -> Reservation:
        return Reservation(
            customer_id=window.customer.customer_id,
            reservation_id=ids.new_id(now),
            meter_id=window.meter_id,
            start_at=window.starts_at,
            quantity=quantity,
            state="open",
            made_at=now,
            expires_at=now + self._hold,
            settled_at=None,
            settled=None,
        )

    def commit(
        self,
        customer_key: str,
        reservation_id: UUID,
        *,
        actual: Decimal | None,
        now: datetime,
    ) -> Reservation:
        """Count what was really used and give back what was held; the two are one transaction.

        `actual` may be less or more than what was held, and is never refused for exceeding; None
        means all of it. The same commit twice is one commit. Locks: the reservation. Raises:
        NotFound, Conflict when it was released or committed with another quantity.
        """
        with self._database.transaction() as tx:
            found = _find(tx, self._customer(customer_key, now=now), reservation_id)
            meter = _meter(tx, found.meter_id)
        quantity = found.quantity if actual is None else actual
        data = event_data(meter, quantity)
        if data is None and quantity:
            detail = f"the meter '{meter.key}' cannot count {plain(quantity)} in one event"
            raise Invalid(detail, code="bad_quantity", field="actual")
        settled: list[Reservation] = []

        def settle(tx: Tx) -> None:
            settled[:] = [_commit(tx, found.customer_id, reservation_id, quantity, now=now)]

        if not quantity:
            with self._database.transaction() as tx:
                settle(tx)
            return settled[0]
        event = Event(
            id=ids.typeid("rsv", reservation_id),
            source=SOURCE,
            type=meter.event_type,
            subject=customer_key,
            time=found.made_at,
            data=dict(data or {}),
        )
        verdict = self._ingestor.ingest([event], now=now, importing=True, first=settle)[0]
        if verdict.status == "rejected":
            detail = f"its event cannot be counted: {verdict.detail}"
            raise Conflict(detail, code="not_countable", field=verdict.field)
        require(verdict.status in {"accepted", "duplicate"}, "a committed reservation is counted")
        return settled[0]

    def release(self, customer_key: str, reservation_id: UUID, *, now: datetime) -> Reservation:
        """Give back what was held; twice is once. Locks: the reservation.

        Raises: NotFound, Conflict when it was committed.
        """
        with self._database.transaction() as tx:
            found = _lock(tx, self._customer(customer_key, now=now), reservation_id)
            if found.state == "committed":
                raise Conflict("it was committed already; void the usage instead", code="committed")
            return _close(tx, [found], "released", None, now=now)[0]

    def quota(self, customer_key: str, meter_key: str, *, now: datetime) -> QuotaState:
        """Return a quota as it stands. Raises: NotFound for a customer or meter."""
        for _ in range(_TRIES):
            window = self._ingestor.windows([(customer_key, meter_key)], now=now)[0]
            if window is None:
                meter = self._ingestor.knows_meter(meter_key)
                what, code = ("customer", customer_key) if meter else ("meter", meter_key)
                detail = f"there is no {what} '{code[:60]}'"
                raise NotFound(detail, code=f"unknown_{what}", field=what)
            customer_id = window.customer.customer_id
            with self._database.snapshot() as tx:
                row = metering.window_now(tx, window)
                status = subscriptions.live_status(tx, [customer_id]).get(customer_id)
                stale = store.stale_reserved(tx, [customer_id], now=now)
                account = spending.account(tx, customer_id, now=now)
            if row is not None and row.period.contains(now):
                return rules.state(
                    row,
                    rules.access(status),
                    stale=stale.get((customer_id, row.meter_id), Decimal(0)),
                    spend_cap=account.cap.money if account else None,
                    spend=account.spend() if account else None,
                )
            self._ingestor.forget([window.customer])
        raise Unavailable("plans change faster than this can be read", code="contended")

    def _customer(self, customer_key: str, *, now: datetime) -> UUID:
        found = self._ingestor.customer(customer_key, now=now)
        if found is None:
            detail = f"there is no customer '{customer_key[:60]}'"
            raise NotFound(detail, code="unknown_customer", field="customer")
        return found


def _held(
    tx: Tx,
    asked: _Asked,
    decisions: list[Decision],
    *,
    now: datetime,
) -> set[int]:
    """Hold what fits and return which asks did; a full window frees its stale reservations first.

    What does not fit is denied, with when to ask again.
    """
    held = _try_hold(tx, asked)
    short = [(window, places) for window, places in asked if not held.issuperset(dict(places))]
    if not short:
        return held
    ids_ = sorted({window.customer.customer_id for window, _ in short})
    stale = store.stale_reserved(tx, ids_, now=now)
    freed = [
        (window, places)
        for window, places in short
        if (window.customer.customer_id, window.meter_id) in stale
        and _expire_stale(tx, window.customer.customer_id, window.meter_id, window.starts_at, now)
    ]
    for window, places in freed:  # once more from the start, so that the first to ask is first
        back = add_up(quantity for at, quantity in places if at in held)
        if back:
            place = (window.customer.customer_id, window.meter_id, window.starts_at)
            metering.give_back(tx, [(*place, back)])
        held -= {at for at, _ in places}
    held |= _try_hold(tx, freed)
    rows = {(row.customer_id, row.meter_id): row for row in metering.windows_at(tx, ids_, now)}
    for window, places in short:
        row = rows[window.customer.customer_id, window.meter_id]
        for at, quantity in places:
            if at not in held:
                decisions[at] = rules.limit_reached(row, quantity, now=now)
    return held


def _try_hold(tx: Tx, asked: _Asked) -> set[int]:
    """Hold what fits of each window, in order, and return which asks did."""
    answers = metering.hold(
        tx, [(window, [quantity for _, quantity in places]) for window, places in asked]
    )
    return {
        place[0]
        for (_, places), fits in zip(asked, answers, strict=True)
        for place, fitted in zip(places, fits, strict=True)
        if fitted
    }


def _expire_stale(
    tx: Tx, customer_id: UUID, meter_id: int, start_at: datetime, now: datetime
) -> bool:
    """Free what stale reservations hold of a window that the caller has locked; say if any did."""
    stale = store.lock_stale_reservations(tx, customer_id, meter_id, start_at, now=now)
    _close(tx, stale, "expired", None, now=now)
    return bool(stale)


def _find(tx: Tx, customer_id: UUID, reservation_id: UUID) -> Reservation:
    return _lock(tx, customer_id, reservation_id)


def _lock(tx: Tx, customer_id: UUID, reservation_id: UUID) -> Reservation:
    found = store.lock_reservation(tx, customer_id, reservation_id)
    if found is None:
        detail = "there is no such reservation of this customer"
        raise NotFound(detail, code="unknown_reservation", field="reservation")
    return found


def _meter(tx: Tx, meter_id: int) -> Meter:
    meters = catalog_actions.current(tx).meters.values()
    return next(meter for meter in meters if meter.meter_id == meter_id)


def _commit(
    tx: Tx, customer_id: UUID, reservation_id: UUID, quantity: Decimal, *, now: datetime
) -> Reservation:
    found = _lock(tx, customer_id, reservation_id)
    if found.state == "committed":
        if found.settled != quantity:
            detail = f"it was committed with {plain(found.settled or Decimal(0))}"
            raise Conflict(detail, code="committed", field="actual")
        return found
    if found.state == "released":
        raise Conflict("it was released; track the usage as an event", code="released")
    return _close(tx, [found], "committed", quantity, now=now)[0]


def _close(
    tx: Tx,
    found: Sequence[Reservation],
    state: str,
    settled: Decimal | None,
    *,
    now: datetime,
) -> list[Reservation]:
    """Give back what open reservations hold and write what became of them."""
    open_ones = [row for row in found if row.state == "open"]
    held = [(row.customer_id, row.meter_id, row.start_at, row.quantity) for row in open_ones]
    metering.give_back(tx, held)
    closed = [
        replace(row, state=state, settled_at=now, settled=settled)
        if row.state == "open" or state == "committed"
        else row
        for row in found
    ]
    store.settle_reservation(tx, closed)
    return closed


def sweep(database: Database, *, now: datetime) -> int:
    """Expire what is over; return how many. One batch, one transaction.

    Reservations whose time is over, and leases whose window has ended.
    """
    leases.sweep(database, now=now)
    expired = 0
    while True:
        with database.transaction() as tx:
            due = store.lock_due_reservations(tx, now=now, size=_SWEEP_SIZE)
            _close(tx, due, "expired", None, now=now)
        expired += len(due)
        if len(due) < _SWEEP_SIZE:
            return expired


def verify(tx: Tx) -> list[Difference]:
    """Return windows whose reserved quantity is not what their open promises hold."""
    return [
        Difference(
            where=f"reserved by customer {row.customer_id} from {instant_text(row.start_at)}",
            expected=plain(row.expected),
            found=plain(row.found),
        )
        for row in store.differing_reserved(tx)
    ]
