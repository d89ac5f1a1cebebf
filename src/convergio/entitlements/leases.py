"""Hand slices of a quota to nodes that decide alone, and never oversell.

What a lease holds is part of its window's `reserved`, taken and given back under the window's
lock, so the sum of what nodes may allow never passes the limit. A node reports the sum it has
used; each report is a usage event of its own, counted in the transaction that moves the lease, so
used and reserved never disagree. The rule for a node that dies: what its lease holds stays blocked
until the lease is settled, an operator declares it lost, or the window ends; it is never billed,
for only reports are usage. A report that comes after all that still counts (RULES 19, 21).

Locks are taken in the order lease, cap, window.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.catalog.model import Meter
from convergio.customers import actions as customers
from convergio.entitlements import rules, spending, store
from convergio.entitlements.errors import other_lease, unknown_lease
from convergio.entitlements.model import LEASE_LIFE, Denied, Lease, Leased, Reason
from convergio.infra import ids, outbox
from convergio.infra.db import Contended, Database, Tx, stand_back
from convergio.kernel.errors import Invalid, Unavailable, require
from convergio.kernel.quantity import add_up, quantity_text, subtract
from convergio.metering import actions as metering
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Event, WindowRow
from convergio.metering.rules import event_data
from convergio.subscriptions import actions as subscriptions

SOURCE: Final = "convergio:lease"
_TRIES: Final = 8
_SWEEP_SIZE: Final = 500
_ZERO: Final = Decimal(0)
_TWO: Final = Decimal(2)
Expire = Callable[[Tx, UUID, int, datetime, datetime], bool]


class _Moved(Exception):
    """Somebody made or changed the lease, or its window, since it was read: read it again."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What a node says: used in all, and what it wants to have in hand afterwards."""

    used: Decimal
    sequence: int | None
    wanted: Decimal

    @property
    def is_final(self) -> bool:
        """Say whether the node gives the rest back."""
        return self.sequence is None


