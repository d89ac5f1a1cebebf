"""From what is owed to what is to be paid: coupons, promotional credit, netting and tax.

The order is fixed: what reductions take back is known first and brings its discount back, then
coupons in the order of their redemption, then promotional credit, then tax on what is left (RULES
1, 6, 11, 12). The customer's credit balance and payments come afterwards, for they pay. Whose tax
cannot be told, or whose facts contradict each other, is left out with the reason until they do not.
Where no tax file, coupon or grant exists, three small reads a page find out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final
from uuid import UUID

from convergio.billing import bearing, crediting, declaring, gathering, store
from convergio.billing.gathering import Made
from convergio.billing.model import PLAIN, Bearing, CreditDraft, Draft, Line, Problem
from convergio.billing.owing import Prices
from convergio.billing.rules import BROKEN, broken
from convergio.catalog.model import Price
from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.discounts import actions as discounts
from convergio.discounts import rules as discounting
from convergio.discounts.model import Discountable, Draw, LinePlace
from convergio.infra.db import Tx
from convergio.kernel.errors import ConvergioError
from convergio.kernel.money import Money
from convergio.kernel.periods import day_in
from convergio.rating.taxing import GroupKey, Place, TaxBook, TaxCalculator, Unknown
from convergio.subscriptions.model import BillingView
from convergio.taxes import actions as taxes
from convergio.taxes.model import Stored

TAX_UNKNOWN: Final = "tax_unknown"
_TICK: Final = timedelta(microseconds=1)
_CUSTOMER: Final = attrgetter("customer_id")


@dataclass(frozen=True, slots=True)
class Charged:
    """Invoices and credit notes with discounts and taxes, and who is left out and why.

    Of those who are `waiting` something is not worth asking for yet.
    """

    drafts: list[Draft]
    notes: list[CreditDraft]
    problems: list[Problem]
    waiting: frozenset[UUID] = frozenset()


@dataclass(slots=True)
class World:
    """What decides discounts and taxes of a page of customers; `calculator` is None without tax."""

    prices: Prices
    left: crediting.Left
    credited: bearing.Credited
    offers: discounts.Offers
    calculator: TaxCalculator | None
    places: Mapping[UUID, Place]
    zones: Mapping[UUID, str]
    known: dict[tuple[UUID, str, date], Bearing | Unknown] = field(default_factory=dict)
    stored: Stored | None = None
    taken: dict[LinePlace, list[Draw]] = field(default_factory=dict)

    def has_offers(self, customer_id: UUID) -> bool:
        """Say whether a customer has anything that may take something off."""
        offers = self.offers
        return bool(offers.redemptions.get(customer_id) or offers.grants.get(customer_id))

    def remembered(self, draft: Draft) -> Callable[[], None]:
        """Return what forgets all that making documents of a draft is about to use up.

        Only what is of its customer is kept, for a page has a thousand of them; of coupons it is
        all, where the customer has one.
        """
        who, offers = draft.customer_id, self.offers
        is_taking = any(line.amount.minor < 0 for line in draft.lines)
        left = self.left.of(who) if is_taking else {}
        rows = [row for some in left.values() for row in some]
        places: list[LinePlace] = [(row.invoice_id, row.line_number) for row in rows]
        taken = {place: self.taken[place] for place in places if place in self.taken}
        groups = {(row.invoice_id, bearing.share(row, row.remaining).group) for row in rows}
        credited = {key: self.credited.of.get(key, (0, 0)) for key in groups}
        drawn = dict(offers.drawn) if offers.redemptions.get(who) else None
        grants = offers.grants.get(who)

        def forget() -> None:
            if is_taking:
                self.left.restore(who, left)
                self.taken |= taken
                self.credited.of.update(credited)
            if drawn is not None:
                offers.drawn = drawn
            if grants is not None:
                offers.grants[who] = grants

        return forget


class TaxUnknown(Exception):
    """Leaves the charging of one customer, with the reason."""


def charged(
    tx: Tx,
    views: Sequence[BillingView],
    drafts: Sequence[Draft],
    prices: Prices,
    *,
    day: date,
    keyring: Keyring | None,
) -> Charged:
    """Return what these drafts become once discounts, reductions and taxes are in them.

    Without a keyring no region is known, and a customer whose tax depends on it is a problem.
    `day` is when they would be issued, which decides the rate of exchange.
    """
    if not drafts:
        return Charged([], [], [])
    ids = sorted({draft.customer_id for draft in drafts})
    taking = sorted({d.customer_id for d in drafts if any(x.amount.minor < 0 for x in d.lines)})
    stored = taxes.stored(tx)
    offers = discounts.offers(tx, ids)
    is_bare = stored is None and not taking and not offers.redemptions and not offers.grants
    if is_bare and not prices.minimums:
        return Charged(list(drafts), [], [])
    world = _world(tx, views, ids, prices, offers, stored, keyring)
    if taking:
        world.left = crediting.Left(store.list_creditable(tx, taking))
        world.credited = bearing.Credited(taxes.credited(tx, taking))
        offered = [one for one in taking if one in offers.redemptions or one in offers.grants]
        world.taken = discounts.taken(tx, offered) if offered else {}
    found = Charged([], [], [])
    waiting: set[UUID] = set()
    live = {view.customer_id for view in views if view.is_live}
    for customer_id, some in groupby(drafts, _CUSTOMER):
        try:
            made, waits = documents(
                list(some), world, prices.minimums, is_final=customer_id not in live
            )
        except TaxUnknown as error:
            found.problems.append(Problem(customer_id, TAX_UNKNOWN, str(error)))
        except BROKEN as error:
            found.problems.append(broken(customer_id, error))
        else:
            found.drafts.extend(one.invoice for one in made if one.invoice is not None)
            found.notes.extend(note for one in made for note in one.notes)
            waiting.update({customer_id} if waits else ())
    drafts, notes, unstated = declaring.declared(
        tx, found.drafts, found.notes, stored=stored, places=world.places, day=day
    )
    return Charged(drafts, notes, found.problems + unstated, frozenset(waiting))


def documents(
    drafts: Sequence[Draft], world: World, minimums: Mapping[str, Money], *, is_final: bool
) -> tuple[list[Made], list[Draft]]:
    """Return what a customer's drafts become, and those that wait for they ask for too little.

    Who leaves (`is_final`) is asked for all. Raises: TaxUnknown.
    """
    if not minimums:
        return [Made(*charge(draft, world)) for draft in drafts], []
    forgets: list[Callable[[], None]] = []

    def make(draft: Draft) -> Made:
        forgets[:] = [world.remembered(draft)]
        return Made(*charge(draft, world))

    def undo() -> None:
        forgets[0]()

    return gathering.made(drafts, make, undo, minimums, is_final=is_final)


def fresh_world(
    tx: Tx, views: Sequence[BillingView], prices: Prices, *, keyring: Keyring | None
) -> World:
    """Return what decides of these customers, as if nothing was billed or offered yet."""
    ids = [view.customer_id for view in views]
    return _world(tx, views, ids, prices, discounts.Offers(), taxes.stored(tx), keyring)


def _world(  # noqa: PLR0917 - the parts of one value, named at both calls
    tx: Tx,
    views: Sequence[BillingView],
    ids: Sequence[UUID],
    prices: Prices,
    offers: discounts.Offers,
    stored: Stored | None,
    keyring: Keyring | None,
) -> World:
    return World(
        prices,
        crediting.Left(()),
        bearing.Credited({}),
        offers,
        None if stored is None else stored.book,
        {} if stored is None else _places(tx, ids, stored.book, keyring),
        {
            one.subscription.subscription_id: one.subscription.time_zone
            for view in views
            for one in view.agreements
        },
        stored=stored,
    )


def _places(
    tx: Tx, ids: Sequence[UUID], book: TaxBook, keyring: Keyring | None
) -> dict[UUID, Place]:
    """Return where customers are taxed; the region is opened only where a rate depends on it."""
    accounts = customers.get_many(tx, ids)
    evidence = taxes.evidence_of(tx, ids)
    regional = {one.country for one in book.registrations if one.region}
    regional |= {one.country for one in book.rates if one.region}
    wanted = [one for one in accounts.values() if one.country in regional]
    regions = _regions(tx, wanted, keyring) if wanted and keyring is not None else {}
    return {
        customer_id: taxes.place_of(
            account, regions.get(customer_id), evidence.get(customer_id, ())
        )
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


def charge(draft: Draft, world: World) -> tuple[Draft | None, list[CreditDraft]]:
    """Return the invoice and the credit notes that a draft becomes. Raises: TaxUnknown."""
    currency = draft.total.currency
    above, below = crediting.attributed(draft, world.left)
    borne = [_taxed(line, draft, world) for line in above]
    below = [_given_back(line, draft.customer_id, world) for line in below]
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
    is_apart = world.stored is not None and world.stored.credits_apart(currency)
    netted, apart = _netted(items, below, is_apart=is_apart)
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


def _given_back(line: Line, customer_id: UUID, world: World) -> Line:
    """Return a line below zero with what its share of a discount goes back to.

    Coupons and credit have it again before anything is taken off this document.
    """
    if line.origin is None or not line.bearing.discount:
        return line
    draws = crediting.returned(world.taken, line.origin, line.bearing.discount)
    drawn, back = world.offers.drawn, dict[UUID, int]()
    for one in draws:
        if one.period_number is None:
            back[one.source_id] = -one.amount
        else:
            key = one.source_id, one.period_number
            drawn[key] = drawn.get(key, 0) + one.amount
    if back:
        world.offers.grants[customer_id] = [
            grant._replace(left=grant.left + back.get(grant.grant_id, 0))
            for grant in world.offers.grants.get(customer_id, ())
        ]
    return replace(line, bearing=line.bearing._replace(draws=draws))


def _taxed(line: Line, draft: Draft, world: World) -> Bearing:
    """Return the tax that a line above zero bears. Raises: TaxUnknown."""
    if world.calculator is None:
        return PLAIN
    day = _day(line, bearing.tax_instant(line), world.zones)
    price = world.prices.get(line.price_id)
    key = (draft.customer_id, f"{price.tax_category} {price.tax_inclusive}", day)
    known = world.known.get(key)
    if known is None:
        known = _decided(world.calculator, world.places[draft.customer_id], price, day)
        world.known[key] = known
    if isinstance(known, Unknown):
        raise TaxUnknown(known.reason)
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


def _item(line: Line, group: GroupKey, world: World) -> Discountable:
    return Discountable(
        line.amount.minor,
        world.prices.get(line.price_id).listed_key,
        line.key.period_start,
        line.period_end,
        group,
    )


def _netted(
    items: Sequence[Discountable], below: Sequence[Line], *, is_apart: bool
) -> tuple[list[Line], list[Line]]:
    """Return which lines below zero stay on the invoice, and which go on credit notes.

    All stay as long as no tax group turns negative, unless they must stand apart; one that gives
    back nothing always does.
    """
    if not is_apart and all(room >= 0 for room in _room(items, below).values()):
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
