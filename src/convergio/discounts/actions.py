"""Offer coupons, redeem them, and keep what discounts took off the lines of invoices."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog
from convergio.catalog.model import Catalog
from convergio.discounts import errors, rules, store
from convergio.discounts.model import (
    Coupon,
    Draw,
    DrawRow,
    Grant,
    LinePlace,
    OverdrawnRow,
    Redemption,
    Terms,
)
from convergio.entitlements import grants
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.kernel.errors import Difference
from convergio.kernel.periods import Calendar

_PAGE: Final = 500
_FIRST: Final = UUID(int=0)


@dataclass(slots=True)
class Offers:
    """What may take something off the invoices of some customers, and what it took already."""

    redemptions: dict[UUID, list[Redemption]] = field(default_factory=dict)
    grants: dict[UUID, list[Grant]] = field(default_factory=dict)
    drawn: dict[tuple[UUID, int], int] = field(default_factory=dict)


def create(tx: Tx, terms: Terms, *, now: datetime) -> Coupon:
    """Offer a coupon. Emits: coupon.created. Raises: Invalid; Conflict where the code is taken."""
    rules.check_terms(terms)
    found = catalog.current(tx)
    sold = {price.key for price in found.prices_by_id.values()}
    rules.check_names(
        terms,
        has_plan=lambda key: key in found.plans or key in found.archived,
        has_price=sold.__contains__,
    )
    coupon = Coupon(new_id(now), terms, 0, now, None)
    if not store.insert_coupon(tx, coupon.coupon_id, terms, created_at=now):
        raise errors.coupon_exists(terms.code)
    outbox.emit(tx, "coupon.created", subject=coupon.coupon_id, now=now)
    return coupon


def find(tx: Tx, code: str) -> Coupon:
    """Return the coupon with a code. Raises: NotFound."""
    coupon = store.find_coupon(tx, code) if rules.is_code(code) else None
    if coupon is None:
        raise errors.unknown_coupon()
    return coupon


def page(tx: Tx, *, after: UUID | None = None, limit: int = 100) -> list[Coupon]:
    """Return the next coupons in the order of their making."""
    return store.page_coupons(tx, after=after, limit=limit)


def archive(tx: Tx, code: str, *, now: datetime) -> Coupon:
    """Take a coupon off offer; what was redeemed goes on. Raises: NotFound."""
    coupon = find(tx, code)
    store.archive_coupon(tx, coupon.coupon_id, archived_at=now)
    return find(tx, code)


def redeem(
    tx: Tx,
    *,
    customer_id: UUID,
    code: str,
    currency: str,
    plan_key: str,
    calendar: Calendar,
    first: int,
    now: datetime,
) -> Redemption:
    """Redeem a code for a customer, for the periods of a calendar from a number on.

    Both limits hold however many redeem at once: the coupon's row is held before anything is
    counted. Locks: the coupon. Emits: coupon.redeemed. Raises: Conflict, the same for every code
    that does not work.
    """
    coupon = store.find_coupon(tx, code) if rules.is_code(code) else None
    found = catalog.current(tx)
    sold = frozenset(_keys(found, plan_key))
    if coupon is None or not rules.is_on_offer(
        coupon, currency=currency, plan_key=plan_key, sold=sold, now=now
    ):
        raise errors.not_redeemable()
    if not store.take_coupon(tx, coupon.coupon_id):
        raise errors.not_redeemable()
    terms = coupon.terms
    if store.count_redeemed(tx, customer_id, coupon.coupon_id) >= terms.limit_customer:
        raise errors.not_redeemable()
    plans = {plan: _keys(found, plan) for plan in terms.plans}
    one = Redemption(
        customer_id, new_id(now), coupon.coupon_id, terms.code, terms.name, terms.percent,
        terms.amount, terms.currency, now, rules.span_of(terms, calendar, first=first),
        rules.allowed_prices(terms, plans),
    )  # fmt: skip
    store.insert_redemption(tx, one)
    outbox.emit(
        tx,
        "coupon.redeemed",
        customer_id=customer_id,
        subject=one.redemption_id,
        data={"code": terms.code},
        now=now,
    )
    return one


def _keys(found: Catalog, plan_key: str) -> list[str]:
    plan = found.plans.get(plan_key) or found.archived.get(plan_key)
    return [] if plan is None else [price.key for price in plan.prices]


def redemptions(tx: Tx, customer_id: UUID) -> list[Redemption]:
    """Return what a customer redeemed, in the order of use."""
    return store.list_redemptions(tx, [customer_id])


def offers(tx: Tx, customer_ids: Sequence[UUID]) -> Offers:
    """Return what may take something off the invoices of these customers.

    The caller holds their subscriptions, so nobody else draws meanwhile.
    """
    found = Offers()
    for one in store.list_redemptions(tx, customer_ids):
        found.redemptions.setdefault(one.customer_id, []).append(one)
    if any(one.amount is not None for some in found.redemptions.values() for one in some):
        found.drawn = store.list_drawn(tx, sorted(found.redemptions))
    credit = grants.in_money(tx, customer_ids)
    if credit:
        spent = store.list_granted(tx, sorted(credit))
        found.grants = {
            customer_id: rules.drawable(some, spent) for customer_id, some in credit.items()
        }
    return found


def record(tx: Tx, draws: Iterable[DrawRow]) -> None:
    """Keep what was taken off lines, or came back, with lines of the same transaction."""
    coupons, credit = _by_source(draws)
    if coupons:
        store.copy_coupon_draws(tx, coupons)
    if credit:
        store.copy_grant_draws(tx, credit)


def give_back(tx: Tx, draws: Iterable[DrawRow], *, now: datetime) -> None:
    """Give back what corrections of lines return of what was taken off them."""
    coupons, credit = _by_source(draws)
    if coupons:
        store.return_coupon_draws(tx, coupons, returned_at=now)
    if credit:
        store.return_grant_draws(tx, credit, returned_at=now)


def _by_source(draws: Iterable[DrawRow]) -> tuple[list[DrawRow], list[DrawRow]]:
    """Return what coupons took, which have period numbers, and what credit did."""
    coupons: list[DrawRow] = []
    credit: list[DrawRow] = []
    for one in draws:
        (credit if one.period_number is None else coupons).append(one)
    return coupons, credit


def taken(tx: Tx, customer_ids: Sequence[UUID]) -> dict[LinePlace, list[Draw]]:
    """Return by line of these customers what took something off it and did not get it back."""
    return store.list_taken(tx, customer_ids)


def returned_by_line(tx: Tx, customer_ids: Sequence[UUID]) -> dict[LinePlace, int]:
    """Return by line what credit notes gave back of its discount."""
    return store.list_returned(tx, customer_ids)


def draws(tx: Tx, customer_id: UUID, invoice_id: UUID) -> list[tuple[int, str | None, int]]:
    """Return by line what took something off it: a coupon's code, None for credit, how much."""
    return store.list_draws(tx, customer_id, invoice_id)


