"""Owed less billed for everything, closed periods too: what a run that knew no mark would change.

Pure. A mark says that the periods before it are billed and that their usage is as it was, so there
owed and billed are equal, whatever is billed: each difference is told. After the mark every run
computes everything itself, so only what no later fact explains is told: a fee that a finished run
did not find, and one that is billed at another amount. Usage of what is open may have come since.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from convergio.billing import owing, rules
from convergio.billing.model import Billed, Charge, ChargeKey, Kind
from convergio.billing.owing import Prices
from convergio.kernel.errors import Difference
from convergio.kernel.periods import instant_text
from convergio.subscriptions.model import BillingView

Billing = Mapping[ChargeKey, Billed]


class Horizon(NamedTuple):
    """How far the furthest run billed; `begun` is when it began, None where it is not finished."""

    closed: datetime
    begun: datetime | None


class Lacking(NamedTuple):
    """What a charge owes beyond what is billed, or, below zero, short of it."""

    charge: Charge
    billed: int
    is_closed: bool

    @property
    def minor(self) -> int:
        """The difference."""
        return self.charge.amount.minor - self.billed


def unclosed(view: BillingView) -> BillingView:
    """Return a customer with what was asked once before a floor, which a run leaves out."""
    once = any(i.active_from == i.active_until for one in view.agreements for i in one.items)
    return replace(view, floors={}) if once and view.floors else view


def strays(
    view: BillingView, charges: Mapping[ChargeKey, Charge], billed: Billing, *, closed: datetime
) -> list[Difference]:
    """Tell of lines of what the customer never had."""
    where = f"billing of customer {view.customer_id}"
    return [
        Difference(where, "lines of what the customer has", rules.stray(view, key, known).reason)
        for key, known in billed.items()
        if known.amount and rules.is_stray(view, key, charges, closed=closed)
    ]


def lacking(
    view: BillingView,
    prices: Prices,
    charges: Mapping[ChargeKey, Charge],
    billed: Billing,
    horizon: Horizon,
) -> list[Lacking]:
    """Return each charge that differs from what is billed, unless a later fact explains it."""
    marked = {one.subscription_id for one in view.marks}
    there = {
        one.subscription.subscription_id
        for one in view.agreements
        if horizon.begun is not None and one.subscription.created_at <= horizon.begun
    }
    found = []
    for charge in _every(view, prices, charges, billed, closed=horizon.closed):
        known = billed.get(charge.key)
        one = Lacking(charge, known.amount if known else 0, _is_closed(view, charge))
        if one.minor and (
            one.is_closed
            or (charge.subscription_id in there and _is_overdue(one, known, horizon, marked))
        ):
            found.append(one)
    return found


def _every(
    view: BillingView,
    prices: Prices,
    charges: Mapping[ChargeKey, Charge],
    billed: Billing,
    *,
    closed: datetime,
) -> Iterator[Charge]:
    """Yield every charge, and one of zero for what is billed and owed no more, or never was."""
    yield from charges.values()
    for key, known in billed.items():
        if key in charges or not known.amount:
            continue
        if rules.is_to_come(view, key, known, closed=closed):
            continue
        gone = owing.nothing(view, prices, key, period_end=known.period_end)
        if gone is not None:
            yield gone


def _is_closed(view: BillingView, charge: Charge) -> bool:
    floor = view.floors.get(charge.subscription_id)
    return floor is not None and charge.key.period_start < floor


def _is_overdue(
    one: Lacking, known: Billed | None, horizon: Horizon, marked: Collection[UUID]
) -> bool:
    """Say whether the run should have billed an open fee as it is owed.

    An item may be newer than its period, and a change or a correction newer than the run: both
    take the mark away until a run has seen them.
    """
    charge, (closed, begun) = one.charge, horizon
    if charge.key.kind != Kind.FIXED or begun is None:
        return False
    if known is None:
        begins_with_it = charge.due_at == charge.key.period_start
        return one.minor > 0 and (begins_with_it or charge.due_at <= begun)
    amended = charge.amended_at
    is_newer = amended is not None and (amended > closed or amended >= begun)
    return charge.subscription_id in marked and not is_newer


def difference(view: BillingView, one: Lacking) -> Difference:
    """Tell of a charge that is not billed as it is owed."""
    key = one.charge.key
    what = "closed period" if one.is_closed else "fee"
    return Difference(
        where=f"{what} of item {key.item_id} of customer {view.customer_id}",
        expected=f"{one.charge.amount.minor} billed from {instant_text(key.period_start)}",
        found=str(one.billed),
    )
