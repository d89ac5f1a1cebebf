"""Who may, how much a lease gets, and what a report makes of it."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.entitlements.errors import bad_sequence, below_reported, not_expired, settled_already
from convergio.entitlements.model import (
    ACCESS,
    LEASE_LIFE,
    Access,
    Denied,
    Lease,
    QuotaState,
    Reason,
)
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.quantity import add_up, subtract
from convergio.metering.allowance import drawn_now
from convergio.metering.model import WindowRow
from convergio.metering.rules import MeterPlan, event_key
from convergio.rating.model import Charge
from convergio.rating.rules import rate

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
_HOLDERS: Final = 10
_CHOSEN: Final = b"convergio:authorize"
_BY_ONE: Final = "count"
_DISTINCT: Final = "unique_count"
_MAXIMUM: Final = "max"
LEVELS: Final = frozenset({_MAXIMUM, "last"})
_TICK: Final = timedelta(microseconds=1)
SOON: Final = timedelta(seconds=1)


def access(status: str | None) -> Access:
    """Return what a customer with this subscription status may do; None: no live subscription."""
    return Access.NONE if status is None else ACCESS.get(status, Access.NONE)


def refusal(found: Access) -> Reason | None:
    """Return why this access refuses a request, or None when it does not."""
    if found is Access.NONE:
        return Reason.NO_SUBSCRIPTION
    return Reason.SUSPENDED if found is Access.SUSPENDED else None


def reservation_id(chosen: str) -> UUID:
    """Return the id of the reservation for which a caller chose this id. Raises: Invalid."""
    if not chosen.isprintable():
        raise Invalid("write an id of printable characters", code="bad_id", field="id")
    return UUID(bytes=event_key(_CHOSEN, chosen))


def is_countable(plan: MeterPlan | None, quantity: Decimal) -> bool:
    """Say whether a reservation of so much can be committed as one event of the meter."""
    if plan is None:
        return True
    return plan.aggregation != _DISTINCT and (plan.aggregation != _BY_ONE or quantity == _ONE)


def is_distinct(plan: MeterPlan | None) -> bool:
    """Say whether a meter counts values that nobody has when asking."""
    return plan is not None and plan.aggregation == _DISTINCT


def is_level(plan: MeterPlan | None) -> bool:
    """Say whether a meter has a level: what is asked for takes its place, and never adds to it."""
    return plan is not None and plan.aggregation in LEVELS


def is_nothing(aggregation: str, quantity: Decimal) -> bool:
    """Say whether an event of so much would change nothing; zero is a last value like another."""
    return not quantity and aggregation != "last"


def fits_level(window: WindowRow, plan: MeterPlan | None, quantity: Decimal) -> bool:
    """Say whether the level that follows stays within the limit: the new maximum, the new value.

    What others asked for meanwhile cannot change that, so nothing is held.
    """
    if window.quota_limit is None:
        return True
    keeps = plan is not None and plan.aggregation == _MAXIMUM
    level = max(window.used, quantity) if keeps else quantity
    return level <= window.quota_limit


def remaining(
    window: WindowRow, *, stale: Decimal = _ZERO, over: Decimal = _ZERO
) -> Decimal | None:
    """Return what may still be reserved, None where there is no limit.

    `stale` is reserved by reservations whose time is over, which hold nothing any more; `over` is
    about to be counted on top.
    """
    if window.quota_limit is None:
        return None
    held = subtract(add_up((window.used, window.reserved, over)), stale)
    return max(_ZERO, subtract(window.quota_limit, held))


def highest(window: WindowRow, plan: MeterPlan | None) -> Decimal | None:
    """Return the highest level that would be allowed, None where there is no limit."""
    limit = window.quota_limit
    return limit if limit is None or fits_level(window, plan, _ZERO) else _ZERO


def limit_reached(window: WindowRow, quantity: Decimal, *, now: datetime) -> Denied:
    """Return the denial of a full window, with when to ask again.

    Where reservations alone fill it, they may be released at any time, so: soon.
    """
    fits_unreserved = (
        window.quota_limit is not None and add_up((window.used, quantity)) <= window.quota_limit
    )
    retry_at = now + SOON if fits_unreserved else window.end_at
    return Denied(Reason.LIMIT_REACHED, resets_at=window.end_at, retry_at=retry_at)


def overage(window: WindowRow) -> Decimal | None:
    """Return what was used beyond what is included and what credit paid, None where nothing is."""
    if window.included is None:
        return None
    paid = add_up((window.included, drawn_now(window)))
    return max(_ZERO, subtract(window.used, paid))


def state(
    window: WindowRow,
    found: Access,
    *,
    plan: MeterPlan | None = None,
    stale: Decimal = _ZERO,
    spend_cap: Money | None = None,
    spend: Money | None = None,
) -> QuotaState:
    """Return the quota as its owner sees it, and why the next unit would be denied."""
    left = highest(window, plan) if is_level(plan) else remaining(window, stale=stale)
    reason = refusal(found)
    if reason is None and left is not None and left == 0:
        reason = Reason.LIMIT_REACHED
    if (
        reason is None
        and spend_cap is not None
        and spend is not None
        and spend.minor >= (spend_cap.minor)
    ):
        reason = Reason.SPEND_CAP
    return QuotaState(
        limit=window.quota_limit,
        included=window.included,
        used=window.used,
        reserved=subtract(window.reserved, stale),
        remaining=left,
        overage=overage(window),
        resets_at=window.end_at,
        access=found,
        reason=reason,
        spend_cap=spend_cap,
        spend=spend,
        credit=subtract(window.credit or _ZERO, drawn_now(window)),
    )


def overage_price(charge: Charge, quantity: Decimal, *, currency: str) -> Money:
    """Return what using a quantity adds to the invoice: fees and minimums are owed anyway.

    Rounds: as `rate`, which bills it.
    """
    used = rate(charge, quantity, currency=currency).total
    return used - rate(charge, _ZERO, currency=currency).total


def slice_of(left: Decimal | None, wanted: Decimal) -> Decimal:
    """Return how much of what is left one node gets: at most a tenth, at least one unit.

    So ten nodes share a window, and near the limit each gets one unit at a time; a rest below one
    unit goes whole. None left: there is no limit.
    """
    if left is None:
        return wanted
    tenth = Decimal(int(left) // _HOLDERS)
    return min(wanted, max(tenth, min(left, _ONE)))


def held(lease: Lease) -> Decimal:
    """Return what a lease keeps from everybody else: granted and not reported as used."""
    if lease.state != "open":
        return _ZERO
    return max(_ZERO, subtract(lease.granted, lease.used))


def reported_at(lease: Lease, window: WindowRow | None, *, now: datetime) -> datetime:
    """Return when reported usage counts: within the lease's life and the window that it is of.

    A plan change may have cut that window since; the slice was taken from what came before.
    """
    latest = min(now, lease.expires_at - _TICK)
    if window is not None:
        latest = min(latest, window.end_at - _TICK)
    return max(latest, lease.start_at)


def is_repeat(lease: Lease, *, used: Decimal, sequence: int) -> bool:
    """Say whether a report was counted already.

    Raises: Conflict for another report of the same number, for an older one, for less than was
    reported before, and for more of a settled lease.
    """
    if sequence == lease.sequence and sequence:
        if used != lease.used:
            raise bad_sequence(lease)
        return True
    if sequence <= lease.sequence:
        raise bad_sequence(lease)
    _not_less(lease, used)
    return False


def is_settled(lease: Lease, *, used: Decimal) -> bool:
    """Say whether a lease is settled with this usage. Raises: Conflict when with another."""
    if lease.state == "settled":
        if used != lease.used:
            raise settled_already(lease)
        return True
    _not_less(lease, used)
    return False


def _not_less(lease: Lease, used: Decimal) -> None:
    if used < lease.used:
        raise below_reported(lease)
    if lease.state == "settled" and used > lease.used:
        raise settled_already(lease)


def reported(lease: Lease, *, used: Decimal, sequence: int) -> Lease:
    """Return a lease after a report; `granted` never falls below what was used."""
    return replace(lease, used=used, sequence=sequence, granted=max(lease.granted, used))


def renewed(lease: Lease, *, more: Decimal, window: WindowRow, now: datetime) -> Lease:
    """Return a lease with more granted and a new end, at most its window's."""
    until = min(now + LEASE_LIFE, window.end_at, lease.end_at)
    return replace(
        lease, granted=add_up((lease.granted, more)), expires_at=max(lease.expires_at, until)
    )


def closed(lease: Lease, state_: str, *, used: Decimal, sequence: int, now: datetime) -> Lease:
    """Return a lease that holds nothing any more."""
    return replace(lease, used=used, sequence=sequence, state=state_, settled_at=now)


def lose(lease: Lease, *, now: datetime) -> Lease:
    """Return a lease given up as lost. Raises: Conflict while its node may still be deciding."""
    if lease.state != "open":
        return lease
    if now < lease.expires_at:
        raise not_expired(lease)
    return closed(lease, "lost", used=lease.used, sequence=lease.sequence, now=now)
