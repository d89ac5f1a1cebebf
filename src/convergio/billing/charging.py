"""From what is owed to what is to be paid: coupons, promotional credit, netting and tax.

The order is fixed: coupons in the order of their redemption, then what reductions take back, then
promotional credit, then tax on what is left (RULES 6, 11, 12). The customer's credit balance and
payments come afterwards, for they pay. A customer whose tax cannot be told is left out with the
reason until it can. Where no tax file, coupon or grant exists, three small reads a page find
out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from convergio.billing import bearing, crediting, store
from convergio.billing.model import PLAIN, Bearing, CreditDraft, Draft, Line, Problem
from convergio.billing.owing import Prices
from convergio.billing.rules import FEE, USAGE
from convergio.catalog.model import Price
from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.discounts import actions as discounts
from convergio.discounts import rules as discounting
from convergio.discounts.model import Discountable, Draw
from convergio.infra.db import Tx
from convergio.kernel.errors import ConvergioError
from convergio.kernel.money import Money
from convergio.kernel.periods import day_in
from convergio.rating.taxing import GroupKey, Place, TaxBook, TaxCalculator, Unknown
from convergio.subscriptions.model import BillingView
from convergio.taxes import actions as taxes

TAX_UNKNOWN: Final = "tax_unknown"
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Charged:
    """Invoices and credit notes with discounts and taxes, and whose tax cannot be told."""

    drafts: list[Draft]
    notes: list[CreditDraft]
    problems: list[Problem]


@dataclass(slots=True)
class _World:
    """What decides discounts and taxes of a page of customers; `calculator` is None without tax."""

    prices: Prices
    left: crediting.Left
    credited: bearing.Credited
    offers: discounts.Offers
    calculator: TaxCalculator | None
    places: Mapping[UUID, Place]
    zones: Mapping[UUID, str]
    known: dict[tuple[UUID, str, date], Bearing | Unknown] = field(default_factory=dict)

    def has_offers(self, customer_id: UUID) -> bool:
        """Say whether a customer has anything that may take something off."""
        offers = self.offers
        return bool(offers.redemptions.get(customer_id) or offers.grants.get(customer_id))


class _TaxUnknown(Exception):
    """Leaves the charging of one customer, with the reason."""


def charged(
    tx: Tx,
    views: Sequence[BillingView],
    drafts: Sequence[Draft],
    prices: Prices,
    *,
    keyring: Keyring | None,
) -> Charged:
    """Return what these drafts become once discounts, reductions and taxes are in them.

    Without a keyring no region is known, and a customer whose tax depends on it is a problem.
    """
    if not drafts:
        return Charged([], [], [])
    ids = sorted({draft.customer_id for draft in drafts})
    taking = sorted({d.customer_id for d in drafts if any(x.amount.minor < 0 for x in d.lines)})
    stored = taxes.stored(tx)
    offers = discounts.offers(tx, ids)
    if stored is None and not taking and not offers.redemptions and not offers.grants:
        return Charged(list(drafts), [], [])
    world = _World(
        prices,
        crediting.Left(store.list_creditable(tx, taking) if taking else ()),
        bearing.Credited(taxes.credited(tx, taking) if taking else {}),
        offers,
        None if stored is None else stored.book,
        {} if stored is None else _places(tx, ids, stored.book, keyring),
        {
            one.subscription.subscription_id: one.subscription.time_zone
            for view in views
            for one in view.agreements
        },
    )
    found = Charged([], [], [])
    out: set[UUID] = set()
    for draft in drafts:
        if draft.customer_id in out:
            continue
        try:
            invoice, notes = _charged(draft, world)
        except _TaxUnknown as error:
            out.add(draft.customer_id)
            found.problems.append(Problem(draft.customer_id, TAX_UNKNOWN, str(error)))
            continue
        found.drafts.extend([] if invoice is None else [invoice])
        found.notes.extend(notes)
    found.drafts[:] = [one for one in found.drafts if one.customer_id not in out]
    found.notes[:] = [one for one in found.notes if one.customer_id not in out]
    return found


def _places(
    tx: Tx, ids: Sequence[UUID], book: TaxBook, keyring: Keyring | None
) -> dict[UUID, Place]:
    """Return where customers are taxed; the region is opened only where a rate depends on it."""
    accounts = customers.get_many(tx, ids)
    regional = {one.country for one in book.registrations if one.region}
    regional |= {one.country for one in book.rates if one.region}
    wanted = [one for one in accounts.values() if one.country in regional]
    regions = _regions(tx, wanted, keyring) if wanted and keyring is not None else {}
    return {
        customer_id: taxes.place_of(account, regions.get(customer_id))
        for customer_id, account in accounts.items()
    }


def _regions(tx: Tx, accounts: Sequence[Customer], keyring: Keyring) -> dict[UUID, str | None]:
    """Return the regions that can be read; one customer who cannot be read stops no other."""
    ids = [one.customer_id for one in accounts]
    try:
        found = customers.personal_many(tx, keyring, ids)
    except ConvergioError:
        found = {}
        for customer_id in ids:
            try:
                found |= customers.personal_many(tx, keyring, [customer_id])
            except ConvergioError:
                continue
    return {customer_id: personal.region for customer_id, personal in found.items()}


def _charged(draft: Draft, world: _World) -> tuple[Draft | None, list[CreditDraft]]:
    """Return the invoice and the credit notes that a draft becomes. Raises: _TaxUnknown."""
    currency = draft.total.currency
    above, below = crediting.attributed(draft, world.left)
    borne = [_taxed(line, draft, world) for line in above]
    if not below and not world.has_offers(draft.customer_id):
        lines = [
            replace(line, bearing=one) if one is not PLAIN else line
            for line, one in zip(above, borne, strict=True)
        ]
        return _invoice(draft, lines, is_taxed=world.calculator is not None), []
    items = [_item(line, one.group, world) for line, one in zip(above, borne, strict=True)]
    redeemed = world.offers.redemptions.get(draft.customer_id, [])
    coupons = discounting.coupons_off(items, redeemed, world.offers.drawn, currency=currency)
    items = [
        item._replace(amount=item.amount - sum(draw.amount for draw in draws))
        for item, draws in zip(items, coupons, strict=True)
    ]
    netted, apart = _netted(items, below)
    room = _room(items, netted)
    grants = world.offers.grants.get(draft.customer_id, [])
    credit, left = discounting.grants_off(items, grants, room, currency=currency)
    world.offers.grants[draft.customer_id] = left
    lines = [
        _discounted(line, one, (*taken, *drawn))
        for line, one, taken, drawn in zip(above, borne, coupons, credit, strict=True)
    ]
    notes = list(crediting.notes_of(draft.customer_id, apart, world.credited)) if apart else []
    return _invoice(draft, [*lines, *netted], is_taxed=world.calculator is not None), notes


def _taxed(line: Line, draft: Draft, world: _World) -> Bearing:
    """Return the tax that a line above zero bears. Raises: _TaxUnknown."""
    if world.calculator is None:
        return PLAIN
    at = bearing.tax_instant(line, draft.boundary_at, is_fresh=line.reason in {FEE, USAGE})
    day = _day(line, at, world.zones)
    price = world.prices.get(line.price_id)
    key = (draft.customer_id, f"{price.tax_category} {price.tax_inclusive}", day)
    known = world.known.get(key)
    if known is None:
        known = _decided(world.calculator, world.places[draft.customer_id], price, day)
        world.known[key] = known
    if isinstance(known, Unknown):
        raise _TaxUnknown(known.reason)
    return known


def _day(line: Line, at: datetime, zones: Mapping[UUID, str]) -> date:
    """Return the day of an instant in the subscription's zone; an end is of the day before it."""
    instant = at - _TICK if at == line.period_end else at
    return day_in(instant, zones.get(line.subscription_id, "UTC"))


