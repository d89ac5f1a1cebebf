"""Prepaid credit: grants of units or of money, made, listed and voided.

A grant in units becomes a credit of the customer's usage schedule in the same transaction, so
windows are cut where it begins and ends and the next decision already knows it. What is drawn
is stored nowhere: metering folds it from windows and credits, for quotas, bills and this list
alike (RULES 12). A grant in money is drawn by billing, line by line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.entitlements import errors, store
from convergio.entitlements.model import Category, CreditGrant, GrantState, GrantTerms
from convergio.infra import ids, outbox
from convergio.infra.db import Tx
from convergio.kernel.errors import Difference
from convergio.kernel.money import AMOUNT_MAX, Money
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import quantity_text, subtract
from convergio.kernel.text import check_text, check_words
from convergio.metering import actions as metering
from convergio.metering.model import Credit
from convergio.subscriptions import actions as subscriptions

QUANTITY_MAX: Final = 10**18
PRIORITY_MAX: Final = 1_000_000
NOTE_SIZE_MAX: Final = 500
_SPAN_MAX: Final = timedelta(days=36_525)
_PAGE: Final = 1_000
_FIRST: Final = UUID(int=0)
_ZERO: Final = Decimal(0)
_SUMMED: Final = frozenset({"sum", "count"})


def create(tx: Tx, customer_key: str, terms: GrantTerms, *, now: datetime) -> CreditGrant:
    """Grant prepaid credit; the same key with the same terms is the same grant.

    Locks: for units the customer's schedule and windows, and with a past beginning the
    subscription, which the next run looks at again. Emits: credit_grant.created. Raises: NotFound,
    Invalid, Conflict for a key that is taken or a past beginning that cannot be counted again.
    """
    customer = customers.find(tx, customer_key)
    grant = _checked(tx, customer, terms, now=now)
    if not store.insert_grant(tx, grant):
        known = store.find_grant_by_key(tx, customer.customer_id, grant.key)
        if known is None or not _is_same(known, grant, terms):
            raise errors.other_grant()
        return known
    if grant.meter_id is not None:
        if grant.starts_at < now:
            subscriptions.reopen(tx, customer.customer_id)
        credit = _credit(grant, terms.meter_key or "")
        metering.set_credit(tx, customer.customer_id, credit, now=now)
    _tell(tx, "credit_grant.created", grant, now=now)
    return grant


def void(tx: Tx, customer_key: str, grant_id: UUID, *, now: datetime) -> CreditGrant:
    """Take back what usage has not drawn so far; twice is once.

    Usage of before still draws, also where its event comes later. Locks: the grant; for units the
    customer's schedule and windows. Emits: credit_grant.voided. Raises: NotFound.
    """
    customer_id = customers.find(tx, customer_key).customer_id
    grant = store.lock_grant(tx, customer_id, grant_id)
    if grant is None:
        raise errors.unknown_grant()
    if grant.voided_at is not None:
        return grant
    voided = replace(grant, voided_at=now)
    store.void_grant(tx, voided)
    if voided.meter_id is not None and voided.ends_at != grant.ends_at:
        credit = _credit(voided, _meter_keys(tx)[voided.meter_id])
        metering.set_credit(tx, customer_id, credit, now=now)
    _tell(tx, "credit_grant.voided", voided, now=now)
    return voided


def page(
    tx: Tx,
    customer_id: UUID,
    *,
    now: datetime,
    after: UUID | None = None,
    size: int = 100,
    money_drawn: Mapping[UUID, int] | None = None,
) -> list[GrantState]:
    """Return the next grants of a customer in order of creation, and what is left of them.

    `money_drawn` is what documents took of grants in money, by their id.
    """
    found = store.page_grants(tx, customer_id, after=after or _FIRST, size=size)
    return _states(tx, found, money_drawn or {}, now=now)


def state_of(
    tx: Tx, grant: CreditGrant, *, now: datetime, money_drawn: Mapping[UUID, int] | None = None
) -> GrantState:
    """Return a grant with what is left of it."""
    return _states(tx, [grant], money_drawn or {}, now=now)[0]


def in_money(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, list[CreditGrant]]:
    """Return the grants in money of customers, in the order in which they are drawn."""
    found: dict[UUID, list[CreditGrant]] = {}
    for grant in store.list_money_grants(tx, customer_ids):
        found.setdefault(grant.customer_id, []).append(grant)
    return found


def _checked(tx: Tx, customer: Customer, terms: GrantTerms, *, now: datetime) -> CreditGrant:
    """Return the grant that these terms ask for. Raises: Invalid."""
    starts_at, expires_at = terms.starts_at or now, terms.expires_at
    if not 0 <= terms.priority <= PRIORITY_MAX:
        raise errors.bad_grant("priority", f"write a whole number from 0 to {PRIORITY_MAX}")
    if expires_at is not None and expires_at <= max(starts_at, now):
        raise errors.bad_grant("expires_at", "write an instant to come, after the beginning")
    if abs(starts_at - now) > _SPAN_MAX:
        raise errors.bad_grant("starts_at", "write an instant within a century of now")
    if expires_at is not None and expires_at - now > _SPAN_MAX:
        raise errors.bad_grant("expires_at", "write an instant within a century of now")
    if (terms.meter_key is None) == (terms.amount is None):
        raise errors.bad_grant("meter", "write a meter and a quantity, or an amount of money")
    if (terms.meter_key is None) != (terms.quantity is None):
        raise errors.bad_grant("quantity", "write a quantity with a meter, and only then")
    if terms.amount is not None and terms.category == Category.PURCHASED:
        mend = "money paid in advance is the credit balance: `convergio payment record`"
        raise errors.bad_grant("category", mend)
    money = None if terms.amount is None else Money.parse(terms.amount, customer.currency)
    if money is not None and not 0 < money.minor <= AMOUNT_MAX:
        raise errors.bad_grant("amount", "write an amount above 0, such as 25.00")
    if terms.quantity is not None and not 0 < terms.quantity < QUANTITY_MAX:
        raise errors.bad_grant("quantity", "write more than 0 and less than 10^18")
    return CreditGrant(
        customer_id=customer.customer_id,
        grant_id=ids.new_id(now),
        key=check_text(terms.key, field="key"),
        meter_id=None if terms.meter_key is None else _meter_id(tx, terms.meter_key),
        currency=None if money is None else money.currency,
        category=Category(terms.category).value,
        quantity=terms.quantity,
        amount=None if money is None else money.minor,
        priority=terms.priority,
        starts_at=starts_at,
        expires_at=expires_at,
        created_at=now,
        voided_at=None,
        note=terms.note
        and check_words(terms.note, field="note", size_max=NOTE_SIZE_MAX, lines=True),
    )


def _meter_id(tx: Tx, meter_key: str) -> int:
    meter = catalog_actions.current(tx).meters.get(meter_key)
    if meter is None:
        raise errors.bad_grant("meter", f"there is no meter '{meter_key[:60]}'")
    if meter.aggregation not in _SUMMED:
        raise errors.not_grantable(meter.key, meter.aggregation)
    return meter.meter_id


def _meter_keys(tx: Tx) -> dict[int, str]:
    return {meter.meter_id: meter.key for meter in catalog_actions.current(tx).meters.values()}


def _is_same(known: CreditGrant, asked: CreditGrant, terms: GrantTerms) -> bool:
    """Say whether a grant is what was asked for; a beginning that was left out is any."""
    begins = known.starts_at if terms.starts_at is None else asked.starts_at
    same = replace(
        asked,
        grant_id=known.grant_id,
        starts_at=begins,
        created_at=known.created_at,
        voided_at=known.voided_at,
    )
    return same == known


def _credit(grant: CreditGrant, meter_key: str) -> Credit:
    return Credit(
        grant_id=grant.grant_id,
        meter_key=meter_key,
        quantity=grant.quantity or _ZERO,
        priority=grant.priority,
        starts_at=grant.starts_at,
        created_at=grant.created_at,
        expires_at=grant.expires_at,
        ends_at=grant.ends_at,
    )


def _states(
    tx: Tx, found: Sequence[CreditGrant], money_drawn: Mapping[UUID, int], *, now: datetime
) -> list[GrantState]:
    units = sorted({one.customer_id for one in found if one.meter_id is not None})
    drawn = metering.credits_drawn(tx, units) if units else {}
    keys = _meter_keys(tx) if units else {}
    states = []
    for one in found:
        whole: Decimal
        if one.quantity is not None:
            whole = one.quantity
            taken = drawn.get(one.customer_id, {}).get(one.grant_id, _ZERO)
        else:
            whole, taken = Decimal(one.amount or 0), Decimal(money_drawn.get(one.grant_id, 0))
        rest = subtract(whole, taken)
        state = _state(one, rest, now=now)
        left = rest if state in {"pending", "active"} else _ZERO
        meter_key = None if one.meter_id is None else keys[one.meter_id]
        states.append(GrantState(one, meter_key, taken, left, state))
    return states


def _state(grant: CreditGrant, rest: Decimal, *, now: datetime) -> str:
    if grant.voided_at is not None:
        return "voided"
    if grant.expires_at is not None and grant.expires_at <= now:
        return "expired"
    if not rest:
        return "used_up"
    return "pending" if now < grant.starts_at else "active"


def _tell(tx: Tx, fact: str, grant: CreditGrant, *, now: datetime) -> None:
    data: dict[str, object] = {"category": grant.category}
    if grant.quantity is not None:
        data |= {"meter_id": grant.meter_id, "quantity": quantity_text(grant.quantity)}
    else:
        money = Money(grant.amount or 0, grant.currency or "")
        data |= {"amount": money.text(), "currency": money.currency}
    outbox.emit(tx, fact, customer_id=grant.customer_id, subject=grant.grant_id, data=data, now=now)


def verify(tx: Tx) -> list[Difference]:
    """Return customers whose schedule has other credits than their grants say."""
    keys = _meter_keys(tx)
    found: list[Difference] = []
    after = (_FIRST, _FIRST)
    while some := store.page_unit_grants(tx, after=after, size=_PAGE):
        after = (some[-1].customer_id, some[-1].grant_id)
        stored = metering.credits_of(tx, sorted({one.customer_id for one in some}))
        for one in some:
            expected = _credit(one, keys[one.meter_id or 0])
            has = stored.get(one.customer_id, {}).get(one.grant_id)
            if has != expected:
                found.append(
                    Difference(
                        where=f"credit of grant {one.grant_id} of customer {one.customer_id}",
                        expected=_text(expected),
                        found="nothing" if has is None else _text(has),
                    )
                )
    return found


def _text(credit: Credit) -> str:
    ends = "never" if credit.ends_at is None else instant_text(credit.ends_at)
    begins = instant_text(credit.starts_at)
    return f"{quantity_text(credit.quantity)} {credit.meter_key}, {begins} to {ends}"
