"""Bill the past again, in memory: what runs would have written at other prices, or at the same.

It goes the way of the run, through the same pure functions: owed, the difference from what is
billed by then, coupons, what reductions take back, promotional credit, tax. What documents say is
taken from them alone: when a charge was first billed and at which quantity, so that what came late
comes late again. At the prices of today it gives the very cents that were billed; where a person
credited or voided, documents say `by_hand`, and the past is billed as if nobody had.

Nothing is written, and nothing is read but in `ground`.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID

from convergio.billing import bearing, charging, crediting, owing, rules, store
from convergio.billing.model import (
    Billed,
    ChargeKey,
    Creditable,
    CreditDraft,
    Draft,
    Kind,
    Line,
    PastLine,
)
from convergio.crypto.actions import Keyring
from convergio.discounts import actions as discounts
from convergio.discounts.model import Draw, Grant, Redemption
from convergio.entitlements import grants
from convergio.entitlements.model import Category, CreditGrant
from convergio.infra.db import Tx
from convergio.kernel.errors import Conflict
from convergio.kernel.periods import Period
from convergio.kernel.quantity import add_up
from convergio.metering import actions as metering
from convergio.metering.model import Slice, UsageKey
from convergio.subscriptions.model import Agreement, BillingView, Item, Status

_ZERO: Final = Decimal(0)
_FRESH: Final = frozenset({rules.FEE, rules.USAGE})
_WHO: Final = attrgetter("customer_id")
_PAGE: Final = 10_000


class Step(NamedTuple):
    """A run that wrote documents: when, and up to which boundary. The last one has no `at`."""

    at: datetime | None
    closed: datetime


@dataclass(frozen=True, slots=True)
class Past:
    """What a customer's documents say of when something was known."""

    steps: tuple[Step, ...] = ()
    billed_at: Mapping[datetime, datetime] = field(default_factory=dict)
    seen: Mapping[ChargeKey, Sequence[tuple[datetime, Decimal]]] = field(default_factory=dict)
    by_hand: bool = False
    arrived: dict[ChargeKey, list[tuple[datetime, Decimal]]] = field(default_factory=dict)

    def knows(self, key: ChargeKey, at: datetime) -> bool:
        """Say whether a charge was billed by then; one that never was comes when it is due."""
        seen = self.seen.get(key)
        return not seen or seen[0][0] <= at

    def quantity_of(self, key: ChargeKey, at: datetime) -> Decimal | None:
        """Return what was known of a charge's usage by then; None: all that is known today.

        What a document billed says it; where none did yet, when the events arrived.
        """
        seen = self.seen.get(key, ())
        if seen and seen[-1][0] <= at:
            return None
        for when, quantity in reversed(seen):
            if when <= at:
                return quantity
        if key not in self.arrived:
            return None
        return add_up(quantity for when, quantity in self.arrived[key] if when <= at)


class Sums(NamedTuple):
    """What documents of a time come to, in minor units: revenue after discounts, and tax."""

    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class Used:
    """Usage of a page of customers, and what of it was drawn from prepaid credit."""

    usage: dict[UsageKey, Decimal]
    drawn: owing.Usage = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ground:
    """What does not depend on prices, for a page of customers."""

    world: charging.World
    pasts: Mapping[UUID, Past]
    redeemed: Mapping[UUID, Sequence[Redemption]]
    credit: Mapping[UUID, Sequence[CreditGrant]]
    spent: Mapping[UUID, int]
    billed: Mapping[UUID, Sums]


def ground(
    tx: Tx, views: Sequence[BillingView], prices: owing.Prices, *, keyring: Keyring, during: Period
) -> Ground:
    """Read what decides beside prices and usage, and what documents of a time come to."""
    ids = [view.customer_id for view in views]
    lines = store.list_past_lines(tx, ids)
    pasts = {who: _past(list(some)) for who, some in groupby(lines, _WHO)}
    for view in views:
        _arrivals(tx, view, pasts.get(view.customer_id, Past()), prices, during.end)
    credit = grants.in_money(tx, ids)
    sums = store.sum_documents(tx, ids, since=during.start, until=during.end)
    return Ground(
        charging.fresh_world(tx, views, prices, keyring=keyring),
        pasts,
        discounts.offers(tx, ids).redemptions,
        credit,
        discounts.drawn_of_grants(tx, sorted(credit)) if credit else {},
        {who: Sums(*some) for who, some in sums.items()},
    )


def _past(lines: Sequence[PastLine]) -> Past:
    """Read a customer's documents, in the order in which they were written."""
    billed_at = {one.boundary_at: one.at for one in lines if one.boundary_at is not None}
    if any(one.by_hand for one in lines):
        return Past(billed_at=billed_at, by_hand=True)
    if all(one.reason in _FRESH for one in lines):
        return Past(billed_at=billed_at)
    seen: dict[ChargeKey, list[tuple[datetime, Decimal]]] = {}
    for one in lines:
        known = seen.setdefault(one.key, [])
        known.append((one.at, add_up((known[-1][1] if known else _ZERO, one.quantity))))
    steps = [
        Step(at, max((x.boundary_at for x in some if x.boundary_at is not None), default=at))
        for at, group in groupby(lines, attrgetter("at"))
        for some in (list(group),)
    ]
    return Past(tuple(steps), billed_at, seen)