def drawn_of_grants(tx: Tx, customer_ids: Collection[UUID]) -> dict[UUID, int]:
    """Return what each grant in money of these customers took off lines."""
    return store.list_granted(tx, list(customer_ids))


def drawn_by_line(tx: Tx, customer_ids: Sequence[UUID]) -> dict[LinePlace, int]:
    """Return by line what coupons and credit took off it; below zero what came back with it."""
    return store.list_drawn_lines(tx, customer_ids)


def verify(tx: Tx) -> list[Difference]:
    """Return coupons of which more was drawn than there is, or that were counted wrongly."""
    found = [rules.overdrawn(row) for row in store.find_overdrawn(tx)]
    found += _overdrawn_grants(tx)
    return found + [
        Difference(f"coupon {code}", f"redeemed {said} times", str(times))
        for code, said, times in store.find_uncounted(tx)
    ]


def _overdrawn_grants(tx: Tx) -> list[Difference]:
    """Return grants in money of which documents took more than there is."""
    found: list[Difference] = []
    after = _FIRST
    while some := store.page_granted(tx, after=after, limit=_PAGE):
        after = some[-1]
        spent = store.list_granted(tx, some)
        for customer_id, credit in grants.in_money(tx, some).items():
            found += [
                rules.overdrawn(
                    OverdrawnRow(customer_id, one.grant_id, "credit grant", one.amount or 0, drawn)
                )
                for one in credit
                for drawn in (spent.get(one.grant_id, 0),)
                if drawn > (one.amount or 0)
            ]
    return found
