"""Prices that one customer alone has, from now on or in steps: overrides and ramps.

An override is a price row that the catalog never sells. The subscription pins it in the place of
the plan's, so rating, invoices and explanations need no word for it. A change of the plan ends it;
a change of seats keeps it. A ramp is a queue of such changes, each with its instant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec

from convergio.catalog import actions as catalog
from convergio.catalog import selling
from convergio.catalog.model import MENDS as MENDS_OF_A_PRICE
from convergio.catalog.model import Meter, Price, Quota
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import instant_text, parse_instant
from convergio.kernel.quantity import parse_quantity
from convergio.rating.model import Charge, Seat
from convergio.subscriptions import changes, errors, parts, rules, steps, store
from convergio.subscriptions.model import ChangeState, Subscription

STEPS_MAX = 60
Value = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*\Z")]

MENDS = {
    **MENDS_OF_A_PRICE,
    "": "write steps: a list, each with prices and, but for the first, at",
    "steps": "write 1 to 60 steps",
    "at": "write an instant such as 2027-01-01T00:00:00Z; leave it out of a step that begins now",
    "prices": "write the agreed terms by the key of the plan's price",
}


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of an agreement; a field that is not known is refused."""


class QuotaLine(_Line, frozen=True, kw_only=True):
    """How much a period may use, and whether more is refused."""

    limit: str
    hard: bool = False


class PriceLine(_Line, frozen=True, kw_only=True):
    """What takes the place of a price of the plan; a value that `charges` lacks keeps its own."""

    charge: Charge
    charges: Annotated[dict[Value, Charge], msgspec.Meta(max_length=200)] = {}
    quota: QuotaLine | None = None


class StepLine(_Line, frozen=True, kw_only=True):
    """Agreed prices by the key of the plan's price; the first step may begin now: no `at`."""

    at: str | None = None
    prices: Annotated[dict[str, PriceLine], msgspec.Meta(min_length=1, max_length=50)]


class AgreementFile(_Line, frozen=True, kw_only=True):
    """A customer's own prices, from now on or in steps that build on each other."""

    steps: Annotated[tuple[StepLine, ...], msgspec.Meta(min_length=1, max_length=STEPS_MAX)]


class Terms(NamedTuple):
    """What takes the place of a price: a charge, and the quota where that changes too."""

    charge: Charge
    quota: Quota | None = None
    charges: Mapping[str, Charge] = MappingProxyType({})


class Step(NamedTuple):
    """Agreed terms by the key of the plan's price, from an instant on; None: from now on."""

    at: datetime | None
    terms: Mapping[str, Terms]


def steps_of(file: AgreementFile) -> list[Step]:
    """Return the steps of an agreement as it was written. Raises: Invalid."""
    return [
        Step(
            None if line.at is None else parse_instant(line.at, field=f"steps[{place}].at"),
            {
                key: Terms(one.charge, _quota(one.quota), one.charges)
                for key, one in line.prices.items()
            },
        )
        for place, line in enumerate(file.steps)
    ]


def _quota(line: QuotaLine | None) -> Quota | None:
    return None if line is None else Quota(parse_quantity(line.limit), line.hard)