def _arrivals(
    tx: Tx, view: BillingView, past: Past, prices: owing.Prices, closed: datetime
) -> None:
    """Read when usage arrived where a change cut a period, for its stretches share what is free.

    Only of a customer of whom something was billed late; else all came in time.
    """
    if not past.steps:
        return
    cut: dict[tuple[str, Period, str], list[owing.Stretch]] = {}
    for part in prices.parts_of(view, closed):
        meter_key = part.price.meter_key
        if meter_key is not None and meter_key not in prices.unsummed:
            cut.setdefault((meter_key, part.period, part.value), []).append(part)
    for (meter_key, _, _), parts in cut.items():
        for part in parts if len(parts) > 1 else ():
            key = ChargeKey(part.item.item_id, part.period.start, Kind.USAGE, part.value)
            past.arrived[key] = _events(tx, view.customer_id, meter_key, part)


def _events(
    tx: Tx, customer_id: UUID, meter_key: str, part: owing.Stretch
) -> list[tuple[datetime, Decimal]]:
    found: list[tuple[datetime, Decimal]] = []
    used_of, after = part.used_of, None
    while some := metering.events_in(
        tx, customer_id=customer_id, meter_key=meter_key, period=part.active, after=after,
        limit=_PAGE, part=used_of if isinstance(used_of, Slice) else None,
    ):  # fmt: skip
        found += [(one.received_at, one.quantity) for one in some]
        after = some[-1].event_key
    return found


def rebilled(
    view: BillingView,
    prices: owing.Prices,
    used: Used,
    found: Ground,
    *,
    closed: datetime,
    during: Period,
) -> Sums:
    """Return what a customer would have been billed for boundaries in `during`.

    Rounds: as the run does. Raises: what would keep the customer from being billed.
    """
    past = found.pasts.get(view.customer_id, Past())
    books = _Books(view.customer_id, found, prices, during)
    for step in (*past.steps, Step(None, closed)):
        if step.at is None or step.closed <= closed:
            seen = view if step.at is None else _as_known(view, step.at)
            drafts = _drafts(seen, prices, used, past, step, books)
            books.write(
                [(step.at or past.billed_at.get(d.boundary_at, d.boundary_at), d) for d in drafts],
                is_final=not seen.is_live,
            )
    return Sums(books.net, books.tax)


class _Books:
    """What is billed so far, in memory."""

    def __init__(
        self, customer_id: UUID, found: Ground, prices: owing.Prices, during: Period
    ) -> None:
        self.billed: dict[ChargeKey, Billed] = {}
        self.last: datetime | None = None
        self.net = self.tax = 0
        self._who, self._during = customer_id, during
        self._redeemed = found.redeemed.get(customer_id, ())
        self._credit = found.credit.get(customer_id, ())
        self._left = {one.grant_id: _granted(one, found.spent) for one in self._credit}
        self._keys: dict[tuple[UUID, int], ChargeKey] = {}
        self._world = replace(
            found.world, prices=prices, left=crediting.Left(()), credited=bearing.Credited(),
            offers=discounts.Offers(), known={}, taken={},
        )  # fmt: skip

    def write(self, drafts: Sequence[tuple[datetime, Draft]], *, is_final: bool) -> None:
        """Make documents of drafts, each at its instant, and keep what they bill.

        Raises: Conflict where the tax cannot be told.
        """
        waiting: list[Draft] = []
        minimums = self._world.prices.minimums
        for place, (at, draft) in enumerate(drafts, 1):
            self._offer(at)
            ends = is_final and place == len(drafts)
            try:
                made, waiting = charging.documents(
                    [*waiting, draft], self._world, minimums, is_final=ends
                )
            except charging.TaxUnknown as error:
                raise Conflict(str(error), code=charging.TAX_UNKNOWN) from None
            credit = self._world.offers.grants[self._who]
            self._left |= {one.grant_id: one.left for one in credit}
            for one in made:
                if one.invoice is not None:
                    self._invoice(one.invoice)
                for note in one.notes:
                    self._note(note, at)

    def _offer(self, at: datetime) -> None:
        """Let what was redeemed and granted by then take off what is made next."""
        offers = self._world.offers
        offers.redemptions[self._who] = [one for one in self._redeemed if one.redeemed_at <= at]
        offers.grants[self._who] = [
            Grant(one.grant_id, one.starts_at, one.expires_at, self._left[one.grant_id])
            for one in self._credit
            if one.created_at <= at and one.category == Category.PROMOTIONAL
        ]

    def _invoice(self, invoice: Draft) -> None:
        invoice_id = UUID(int=len(self._keys) + 1)
        for number, line in enumerate(invoice.lines, 1):
            self._add(line.key, line.amount.minor, line.quantity, line.period_end)
            self._keys[invoice_id, number] = line.key
            self._world.left.add(_creditable(self._who, invoice_id, number, line))
            if line.bearing.draws:
                draws = sorted(line.bearing.draws, key=_in_store_order)
                self._world.taken[invoice_id, number] = draws
        self.last = max(self.last or invoice.boundary_at, invoice.boundary_at)
        if self._during.contains(invoice.boundary_at):
            self._count(invoice.total.minor, sum(row.tax for row in invoice.taxes))

    def _note(self, note: CreditDraft, at: datetime) -> None:
        for line in note.lines:
            key = self._keys[note.invoice_id, line.invoice_line]
            self._add(key, -line.amount.minor, -line.quantity, None)
        if self._during.contains(at):
            self._count(-note.total.minor, -sum(row.tax for row in note.taxes))

    def _count(self, total: int, tax: int) -> None:
        self.net += total - tax
        self.tax += tax

    def _add(self, key: ChargeKey, minor: int, quantity: Decimal, end: datetime | None) -> None:
        known = self.billed.get(key)
        if known is None:
            self.billed[key] = Billed(minor, quantity, end or key.period_start)
            return
        later = known.period_end if end is None else max(end, known.period_end)
        self.billed[key] = Billed(known.amount + minor, add_up((known.quantity, quantity)), later)