def _decided(calculator: TaxCalculator, place: Place, price: Price, day: date) -> Bearing | Unknown:
    found = calculator.decide(place, price.tax_category, day)
    if isinstance(found, Unknown):
        return found
    return bearing.taxed(found, inclusive=price.tax_inclusive)


def _item(line: Line, group: GroupKey, world: _World) -> Discountable:
    return Discountable(
        line.amount.minor,
        world.prices.get(line.price_id).key,
        line.key.period_start,
        line.period_end,
        group,
    )


def _netted(items: Sequence[Discountable], below: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Return which lines below zero stay on the invoice, and which go on credit notes.

    All stay as long as no tax group turns negative; one that gives back nothing always does.
    """
    if all(room >= 0 for room in _room(items, below).values()):
        return list(below), []
    stay = [line for line in below if not bearing.net_of(line).minor]
    return stay, [line for line in below if bearing.net_of(line).minor]


def _room(items: Sequence[Discountable], netted: Sequence[Line]) -> dict[object, int]:
    """Return what each tax group of an invoice comes to, before credit and tax."""
    room: dict[object, int] = {}
    for item in items:
        room[item.group] = room.get(item.group, 0) + item.amount
    for line in netted:
        group = line.bearing.group
        room[group] = room.get(group, 0) + bearing.net_of(line).minor
    return room


def _discounted(line: Line, borne: Bearing, draws: tuple[Draw, ...]) -> Line:
    discount = sum(draw.amount for draw in draws)
    return replace(line, bearing=borne._replace(discount=discount, draws=draws))


def _invoice(draft: Draft, lines: list[Line], *, is_taxed: bool) -> Draft | None:
    """Return an invoice of these lines, in the order in which the draft had them."""
    if not lines:
        return None
    places = {line.key: place for place, line in reversed(list(enumerate(draft.lines)))}
    lines.sort(key=lambda line: places[line.key])
    rows = bearing.tax_rows(lines) if is_taxed else ()
    minor = sum(bearing.net_of(line).minor for line in lines)
    minor += sum(row.tax for row in rows if not row.inclusive)
    is_plain = not rows and all(line.bearing == PLAIN for line in lines)
    total = Money(minor, draft.total.currency)
    return replace(draft, lines=tuple(lines), total=total, taxes=rows, is_plain=is_plain)