def agree(
    tx: Tx,
    *,
    customer_id: UUID,
    steps_: Sequence[Step],
    now: datetime,
    can_pay: steps.CanPay | None = None,
) -> list[Price]:
    """Agree on prices, now or in steps; what was agreed before and is to come is dropped.

    Each step builds on the one before. Returns the prices that were made. Locks: the
    subscription. Emits: subscription.updated, subscription.ramp_agreed. Raises: NotFound, Invalid,
    Conflict when nothing can be changed, or another change is to come.
    """
    live = changes.up_to_date(tx, customer_id, now=now, can_pay=can_pay)
    rules.check_changeable(live)
    _check(steps_, now=now)
    if changes.pending(tx, live):
        raise errors.change_waits()
    current = parts.of_plan(steps.items_of(tx, live))
    book = steps.prices_of(tx, current)
    seats = rules.seats_of(current, book)
    pinned = [book[item.price_id] for item in current]
    store.settle_pending(tx, live, ChangeState.DROPPED)
    made: list[Price] = []
    for step in steps_:
        pinned, new = _replaced(tx, live, pinned, step.terms, now=now)
        made += new
        at = now if step.at is None else step.at
        change = steps.change_to(
            live, live.plan_key, [p.price_id for p in pinned], seats, effective_at=at, now=now,
            state=ChangeState.DONE if step.at is None else ChangeState.QUEUED,
        )  # fmt: skip
        store.insert_change(tx, change)
        if step.at is None:
            live = steps.go_to(tx, live, change, at=now, now=now)
    _tell(tx, live, steps_, now=now)
    return made


def _check(steps_: Sequence[Step], *, now: datetime) -> None:
    if not 1 <= len(steps_) <= STEPS_MAX:
        raise errors.bad_ramp(f"write 1 to {STEPS_MAX} steps")
    last: datetime | None = None
    for place, step in enumerate(steps_):
        if not step.terms:
            raise errors.bad_ramp(f"step {place + 1} changes no price; name one")
        if step.at is None and place:
            raise errors.bad_ramp("only the first step can begin now; give the others an instant")
        if step.at is not None and (step.at <= now or (last is not None and step.at <= last)):
            raise errors.bad_ramp(f"step {place + 1} begins too early; steps follow each other")
        last = step.at or last


def _replaced(
    tx: Tx, live: Subscription, pinned: Sequence[Price], wanted: Mapping[str, Terms], *,
    now: datetime,
) -> tuple[list[Price], list[Price]]:  # fmt: skip
    """Return the prices with the agreed ones in their places, and the agreed ones."""
    left, meters = dict(wanted), catalog.current(tx).meters
    prices: list[Price] = []
    made: list[Price] = []
    for price in pinned:
        terms = left.pop(price.listed_key, None)
        if terms is None:
            prices.append(price)
            continue
        _check_terms(price, terms, meters)
        charges = {**price.charges, **terms.charges}
        quota = terms.quota or price.quota
        agreed = replace(price, charge=terms.charge, quota=quota, charges=charges)
        made.append(catalog.negotiate(tx, agreed, live.customer_id, now=now))
        prices.append(made[-1])
    if left:
        raise errors.unknown_price(next(iter(left)))
    return prices, made


def _check_terms(price: Price, terms: Terms, meters: Mapping[str, Meter]) -> None:
    """Refuse terms that do not fit what they replace, as the catalog would. Raises: Invalid."""
    if price.meter_key is not None and isinstance(terms.charge, Seat):
        detail = "a seat charge counts seats, not usage; charge by unit"
        raise Invalid(detail, code="seat_with_meter", field="charge")
    if terms.charges and price.by is None:
        detail = "this price has no charges by value; leave them out"
        raise Invalid(detail, code="missing_dimension", field="charges")
    if terms.quota is not None and price.meter_key is None:
        detail = "a quota limits a meter; this price is a fee"
        raise Invalid(detail, code="quota_without_meter", field="quota")
    selling.check_included(price.meter_key, terms.charge, field="charge.included_per_seat")
    selling.check_values(terms.charges, field="charges")
    if price.meter_key is not None and terms.quota is not None and terms.quota.hard:
        selling.check_hard(meters[price.meter_key], field="quota.hard")


def _tell(tx: Tx, live: Subscription, steps_: Sequence[Step], *, now: datetime) -> None:
    to_come = [instant_text(step.at) for step in steps_ if step.at is not None]
    if to_come:
        outbox.emit(
            tx, "subscription.ramp_agreed", customer_id=live.customer_id,
            subject=live.subscription_id, data={"steps": to_come}, now=now,
        )  # fmt: skip
