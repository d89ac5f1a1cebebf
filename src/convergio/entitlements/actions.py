"""Reserve, commit, release, expire: a quota that cannot be oversold.

A reservation whose time is over holds nothing: reads leave it out, and a window that looks full
expires its own stale ones before it denies, so nobody waits for the sweeper. Locks are taken in
the order spend cap, window; a reservation that waits for its window is passed over, not waited
for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.entitlements import (
    grants,
    leases,
    levels,
    quick,
    repeating,
    rules,
    spending,
    store,
)
from convergio.entitlements.errors import HasRepeats, not_countable, not_reservable
from convergio.entitlements.model import (
    Allowed,
    Ask,
    Decision,
    Denied,
    QuotaState,
    Reason,
    Refused,
    Reservation,
)
from convergio.infra import ids
from convergio.infra.db import Contended, Database, Tx, stand_back
from convergio.kernel.errors import Conflict, Difference, Invalid, NotFound, Unavailable, require
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import add_up
from convergio.metering import actions as metering
from convergio.metering.errors import WindowsChanged
from convergio.metering.ingest import Ingestor
from convergio.metering.intake import Window
from convergio.metering.model import Event
from convergio.metering.rules import MeterPlan, event_data, instant, plain
from convergio.subscriptions import actions as subscriptions

SOURCE: Final = "convergio:reservation"
_TRIES: Final = 8
_SWEEP_SIZE: Final = 500
_BARRED_MAX: Final = 100_000
# by window: the places of asks in their batch, and their quantities
_Asked = Sequence[tuple[Window, Sequence[tuple[int, Decimal]]]]


class Gate:
    """Decide with a process's caches. Safe to call from several threads."""

    def __init__(self, database: Database, ingestor: Ingestor, *, hold_seconds: int) -> None:
        """`hold_seconds` is how long a reservation waits to be settled."""
        self._database = database
        self._ingestor = ingestor
        self._hold = timedelta(seconds=hold_seconds)
        self._barred: set[UUID] = set()  # who went the careful way last time, and will again
        self.leases = leases.Leases(database, ingestor, _expire_stale)

    def authorize(self, asks: Sequence[Ask], *, now: datetime) -> list[Decision]:
        """Decide and hold; each window's asks in order of arrival.

        Raises: Unavailable; what was held by then nobody was told of, and it expires.
        """
        decided, repeats = repeating.without_repeats(asks)
        for tries in range(_TRIES):
            left = [at for at, decision in enumerate(decided) if decision is None]
            left = [at for at in left if at not in repeats]
            wanted = [(asks[at].customer_key, asks[at].meter_key) for at in left]
            windows = dict(zip(left, self._ingestor.windows(wanted, now=now), strict=True))
            try:
                if not self._take(asks, windows, decided, now=now):
                    continue
                rest = [at for at in left if decided[at] is None]
                if rest:
                    some = [asks[at] for at in rest]
                    with self._database.transaction() as tx:
                        found = self._decide(tx, some, [windows[at] for at in rest], now=now)
                    for at, decision in zip(rest, found, strict=True):
                        decided[at] = decision
            except HasRepeats:
                continue
            except Contended:
                stand_back(tries)
                continue
            except WindowsChanged as changed:
                self._ingestor.forget(changed.customers)
                continue
            for later, first in repeats.items():
                decided[later] = decided[later] or decided[first]
            return [decision for decision in decided if decision is not None]
        raise Unavailable("plans change faster than this can be decided", code="contended")

    def _take(
        self,
        asks: Sequence[Ask],
        windows: Mapping[int, Window | None],
        decided: list[Decision | None],
        *,
        now: datetime,
    ) -> bool:
        """Decide what may go the short way; False when more than was known may not.

        Raises: as `quick.take`; after HasRepeats all go the careful way.
        """
        wishes: dict[int, quick.Wish] = {}
        for at, window in windows.items():
            if window is None or window.shared or window.customer.customer_id in self._barred:
                continue
            plan = self._ingestor.meter_plan(asks[at].meter_key)
            if rules.is_countable(plan, asks[at].quantity) and not rules.is_level(plan):
                chosen = asks[at].reservation_id or ids.new_id(now)
                wishes[at] = quick.Wish(window, asks[at].quantity, chosen)
        if not wishes:
            return True
        some = {wish.window.customer.customer_id for wish in wishes.values()}
        until = now + self._hold
        try:
            barred = quick.take(self._database, list(wishes.values()), now=now, expires_at=until)
        except HasRepeats:
            barred = some
        if len(self._barred) > _BARRED_MAX:
            self._barred.clear()
        self._barred |= barred
        if barred:
            return False
        for at, wish in wishes.items():
            decided[at] = Allowed(wish.window.customer.customer_id, wish.reservation_id, until)
        return True

    def _decide(
        self,
        tx: Tx,
        asks: Sequence[Ask],
        windows: Sequence[Window | None],
        *,
        now: datetime,
    ) -> list[Decision]:
        """Decide the careful way: who was answered before gets the same answer."""
        decisions: list[Decision] = [Denied(Reason.LIMIT_REACHED) for _ in asks]
        again = repeating.answered(tx, asks, windows, decisions, now=now)
        grouped = self._may(tx, asks, windows, decisions, done=again)
        customer_ids = {window.customer.customer_id for window in grouped}
        accounts = spending.lock_accounts(tx, customer_ids, now=now)
        for window, places in grouped.items():
            account = accounts.get(window.customer.customer_id)
            for at in list(places) if account else ():
                if account and not account.take(window.meter_id, asks[at].quantity):
                    decisions[at] = Denied(Reason.SPEND_CAP, resets_at=instant(window.end))
                    places.remove(at)
        asked = [
            (window, [(at, asks[at].quantity) for at in places])
            for window, places in grouped.items()
            if places
        ]

        def plan_of(at: int) -> MeterPlan | None:
            return self._ingestor.meter_plan(asks[at].meter_key)

        added, leveled = levels.parted(asked, plan_of)
        held = _held(tx, added, decisions, now=now)
        held |= levels.decided(tx, leveled, decisions, plan_of, now=now)
        made = [
            (at, self._reservation(window, asks[at], now=now))
            for window, few in asked
            for at, _ in few
            if at in held
        ]
        for at, one in made:
            decisions[at] = Allowed(one.customer_id, one.reservation_id, one.expires_at)
        if made:
            store.copy_reservations(tx, [one for _, one in made])
        repeating.answered(
            tx, asks, windows, decisions, now=now
        )  # made by another process while this one waited
        free = customer_ids - accounts.keys()
        denied = {
            w.customer.customer_id
            for w, d in zip(windows, decisions, strict=True)
            if w and not isinstance(d, Allowed)
        }
        self._barred -= free - denied
        return decisions

    def _may(
        self,
        tx: Tx,
        asks: Sequence[Ask],
        windows: Sequence[Window | None],
        decisions: list[Decision],
        *,
        done: Collection[int],
    ) -> dict[Window, list[int]]:
        """Return the asks of known meters and customers with access by window; deny the others."""
        customer_ids = {window.customer.customer_id for window in windows if window}
        status = subscriptions.live_status(tx, sorted(customer_ids))
        grouped: dict[Window, list[int]] = {}
        for at, window in enumerate(windows):
            meter_key = asks[at].meter_key
            if at in done:
                continue
            if window is None:
                known = self._ingestor.knows_meter(meter_key)
                reason = Reason.UNKNOWN_CUSTOMER if known else Reason.UNKNOWN_METER
                decisions[at] = Denied(reason)
                continue
            refused = rules.refusal(rules.access(status.get(window.customer.customer_id)))
            plan = self._ingestor.meter_plan(meter_key)
            if rules.is_distinct(plan):
                decisions[at] = Refused(not_reservable(meter_key))
            elif not rules.is_countable(plan, asks[at].quantity):
                decisions[at] = Refused(not_countable(meter_key))
            elif refused is not None:
                decisions[at] = Denied(refused)
            else:
                grouped.setdefault(window, []).append(at)
        return grouped

    def _reservation(self, window: Window, ask: Ask, *, now: datetime) -> Reservation:
        return Reservation(
            customer_id=window.customer.customer_id,
            reservation_id=ask.reservation_id or ids.new_id(now),
            meter_id=window.meter_id,
            start_at=window.starts_at,
            quantity=ask.quantity,
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
        customer_id = self._customer(customer_key, now=now)
        with self._database.pipelined() as tx:
            [look] = tx.together(
                store.look_reservation_up(customer_id, reservation_id), commit=True
            )
        found = _there(look)
        meter = self._ingestor.meter(found.meter_id, now=now)
        quantity = found.quantity if actual is None else actual
        data = event_data(meter, quantity)
        if data is None and quantity:
            detail = f"the meter '{meter.key}' cannot count {plain(quantity)} in one event"
            raise Invalid(detail, code="bad_quantity", field="actual")
        settled: list[Reservation] = []

        def settle(tx: Tx) -> None:
            settled[:] = [_commit(tx, found.customer_id, reservation_id, quantity, now=now)]

        if data is None or rules.is_nothing(meter.aggregation, quantity):
            self._database.insist(settle)
            return settled[0]
        event = Event(
            id=ids.typeid("rsv", reservation_id),
            source=SOURCE,
            type=meter.event_type,
            subject=customer_key,
            time=found.made_at,
            data=dict(data),
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
        customer_id = self._customer(customer_key, now=now)

        def let_go(tx: Tx) -> Reservation:
            found = _lock(tx, customer_id, reservation_id)
            if found.state == "committed":
                raise Conflict("it was committed already; void the usage instead", code="committed")
            return _close(tx, [found], "released", None, now=now)[0]

        return self._database.insist(let_go)

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
                    plan=self._ingestor.meter_plan(meter_key),
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
    held = _try_hold(tx, asked, now=now)
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
            metering.give_back(tx, [(*place, back)], now=now)
        held -= {at for at, _ in places}
    held |= _try_hold(tx, freed, now=now)
    rows = {(row.customer_id, row.meter_id): row for row in metering.windows_at(tx, ids_, now)}
    for window, places in short:
        row = rows[window.customer.customer_id, window.meter_id]
        for at, quantity in places:
            if at not in held:
                decisions[at] = rules.limit_reached(row, quantity, now=now)
    return held


def _try_hold(tx: Tx, asked: _Asked, *, now: datetime) -> set[int]:
    """Hold what fits of each window, in order, and return which asks did."""
    answers = metering.hold(
        tx, [(window, [quantity for _, quantity in places]) for window, places in asked]
    )
    metering.follow(tx, [window for window, _ in asked], now=now)
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


def _lock(tx: Tx, customer_id: UUID, reservation_id: UUID) -> Reservation:
    return _there(store.lock_reservation(tx, customer_id, reservation_id))


def _there(found: Reservation | None) -> Reservation:
    if found is None:
        detail = "there is no such reservation of this customer"
        raise NotFound(detail, code="unknown_reservation", field="reservation")
    return found


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
    held = [
        (row.customer_id, row.meter_id, row.start_at, row.quantity) for row in open_ones if row.adds
    ]
    metering.give_back(tx, held, now=now)
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

    def expire(tx: Tx) -> int:
        due = store.lock_due_reservations(tx, now=now, size=_SWEEP_SIZE)
        _close(tx, due, "expired", None, now=now)
        return len(due)

    expired = 0
    while True:
        count = database.insist(expire)
        expired += count
        if count < _SWEEP_SIZE:
            return expired


def verify(tx: Tx) -> list[Difference]:
    """Return windows whose reserved quantity is not what their open promises hold.

    And customers whose schedule has other credits than their grants say.
    """
    reserved = [
        Difference(
            where=f"reserved by customer {row.customer_id} from {instant_text(row.start_at)}",
            expected=plain(row.expected),
            found=plain(row.found),
        )
        for row in store.differing_reserved(tx)
    ]
    return reserved + grants.verify(tx)