class Leases:
    """Grant, renew and settle with a process's caches. Safe to call from several threads."""

    def __init__(self, database: Database, ingestor: Ingestor, expire: Expire) -> None:
        """`expire` frees what stale reservations hold of a locked window, and says if any did."""
        self._database = database
        self._ingestor = ingestor
        self._expire = expire

    def acquire(
        self,
        customer_key: str,
        meter_key: str,
        wanted: Decimal,
        *,
        now: datetime,
        lease_id: UUID | None = None,
    ) -> Leased | Denied:
        """Grant a slice of the window that holds `now`, at most what is wanted.

        A node that chooses the id itself may ask again when no answer came: one id is one lease.
        Locks: the cap, the window. Emits: nothing. Raises: Invalid for a meter that cannot be
        leased, Conflict, Unavailable.
        """
        chosen = lease_id or ids.new_id(now)
        for _ in range(_TRIES):
            window = self._ingestor.windows([(customer_key, meter_key)], now=now)[0]
            if window is None:
                known = self._ingestor.knows_meter(meter_key)
                return Denied(Reason.UNKNOWN_CUSTOMER if known else Reason.UNKNOWN_METER)
            customer_id = window.customer.customer_id
            _check_meter(self._ingestor.meter(window.meter_id, now=now))
            with suppress(Contended, _Moved), self._database.transaction() as tx:
                caps = spending.lock_accounts(tx, [customer_id], now=now)
                row = metering.lock_window(tx, customer_id, window.meter_id, now)
                if row is not None:
                    return self._grant(tx, row, chosen, wanted, caps.get(customer_id), now=now)
            self._ingestor.forget([window.customer])
        raise Unavailable("plans change faster than this can be decided", code="contended")

    def _grant(
        self,
        tx: Tx,
        window: WindowRow,
        lease_id: UUID,
        wanted: Decimal,
        account: spending.Account | None,
        *,
        now: datetime,
    ) -> Leased | Denied:
        known = store.find_lease(tx, window.customer_id, lease_id)
        if known is not None:
            if known.meter_id != window.meter_id:
                raise other_lease()
            return Leased(known)
        refused = _refusal(tx, window.customer_id)
        if refused is not None:
            return Denied(refused)
        granted, reason = self._slice(tx, window, wanted, account, over=_ZERO, now=now)
        if not granted:
            return Denied(reason or Reason.LIMIT_REACHED, resets_at=window.end_at)
        lease = Lease(
            customer_id=window.customer_id,
            lease_id=lease_id,
            meter_id=window.meter_id,
            start_at=window.start_at,
            end_at=window.end_at,
            granted=granted,
            used=_ZERO,
            sequence=0,
            state="open",
            made_at=now,
            expires_at=min(now + LEASE_LIFE, window.end_at),
            settled_at=None,
        )
        _hold(tx, lease, granted, now=now)
        if not store.insert_lease(tx, lease):  # made meanwhile, of a window that this one is not
            raise _Moved
        return Leased(lease)

    def _slice(
        self,
        tx: Tx,
        window: WindowRow,
        wanted: Decimal,
        account: spending.Account | None,
        *,
        over: Decimal,
        now: datetime,
    ) -> tuple[Decimal, Reason | None]:
        """Return how much of a locked window a node gets, and why it is nothing.

        `over` is what is about to be counted beyond what the node held.
        """
        left = rules.remaining(window, over=over)
        who, meter_id = window.customer_id, window.meter_id
        if (
            left is not None
            and rules.slice_of(left, wanted) < wanted
            and self._expire(tx, who, meter_id, window.start_at, now)
        ):
            fresh = metering.lock_window(tx, who, meter_id, window.start_at) or window
            left = rules.remaining(fresh, over=over)
        granted = rules.slice_of(left, wanted)
        if not granted:
            return _ZERO, Reason.LIMIT_REACHED
        while account is not None and not account.allows(window.meter_id, add_up((granted, over))):
            if granted <= 1:
                return _ZERO, Reason.SPEND_CAP
            granted = Decimal(max(1, int(granted) // 2))
        return granted, None

    def renew(
        self,
        customer_key: str,
        lease_id: UUID,
        *,
        used: Decimal,
        sequence: int,
        wanted: Decimal,
        now: datetime,
    ) -> Leased:
        """Count what was used so far, and grant more until the node has `wanted` in hand.

        `used` is the sum since the lease was made and `sequence` numbers the report: the same
        report twice is one. Also a lease that expired goes on, for nobody was given what it
        holds; one that was lost or whose window ended only counts. Locks: the lease, the cap, the
        window. Raises: NotFound, Conflict, Unavailable.
        """
        return self._report(customer_key, lease_id, _Report(used, sequence, wanted), now=now)

    def settle(self, customer_key: str, lease_id: UUID, *, used: Decimal, now: datetime) -> Leased:
        """Count what was used in all and give the rest back; twice is once.

        Locks: the lease, the window. Raises: NotFound, Conflict, Unavailable.
        """
        return self._report(customer_key, lease_id, _Report(used, None, _ZERO), now=now)

    def _report(
        self, customer_key: str, lease_id: UUID, report: _Report, *, now: datetime
    ) -> Leased:
        customer_id = self._ingestor.customer(customer_key, now=now)
        if customer_id is None:
            raise unknown_lease()
        for tries in range(_TRIES):
            try:
                return self._try_report(customer_key, customer_id, lease_id, report, now=now)
            except (_Moved, Contended):
                stand_back(tries)
        raise Unavailable("this lease changes faster than it can be read", code="contended")

    def _try_report(
        self,
        customer_key: str,
        customer_id: UUID,
        lease_id: UUID,
        report: _Report,
        *,
        now: datetime,
    ) -> Leased:
        """Count and move the lease in one transaction, as it was read before. Raises: _Moved."""
        with self._database.transaction() as tx:
            seen = _lock(tx, customer_id, lease_id)
            if _is_counted(seen, report):
                return Leased(seen)
            # the row is locked only in `_move`, after the cap: this is a look
            moment = rules.reported_at(seen, _look(tx, seen), now=now)
            quantity = subtract(report.used, seen.used)
            if not quantity:
                return self._move(tx, seen, report, moment=moment, now=now)
        meter = self._ingestor.meter(seen.meter_id, now=now)
        event = _event(customer_key, seen, report, meter, quantity=quantity, moment=moment)
        done: list[Leased] = []

        def move(tx: Tx) -> None:
            if _lock(tx, customer_id, lease_id) != seen:
                raise _Moved
            done[:] = [self._move(tx, seen, report, moment=moment, now=now)]

        verdict = self._ingestor.ingest([event], now=now, importing=True, first=move)[0]
        require(verdict.status == "accepted", "a lease's report is counted once")
        return done[0]

    def _move(
        self, tx: Tx, lease: Lease, report: _Report, *, moment: datetime, now: datetime
    ) -> Leased:
        """Give back what is used now, and the rest or take more; the event itself follows."""
        caps = spending.lock_accounts(tx, [lease.customer_id], now=now)
        window = _lock_window(tx, lease)
        if window is not None and not window.period.contains(moment):
            raise _Moved
        sequence = lease.sequence + 1 if report.sequence is None else report.sequence
        before = rules.held(lease)
        reason = None
        if (
            report.is_final
            or lease.state != "open"
            or window is None
            or not window.period.contains(now)
        ):
            after = rules.closed(lease, "settled", used=report.used, sequence=sequence, now=now)
        else:
            after = rules.reported(lease, used=report.used, sequence=sequence)
            account = caps.get(lease.customer_id)
            more, reason = self._more(tx, lease, window, report, account, now=now)
            if reason not in {Reason.SUSPENDED, Reason.NO_SUBSCRIPTION}:
                after = rules.renewed(after, more=more, window=window, now=now)
        _hold(tx, lease, subtract(rules.held(after), before), now=now)
        store.save_lease(tx, [after])
        return Leased(after, reason)

    def _more(
        self,
        tx: Tx,
        lease: Lease,
        window: WindowRow,
        report: _Report,
        account: spending.Account | None,
        *,
        now: datetime,
    ) -> tuple[Decimal, Reason | None]:
        """Return how much a node gets beyond what it has, and why it is nothing."""
        refused = _refusal(tx, lease.customer_id)
        if refused is not None:
            return _ZERO, refused
        in_hand = max(_ZERO, subtract(lease.granted, report.used))
        if report.wanted <= in_hand:
            return _ZERO, None
        over = max(_ZERO, subtract(subtract(report.used, lease.used), rules.held(lease)))
        wanted = subtract(report.wanted, in_hand)
        return self._slice(tx, window, wanted, account, over=over, now=now)


def _refusal(tx: Tx, customer_id: UUID) -> Reason | None:
    status = subscriptions.live_status(tx, [customer_id]).get(customer_id)
    return rules.refusal(rules.access(status))


def _is_counted(lease: Lease, report: _Report) -> bool:
    if report.sequence is None:
        return rules.is_settled(lease, used=report.used)
    return rules.is_repeat(lease, used=report.used, sequence=report.sequence)


def _lock(tx: Tx, customer_id: UUID, lease_id: UUID) -> Lease:
    found = store.lock_lease(tx, customer_id, lease_id)
    if found is None:
        raise unknown_lease()
    return found


def _look(tx: Tx, lease: Lease) -> WindowRow | None:
    """Return the window that the lease is a slice of, as it stands."""
    rows = metering.windows_at(tx, [lease.customer_id], lease.start_at)
    return next((one for one in rows if _is_of(lease, one)), None)


def _lock_window(tx: Tx, lease: Lease) -> WindowRow | None:
    """Return the window that the lease is a slice of, None where a backdated change took it away.

    Only a lease that holds nothing can lose its window. Locks: the window.
    """
    row = metering.lock_window(tx, lease.customer_id, lease.meter_id, lease.start_at)
    return row if row is not None and _is_of(lease, row) else None


def _is_of(lease: Lease, window: WindowRow) -> bool:
    return (window.meter_id, window.start_at) == (lease.meter_id, lease.start_at)


def _hold(tx: Tx, lease: Lease, quantity: Decimal, *, now: datetime) -> None:
    """Let the lease's locked window hold so much more, or less."""
    if quantity:
        given_back = subtract(_ZERO, quantity)
        held = [(lease.customer_id, lease.meter_id, lease.start_at, given_back)]
        metering.give_back(tx, held, now=now)


def _check_meter(meter: Meter) -> None:
    """Refuse a meter whose usage cannot be reported as a sum. Raises: Invalid."""
    if meter.aggregation != "sum" or event_data(meter, _TWO) is None:
        detail = f"'{meter.key}' cannot count a sum in one event; authorize each request instead"
        raise Invalid(detail, code="not_leasable", field="meter")


def _event(
    customer_key: str,
    lease: Lease,
    report: _Report,
    meter: Meter,
    *,
    quantity: Decimal,
    moment: datetime,
) -> Event:
    data = event_data(meter, quantity)
    if data is None:
        detail = f"the meter '{meter.key}' cannot count {quantity_text(quantity)} in one event"
        raise Invalid(detail, code="bad_quantity", field="used")
    number = lease.sequence + 1 if report.sequence is None else report.sequence
    return Event(
        id=f"{ids.typeid('lea', lease.lease_id)}:{number}",
        source=SOURCE,
        type=meter.event_type,
        subject=customer_key,
        time=moment,
        data=dict(data),
    )


def declare_lost(tx: Tx, customer_key: str, lease_id: UUID, *, now: datetime) -> Lease:
    """Give back what an expired lease holds, on an operator's word that its node is gone.

    If the node reports after all, its usage counts and may pass the limit by what it had. Twice
    is once, and a settled lease stays settled. Locks: the lease, the window. Emits: lease.lost.
    Raises: NotFound, Conflict while the node may still be deciding.
    """
    customer_id = customers.find(tx, customer_key).customer_id
    lease = _lock(tx, customer_id, lease_id)
    lost = rules.lose(lease, now=now)
    if lost != lease:
        _end(tx, [lost], [lease], now=now)
        data = {"given_back": quantity_text(rules.held(lease))}
        outbox.emit(tx, "lease.lost", customer_id=customer_id, subject=lease_id, data=data, now=now)
    return lost


def page(
    tx: Tx,
    *,
    after: tuple[UUID, UUID] = (UUID(int=0), UUID(int=0)),
    size: int,
    customer_id: UUID | None = None,
    expired_by: datetime | None = None,
) -> list[Lease]:
    """Return the next open leases in order of customer and id, of all customers or of one."""
    return store.page_open_leases(
        tx, after=after, size=size, customer_id=customer_id, expired_by=expired_by
    )


def sweep(database: Database, *, now: datetime) -> int:
    """Let go of leases whose window has ended: they block nothing there. One batch at a time."""

    def let_go(tx: Tx) -> int:
        due = store.lock_ended_leases(tx, now=now, size=_SWEEP_SIZE)
        ended = [
            rules.closed(one, "lapsed", used=one.used, sequence=one.sequence, now=now)
            for one in due
        ]
        _end(tx, ended, due, now=now)
        return len(due)

    lapsed = 0
    while True:
        count = database.insist(let_go)
        lapsed += count
        if count < _SWEEP_SIZE:
            return lapsed


def _end(tx: Tx, ended: list[Lease], open_ones: list[Lease], *, now: datetime) -> None:
    """Give back what open leases held and write what became of them."""
    held = [(one.customer_id, one.meter_id, one.start_at, rules.held(one)) for one in open_ones]
    metering.give_back(tx, held, now=now)
    store.save_lease(tx, ended)
