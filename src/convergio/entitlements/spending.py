"""What a customer with a spend cap may still spend: money that is decided on like a quota.

The cap's own row is the lock: whoever decides for a capped customer holds it, so two decisions
never spend the same rest, whatever their meters. Customers without a cap cost one read a batch.
Locks are taken in the order cap, window, so a cap comes before anything is held.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.catalog import actions as catalog_actions
from convergio.catalog.model import Meter, Price
from convergio.customers import actions as customers
from convergio.entitlements import rules, store
from convergio.entitlements.model import SpendCap
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.money import AMOUNT_MAX, Money
from convergio.kernel.quantity import add_up, quantity_text, subtract
from convergio.metering import actions as metering
from convergio.metering import slicing
from convergio.metering.allowance import drawn_now
from convergio.metering.model import Slice, WindowRow, slice_of
from convergio.rating.model import Charge, Flat
from convergio.rating.rules import (
    Segment,
    allowance,
    for_seats,
    included_for,
    proration,
    rate_segment,
)
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.limits import Stretch

_ZERO: Final = Decimal(0)


class Part(NamedTuple):
    """What a charge asks in a period of which a part is past: `before` of it, `free` in all.

    `share` is the part of the period that the charge is for; None where it is for all of it.
    """

    charge: Charge
    before: Decimal = _ZERO
    free: Decimal = _ZERO
    share: Fraction | None = None

    def adds(self, quantity: Decimal, currency: str) -> Money:
        """Return what a quantity adds to the invoice: fees and minimums are owed anyway."""
        if self.share is None:
            return rules.overage_price(self.charge, quantity, currency=currency)
        upto = add_up((self.before, quantity))
        used = Segment(self.before, upto, upto, self.free, self.share)
        unused = Segment(self.before, self.before, self.before, self.free, self.share)
        owed = rate_segment(self.charge, used, currency=currency).total
        return owed - rate_segment(self.charge, unused, currency=currency).total


@dataclass(frozen=True, slots=True)
class Tariff:
    """What usage of one meter costs: `part` is for all that has no charge of its own.

    What is held or asked for names no value of a dimension, and is counted under none when it is
    committed, so it costs what `part` asks; `counted` is what the values came to so far, and `used`
    what has none, where that is not all that the window has.
    """

    part: Part
    counted: Money
    aggregation: str = "sum"
    used: Decimal | None = None

    def after(self, held: Decimal, more: Decimal) -> Decimal:
        """Return what is used and held once so much more is allowed."""
        if self.aggregation == "max":
            return max(held, more)
        return more if self.aggregation == "last" else add_up((held, more))


@dataclass(slots=True)
class Account:
    """One capped customer in one transaction: tariffs and quantities by meter id."""

    cap: SpendCap
    tariffs: dict[int, Tariff]
    held: dict[int, Decimal]
    windows: dict[int, WindowRow] = field(default_factory=dict)

    def spend(self, meter_id: int | None = None, more: Decimal = _ZERO) -> Money:
        """Return what is used and held comes to, with so much more of one meter.

        What draws prepaid credit costs nothing.
        """
        held = self.held
        if meter_id is not None:
            held = held | {meter_id: self._after(meter_id, more)}
        total = Money.zero(self.cap.currency)
        for each, tariff in self.tariffs.items():
            quantity = held.get(each, _ZERO)
            owed = subtract(quantity, self._drawn(each, quantity))
            total += tariff.counted + tariff.part.adds(owed, self.cap.currency)
        return total

    def _after(self, meter_id: int, more: Decimal) -> Decimal:
        held = self.held.get(meter_id, _ZERO)
        tariff = self.tariffs.get(meter_id)
        return add_up((held, more)) if tariff is None else tariff.after(held, more)

    def _drawn(self, meter_id: int, held: Decimal) -> Decimal:
        window = self.windows.get(meter_id)
        return _ZERO if window is None else drawn_now(window, held=held)

    def allows(self, meter_id: int, quantity: Decimal) -> bool:
        """Say whether so much more stays within the cap; a meter without a price always does."""
        if meter_id not in self.tariffs:
            return True
        return self.spend(meter_id, quantity).minor <= self.cap.amount

    def take(self, meter_id: int, quantity: Decimal) -> bool:
        """Say whether it stays within the cap, and remember it if so.

        What is over the window's own limit will be denied by it, and spends nothing.
        """
        if not self.allows(meter_id, quantity):
            return False
        after = self._after(meter_id, quantity)
        window = self.windows.get(meter_id)
        limit = None if window is None else window.quota_limit
        if limit is None or after <= limit:
            self.held[meter_id] = max(self.held.get(meter_id, _ZERO), after)  # it may not come
        return True


def lock_accounts(tx: Tx, customer_ids: Iterable[UUID], *, now: datetime) -> dict[UUID, Account]:
    """Return the accounts of those customers who have a cap. Locks: their caps."""
    caps = store.lock_spend_caps(tx, sorted(set(customer_ids)))
    return _accounts(tx, caps, now=now) if caps else {}


def account(tx: Tx, customer_id: UUID, *, now: datetime) -> Account | None:
    """Return a customer's account to look at, None without a cap."""
    cap = store.find_spend_cap(tx, customer_id)
    return _accounts(tx, [cap], now=now)[customer_id] if cap else None