def _granted(one: CreditGrant, spent: Mapping[UUID, int]) -> int:
    """Return what invoices could draw of credit: of what was voided, what they had drawn."""
    return spent.get(one.grant_id, 0) if one.voided_at is not None else one.amount or 0


def _in_store_order(draw: Draw) -> tuple[bool, int, UUID]:
    """Return the place of a draw among those of its line, for a cent goes back to the first."""
    return draw.period_number is None, draw.period_number or 0, draw.source_id


def _creditable(who: UUID, invoice_id: UUID, number: int, line: Line) -> Creditable:
    bears = line.bearing
    return Creditable(
        who, invoice_id, number, line.key.item_id, line.key.period_start, line.key.kind,
        line.key.dimensions, line.description, line.amount.currency, line.amount.minor,
        bears.discount, bears.category, bears.rate, bears.treatment, bears.inclusive,
    )  # fmt: skip


def _drafts(  # noqa: PLR0917 - one call, all of it decides
    view: BillingView,
    prices: owing.Prices,
    used: Used,
    past: Past,
    step: Step,
    books: _Books,
) -> Sequence[Draft]:
    """Return what a run would bill a customer as known by then, before discounts and tax."""
    at = step.at
    if at is None:
        usage: owing.Usage = used.usage
        drawn = used.drawn
    else:
        usage = ChainMap(dict(_masked(view, prices, past, at, step.closed)), used.usage)
        drawn = _masked_credit(view.customer_id, usage, used.drawn)
    charges = owing.owed(view, prices, usage, closed=step.closed, drawn=drawn)
    if at is not None:
        charges = {key: one for key, one in charges.items() if past.knows(key, at)}
    drafts, problems = rules.settle(
        view, prices, charges, books.billed, last_boundary=books.last, closed=step.closed
    )
    if problems:
        raise Conflict(problems[0].reason, code=problems[0].code)
    return drafts


def _as_known(view: BillingView, at: datetime) -> BillingView:
    """Return a customer without the ends that were still to come."""
    return replace(
        view,
        agreements=tuple(
            _agreement(one, at) for one in view.agreements if one.subscription.created_at <= at
        ),
    )


def _agreement(one: Agreement, at: datetime) -> Agreement:
    subscription = one.subscription
    if subscription.canceled_at is not None and subscription.canceled_at > at:
        subscription = replace(subscription, canceled_at=None, status=Status.ACTIVE)
    return replace(
        one, subscription=subscription, items=tuple(_item(item, at) for item in one.items)
    )


def _item(item: Item, at: datetime) -> Item:
    ends = item.active_until
    if ends is None or ends <= at or ends == item.active_from:
        return item
    return item._replace(active_until=None, credited=False, end_reason=None)


def _masked(
    view: BillingView, prices: owing.Prices, past: Past, at: datetime, closed: datetime
) -> Iterator[tuple[UsageKey, Decimal]]:
    """Yield usage as it was known, where more of it came later."""
    for part in prices.parts_of(view, closed):
        if part.price.meter_key is not None:
            key = ChargeKey(part.item.item_id, part.period.start, Kind.USAGE, part.value)
            quantity = past.quantity_of(key, at)
            if quantity is not None:
                yield (view.customer_id, part.used_of, part.start), quantity


def _masked_credit(
    customer_id: UUID, usage: Mapping[UsageKey, Decimal], drawn: owing.Usage
) -> owing.Usage:
    """Return what was drawn of a customer's credit: at most what was known to be used."""
    if not drawn:
        return drawn
    return {
        key: min(taken, usage.get(key, _ZERO))
        for key, taken in drawn.items()
        if key[0] == customer_id
    }
