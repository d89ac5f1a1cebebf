"""What a window may use, given what came before it: a pure fold over windows in order of time.

The windows of a period share one allowance A (RULES 8, 9). With U used before a window and D drawn
of credit, it may use max(0, A - (U - D)) and what the credits that are active in it have left.
Usage beyond what is free of the period draws these credits in their order (RULES 12). Nothing
is counted down anywhere: the draws follow from the stored windows and credits each time, so the
order in which events, grants and changes arrived cannot matter.

Invariants: no credit is drawn beyond its quantity or outside of its time; a draw never exceeds
what its window used.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from convergio.kernel.quantity import add_up, subtract
from convergio.metering.model import Credit, Limit, Schedule, WindowRow
from convergio.metering.schedule import Terms, terms_at

_ZERO: Final = Decimal(0)
_FREE: Final = Limit()


class Draw(NamedTuple):
    """What a window meets and takes: used and drawn before it in its period, credit to draw."""

    used: Decimal
    drawn: Decimal
    credit: Decimal
    taken: Mapping[UUID, Decimal]

    @property
    def sum(self) -> Decimal:
        """What the window draws in all."""
        return add_up(self.taken.values())


class Standing(NamedTuple):
    """The columns of a window that follow from the others."""

    quota_limit: Decimal | None
    included: Decimal | None
    period_at: datetime | None = None
    earlier: Decimal | None = None
    base: Decimal | None = None
    free: Decimal | None = None
    credit: Decimal | None = None


def draws(
    terms: Sequence[Terms], quantities: Sequence[Decimal], credits_: Sequence[Credit]
) -> list[Draw]:
    """Return what each window of a meter draws, in order of time; `credits_` are in their order."""
    left = {one.grant_id: one.quantity for one in credits_}
    used: dict[datetime, Decimal] = {}
    drawn: dict[datetime, Decimal] = {}
    found = []
    for each, quantity in zip(terms, quantities, strict=True):
        if each.limit is None or not each.limit.summed:
            found.append(Draw(_ZERO, _ZERO, _ZERO, {}))
            continue
        of = each.period.start
        before, taken_before = used.get(of, _ZERO), drawn.get(of, _ZERO)
        active = active_in(credits_, each.window.start)
        credit = add_up(left[one.grant_id] for one in active if each.limit.free is not None)
        beyond = _beyond(each.limit.free, before, quantity)
        taken: dict[UUID, Decimal] = {}
        for one in active:
            part = min(left[one.grant_id], beyond)
            if part:
                taken[one.grant_id] = part
                left[one.grant_id] = subtract(left[one.grant_id], part)
                beyond = subtract(beyond, part)
        draw = Draw(before, taken_before, credit, taken)
        found.append(draw)
        used[of] = add_up((before, quantity))
        drawn[of] = add_up((taken_before, draw.sum))
    return found


def active_in(credits_: Sequence[Credit], moment: datetime) -> list[Credit]:
    """Return the credits that usage at a moment may draw, in their order."""
    return [
        one
        for one in credits_
        if one.starts_at <= moment and (one.ends_at is None or moment < one.ends_at)
    ]


def _beyond(free: Decimal | None, before: Decimal, quantity: Decimal) -> Decimal:
    """Return how much of a quantity is beyond what is free, after what was used before."""
    return _ZERO if free is None else _rest(quantity, _rest(free, before))


def _rest(whole: Decimal, part: Decimal) -> Decimal:
    return max(_ZERO, subtract(whole, part))


def of_meter(credits_: Sequence[Credit], meter_key: str) -> list[Credit]:
    """Return the credits of a meter, in their order."""
    return [one for one in credits_ if one.meter_key == meter_key]


def standings(schedule: Schedule, meter_key: str, rows: Sequence[WindowRow]) -> list[Standing]:
    """Return what each window of a meter comes to; `rows` are all of them, in order of time.

    For the limit what earlier windows hold in reserve counts as used: it may still be.
    """
    terms = [terms_at(schedule, meter_key, row.start_at) for row in rows]
    credits_ = of_meter(schedule.credits, meter_key)
    used = draws(terms, [row.used for row in rows], credits_)
    held = draws(terms, [add_up((row.used, row.reserved)) for row in rows], credits_)
    return [
        _standing(each, now, most, has_credit=bool(active_in(credits_, row.start_at)))
        for each, now, most, row in zip(terms, used, held, rows, strict=True)
    ]


def _standing(terms: Terms, used: Draw, held: Draw, *, has_credit: bool) -> Standing:
    limit = terms.limit or _FREE
    if not terms.is_shared and not (has_credit and limit.summed and terms.limit is not None):
        return Standing(limit.limit, limit.included)
    most = None
    if limit.limit is not None:
        spent = subtract(held.used, held.drawn)
        most = add_up((_rest(limit.limit, spent), held.credit))
    return Standing(
        quota_limit=most,
        included=None if limit.included is None else _rest(limit.included, used.used),
        period_at=terms.period.start,
        earlier=used.used,
        base=limit.included if limit.limit is None else limit.limit,
        free=None if limit.free is None else _rest(limit.free, used.used),
        credit=used.credit,
    )


def drawn_now(row: WindowRow, *, held: Decimal | None = None) -> Decimal:
    """Return what a window draws of its credit for what it used, or for another quantity."""
    if not row.credit or row.free is None:
        return _ZERO
    quantity = row.used if held is None else held
    return min(row.credit, _rest(quantity, row.free))