def _accounts(tx: Tx, caps: Sequence[SpendCap], *, now: datetime) -> dict[UUID, Account]:
    ids = [cap.customer_id for cap in caps]
    prices = subscriptions.usage_prices(tx, ids, now=now)
    meters = catalog_actions.current(tx).meters
    stale = store.stale_reserved(tx, ids, now=now)
    windows: dict[UUID, dict[int, WindowRow]] = {each: {} for each in ids}
    for row in metering.windows_at(tx, ids, now):
        windows[row.customer_id][row.meter_id] = row
    sliced = [who for who, some in prices.items() if any(p.by is not None for p in some.values())]
    tariffs = _sliced(tx, sliced, meters, now=now) if sliced else {}
    leveled = {meters[key].meter_id for some in prices.values() for key in some}
    leveled &= {one.meter_id for one in meters.values() if one.aggregation in rules.LEVELS}
    asked = store.asked_levels(tx, ids, leveled, now=now) if leveled else {}
    accounts = {}
    for cap in caps:
        who = cap.customer_id
        account = Account(cap, {}, {}, windows[who])
        for key, price in prices.get(who, {}).items():
            meter = meters[key]
            plain = Part(_charge(price.charge, windows[who].get(meter.meter_id)))
            tariff = tariffs.get((who, key))
            account.tariffs[meter.meter_id] = tariff or Tariff(
                plain, Money.zero(cap.currency), aggregation=meter.aggregation
            )
        for meter_id, row in account.windows.items():
            tariff = account.tariffs.get(meter_id)
            used = row.used if tariff is None or tariff.used is None else tariff.used
            reserved = subtract(row.reserved, stale.get((who, meter_id), _ZERO))
            level = asked.get((who, meter_id), _ZERO)
            account.held[meter_id] = max(add_up((used, reserved)), level)
        accounts[who] = account
    return accounts


def _charge(charge: Charge, window: WindowRow | None) -> Charge:
    """Return a charge with what its window includes: for all seats, and less what was used."""
    if window is None or window.included is None or isinstance(charge, Flat):
        return charge
    included = quantity_text(window.included)
    return msgspec.structs.replace(charge, included=included, included_per_seat=None)


def _sliced(
    tx: Tx, customer_ids: Sequence[UUID], meters: Mapping[str, Meter], *, now: datetime
) -> dict[tuple[UUID, str], Tariff]:
    """Return the tariffs of prices by a dimension.

    Each value is counted at its own charge, as billing does: with what changes left of its
    allowance, after what it used before them in the period (RULES 8).
    """
    wanted: list[tuple[UUID, str, str, Sequence[Stretch]]] = []
    for who, of_meters in subscriptions.usage_stretches(tx, customer_ids, now=now).items():
        for key, every in of_meters.items():
            price = every[-1].line.price
            if price.by is not None:
                wanted += [(who, key, value, every) for value in ("", *price.charges)]
    requests = [
        (who, _used_of(one.line.price, value), one.period)
        for who, _, value, stretches in wanted
        for one in stretches
    ]
    usage = slicing.usage_of(tx, requests, meters)
    found: dict[tuple[UUID, str], Tariff] = {}
    for who, key, value, stretches in wanted:
        price = stretches[-1].line.price
        used = [
            usage.get((who, _used_of(one.line.price, value), one.period.start), _ZERO)
            for one in stretches
            if not value or value in one.line.price.charges
        ]
        part = _part(stretches, value, before=add_up(used[:-1]))
        if not value:
            found[who, key] = Tariff(part, Money.zero(price.currency), used=used[-1])
        else:
            known = found[who, key]
            counted = known.counted + part.adds(used[-1], price.currency)
            found[who, key] = replace(known, counted=counted)
    return found


def _used_of(price: Price, value: str) -> str | Slice:
    meter_key = price.meter_key or ""
    return meter_key if price.by is None else slice_of(meter_key, price.by, price.charges, value)


def _part(stretches: Sequence[Stretch], value: str, *, before: Decimal) -> Part:
    """Return the last stretch's charge of a value, where in its period it is."""
    own = [one for one in stretches if not value or value in one.line.price.charges]
    last = own[-1]
    charges = [one.line.price.charges[value] if value else one.line.price.charge for one in own]
    if len(own) == 1 and last.period == last.full:
        return Part(for_seats(charges[-1], last.line.seats))
    free = allowance(
        [
            (included_for(charge, one.line.seats), one.period)
            for charge, one in zip(charges, own, strict=True)
        ],
        last.full,
    )
    return Part(charges[-1], before, free, proration(last.full, last.period))


def set_cap(tx: Tx, customer_key: str, amount: str | None, *, now: datetime) -> Money | None:
    """Set what a customer's overage may come to in the current windows; None takes the cap away.

    Locks: the cap. Emits: spend_cap.changed. Raises: NotFound, Invalid for an amount that is not
    money of the customer's currency.
    """
    customer = customers.find(tx, customer_key)
    money = None
    if amount is None:
        store.delete_spend_cap(tx, customer.customer_id)
    else:
        money = Money.parse(amount, customer.currency)
        if not 0 <= money.minor <= AMOUNT_MAX:
            detail = "write an amount of at least 0, such as 25.00, or null for no cap"
            raise Invalid(detail, code="bad_amount", field="amount")
        cap = SpendCap(customer.customer_id, money.minor, money.currency, now)
        store.save_spend_cap(tx, cap)
    outbox.emit(
        tx,
        "spend_cap.changed",
        customer_id=customer.customer_id,
        subject=customer.customer_id,
        data={"amount": money.text() if money else None, "currency": customer.currency},
        now=now,
    )
    return money
