"""What a customer with a spend cap may still spend: money that is decided on like a quota.

The cap's own row is the lock: whoever decides for a capped customer holds it, so two decisions
never spend the same rest, whatever their meters. Customers without a cap cost one read a batch.
Locks are taken in the order cap, window, so a cap comes before anything is held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import msgspec

from convergio.catalog import actions as catalog_actions
from convergio.customers import actions as customers
from convergio.entitlements import rules, store
from convergio.entitlements.model import SpendCap
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.kernel.quantity import add_up, quantity_text, subtract
from convergio.metering import actions as metering
from convergio.metering.allowance import drawn_now
from convergio.metering.model import WindowRow
from convergio.rating.model import Charge, Flat
from convergio.subscriptions import actions as subscriptions

AMOUNT_MAX: Final = 10**15
_ZERO: Final = Decimal(0)


@dataclass(slots=True)
class Account:
    """One capped customer in one transaction: charges and quantities by meter id."""

    cap: SpendCap
    charges: dict[int, Charge]
    held: dict[int, Decimal]
    windows: dict[int, WindowRow] = field(default_factory=dict)

    def spend(self, meter_id: int | None = None, more: Decimal = _ZERO) -> Money:
        """Return what is used and held comes to, with so much more of one meter.

        What draws prepaid credit costs nothing.
        """
        held = self.held
        if meter_id is not None:
            held = held | {meter_id: add_up((held.get(meter_id, _ZERO), more))}
        owed = {
            each: subtract(quantity, self._drawn(each, quantity)) for each, quantity in held.items()
        }
        return rules.spend(self.charges, owed, currency=self.cap.currency)

    def _drawn(self, meter_id: int, held: Decimal) -> Decimal:
        window = self.windows.get(meter_id)
        return _ZERO if window is None else drawn_now(window, held=held)

    def allows(self, meter_id: int, quantity: Decimal) -> bool:
        """Say whether so much more stays within the cap; a meter without a price always does."""
        if meter_id not in self.charges:
            return True
        return self.spend(meter_id, quantity).minor <= self.cap.amount

    def take(self, meter_id: int, quantity: Decimal) -> bool:
        """Say whether it stays within the cap, and remember it if so.

        What is over the window's own limit will be denied by it, and spends nothing.
        """
        if not self.allows(meter_id, quantity):
            return False
        after = add_up((self.held.get(meter_id, _ZERO), quantity))
        window = self.windows.get(meter_id)
        limit = None if window is None else window.quota_limit
        if limit is None or after <= limit:
            self.held[meter_id] = after
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
    windows: dict[UUID, list[WindowRow]] = {}
    for row in metering.windows_at(tx, ids, now):
        windows.setdefault(row.customer_id, []).append(row)
    of = {
        cap.customer_id: {row.meter_id: row for row in windows.get(cap.customer_id, ())}
        for cap in caps
    }
    return {
        cap.customer_id: Account(
            cap,
            {
                meters[key].meter_id: _charge(
                    price.charge, of[cap.customer_id].get(meters[key].meter_id)
                )
                for key, price in prices.get(cap.customer_id, {}).items()
            },
            {
                row.meter_id: subtract(
                    add_up((row.used, row.reserved)),
                    stale.get((row.customer_id, row.meter_id), _ZERO),
                )
                for row in windows.get(cap.customer_id, ())
            },
            of[cap.customer_id],
        )
        for cap in caps
    }


def _charge(charge: Charge, window: WindowRow | None) -> Charge:
    """Return a charge with what its window includes: for all seats, and less what was used."""
    if window is None or window.included is None or isinstance(charge, Flat):
        return charge
    included = quantity_text(window.included)
    return msgspec.structs.replace(charge, included=included, included_per_seat=None)


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
