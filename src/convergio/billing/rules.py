"""Owed less billed: pure functions over stored periods, pinned prices and usage.

Fees are owed in advance, at the start of a period; usage in arrears, at its end. Both are owed at
one boundary where periods meet, and one invoice a customer and boundary carries them. A boundary
that is invoiced is closed: what changes a charge of it later is a line of its own on the next.

A charge that comes to zero is no line, and a boundary without a line has no invoice: a Free plan
issues none (RULES 10), and usage within what is included is shown by the usage pages instead.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.billing import errors
from convergio.billing.model import (
    Billed,
    Buyer,
    Charge,
    ChargeKey,
    Draft,
    Invoice,
    Kind,
    Line,
    NumberingRow,
    Numbers,
    Problem,
    RevenueRow,
    Status,
    UnequalRow,
)
from convergio.catalog.model import Price
from convergio.customers.model import Customer, Personal
from convergio.kernel.errors import ConvergioError, Difference, require
from convergio.kernel.money import Money
from convergio.kernel.periods import Period, day_in, instant_text
from convergio.kernel.quantity import quantity_text
from convergio.ledger.model import Account, Posted
from convergio.rating.model import Rated
from convergio.rating.rules import rate
from convergio.subscriptions.model import BillingView, Item, Subscription

Usage = Mapping[tuple[UUID, str, datetime], Decimal]
UsageRequest = tuple[UUID, str, Period]

_NUMBER: Final = re.compile(r"([A-Z0-9]{1,8})-(\d{4})-(\d{6,18})", re.ASCII)
_TICK: Final = timedelta(microseconds=1)
_ZERO: Final = Decimal(0)
_AMOUNT_MAX: Final = 2**62  # far from the end of a bigint, so that no sum of lines reaches it
_MEMO_MAX: Final = 100_000
ACCOUNTS: Final = {Kind.FIXED: Account.DEFERRED_REVENUE, Kind.USAGE: Account.USAGE_REVENUE}


class Prices:
    """Pinned prices, which never change, and what each quantity of them came to."""

    __slots__ = ("_by_id", "_rated")

    def __init__(self, prices: Mapping[UUID, Price] | None = None) -> None:
        """Begin with the prices that are at hand."""
        self._by_id: dict[UUID, Price] = dict(prices or {})
        self._rated: dict[tuple[UUID, Decimal], tuple[Money, str]] = {}

    def missing(self, views: Iterable[BillingView]) -> list[UUID]:
        """Return the ids of prices that these customers pin and that are still to be read."""
        pinned = {item.price_id for v in views for one in v.agreements for item in one.items}
        return sorted(pinned - self._by_id.keys())

    def add(self, prices: Mapping[UUID, Price]) -> None:
        """Keep more prices."""
        self._by_id |= prices

    def get(self, price_id: UUID) -> Price:
        """Return a pinned price. Raises: Fault when it is not there."""
        require(price_id in self._by_id, f"price {price_id} is pinned and not in the catalog")
        return self._by_id[price_id]

    def rate(self, price: Price, quantity: Decimal) -> tuple[Money, str]:
        """Return what a quantity comes to and its steps as JSON, rated once for all customers."""
        known = self._rated.get((price.price_id, quantity))
        if known is None:
            rated = rate(price.charge, quantity, currency=price.currency)
            known = rated.total, steps_text(rated)
            if len(self._rated) >= _MEMO_MAX:
                self._rated.clear()
            self._rated[price.price_id, quantity] = known
        return known


def steps_text(rated: Rated) -> str:
    """Return the steps of the arithmetic as a JSON array, numbers as text."""
    steps = [
        {
            "description": line.description,
            "quantity": quantity_text(line.quantity),
            "unit": format(line.unit, "f"),
            "per": quantity_text(line.per),
            "amount": line.amount.text(),
        }
        for line in rated.lines
    ]
    return msgspec.json.encode(steps).decode()


class _Stretch(NamedTuple):
    """The time of a stored period in which an item was active."""

    subscription: Subscription
    item: Item
    price: Price
    period_start: datetime
    start: datetime
    end: datetime


def _stretches(view: BillingView, prices: Prices) -> Iterator[_Stretch]:
    """Yield every stretch of every item; time in which an item was not active owes nothing."""
    for agreement in view.agreements:
        for item in agreement.items:
            price = prices.get(item.price_id)
            until = item.active_until
            for period in agreement.periods.get(price.interval, ()):
                start = max(period.start_at, item.active_from)
                end = period.end_at if until is None else min(period.end_at, until)
                if start < end:
                    yield _Stretch(agreement.subscription, item, price, period.start_at, start, end)


def usage_requests(view: BillingView, prices: Prices, *, closed: datetime) -> list[UsageRequest]:
    """Return the usage that decides what is owed at boundaries up to `closed`.

    Nothing is asked for a customer whose prices cannot be read: `bill` tells why.
    """
    try:
        return [
            (view.customer_id, part.price.meter_key, Period(part.start, part.end))
            for part in _stretches(view, prices)
            if part.price.meter_key is not None and part.end <= closed
        ]
    except ConvergioError:
        return []


def owed(
    view: BillingView, prices: Prices, usage: Usage, *, closed: datetime
) -> dict[ChargeKey, Charge]:
    """Return what a customer owes for every boundary up to `closed`, charges of zero included.

    A fee is owed for each period that began while its item was active, in full: ending later in
    the period takes nothing back. Usage is owed for the stretch in which its item was active.
    Rounds: once a key, in rating.
    """
    charges: dict[ChargeKey, Charge] = {}
    for subscription, item, price, period_start, start, end in _stretches(view, prices):
        meter_key = price.meter_key
        if meter_key is None:
            kind, due_at, quantity = Kind.FIXED, start, item.quantity
        else:
            kind, due_at = Kind.USAGE, end
            quantity = usage.get((view.customer_id, meter_key, start), _ZERO)
        if due_at > closed:
            continue
        key = ChargeKey(item.item_id, period_start, kind, "")
        amount, steps = prices.rate(price, quantity)
        charges[key] = Charge(
            key, subscription.subscription_id, price.price_id, end, due_at, quantity, amount,
            price.name, subscription.time_zone, steps,
        )  # fmt: skip
    return charges


def settle(
    view: BillingView,
    charges: Mapping[ChargeKey, Charge],
    billed: Mapping[ChargeKey, Billed],
    *,
    last_boundary: datetime | None,
    closed: datetime,
) -> tuple[list[Draft], list[Problem]]:
    """Return the invoices that bring what is billed up to what is owed, the earliest first.

    Nothing is invoiced to a customer of whom more is billed than owed: that is a problem to look
    at. A charge of a boundary that is already invoiced waits for the customer's next one; when
    none can come any more, it goes on a final invoice.
    """
    problems = _overbilled(view, charges, billed, closed=closed)
    if problems:
        return [], problems
    due: dict[datetime, list[Line]] = {}
    late: list[Line] = []
    for key, charge in charges.items():
        known = billed.get(key)
        if charge.amount.minor == (known.amount if known else 0):
            continue
        if last_boundary is None or charge.due_at > last_boundary:
            due.setdefault(charge.due_at, []).append(_line(charge))
        else:
            late.append(_late_line(charge, known))
    if late:
        boundary = _late_boundary(view, charges, last_boundary=last_boundary, closed=closed)
        if boundary is not None:
            due.setdefault(boundary, []).extend(late)
    return [_draft(view.customer_id, at, due[at]) for at in sorted(due)], []


def _overbilled(
    view: BillingView,
    charges: Mapping[ChargeKey, Charge],
    billed: Mapping[ChargeKey, Billed],
    *,
    closed: datetime,
) -> list[Problem]:
    for key, known in billed.items():
        charge = charges.get(key)
        # A charge that is not due yet at this run's `closed` was billed by a later one.
        if charge is None and known.period_end > closed:
            continue
        amount = charge.amount.minor if charge else 0
        if known.amount > amount:
            reason = (
                f"{key.kind} of item {key.item_id} from {instant_text(key.period_start)}:"
                f" {known.amount} is billed and {amount} is owed, in minor units"
            )
            return [Problem(view.customer_id, "overbilled", reason)]
    return []


def _late_boundary(
    view: BillingView,
    charges: Mapping[ChargeKey, Charge],
    *,
    last_boundary: datetime | None,
    closed: datetime,
) -> datetime | None:
    """Return the customer's next boundary that has no invoice, or None while it is to come."""
    require(last_boundary is not None, "only an invoiced boundary makes a charge late")
    last = last_boundary or closed
    coming = [charge.due_at for charge in charges.values() if charge.due_at > last]
    if coming:
        return min(coming)
    return None if view.is_live else max(closed, last + _TICK)


def _line(charge: Charge) -> Line:
    kind = charge.key.kind
    reason = "fee" if kind == Kind.FIXED else "usage"
    detail = f'{{"steps":{charge.steps}}}'
    return Line(
        charge.subscription_id, charge.key, charge.period_end, charge.price_id, reason,
        charge.name, charge.quantity, charge.amount, detail,
    )  # fmt: skip


def _late_line(charge: Charge, known: Billed | None) -> Line:
    """Return the difference as a line of its own that names the period and the sum so far."""
    before = Money(known.amount if known else 0, charge.amount.currency)
    what = "fee" if charge.key.kind == Kind.FIXED else "usage"
    reason = f"late {what} for {_days(charge)}"
    sums = f'"owed":"{charge.amount.text()}","billed":"{before.text()}"'
    return Line(
        charge.subscription_id, charge.key, charge.period_end, charge.price_id, reason,
        f"{charge.name}: {reason}", charge.quantity - (known.quantity if known else 0),
        charge.amount - before, f'{{"steps":{charge.steps},{sums}}}',
    )  # fmt: skip


def _days(charge: Charge) -> str:
    """Return the first and last day of a charge's period, in the subscription's zone."""
    first = day_in(charge.key.period_start, charge.time_zone)
    last = day_in(charge.period_end - _TICK, charge.time_zone)
    return first.isoformat() if first == last else f"{first.isoformat()} to {last.isoformat()}"


def _draft(customer_id: UUID, boundary_at: datetime, lines: list[Line]) -> Draft:
    lines.sort(key=_order)
    currency = lines[0].amount.currency
    minor = 0
    for line in lines:
        require(line.amount.currency == currency, "an invoice has one currency")
        minor += line.amount.minor
    require(0 <= minor < _AMOUNT_MAX, "an invoice's total is out of range")
    return Draft(customer_id, boundary_at, tuple(lines), Money(minor, currency))


def _order(line: Line) -> tuple[str, datetime, UUID]:
    return line.key.kind, line.key.period_start, line.key.item_id


def bill(
    view: BillingView,
    prices: Prices,
    usage: Usage,
    billed: Mapping[ChargeKey, Billed],
    *,
    last_boundary: datetime | None,
    closed: datetime,
) -> tuple[list[Draft], list[Problem]]:
    """Return a customer's next invoices, or why there can be none: one never stops the others."""
    try:
        charges = owed(view, prices, usage, closed=closed)
        return settle(view, charges, billed, last_boundary=last_boundary, closed=closed)
    except ConvergioError as error:
        return [], [Problem(view.customer_id, error.code, str(error))]


def revenue(draft: Draft) -> dict[Account, Money]:
    """Return what an invoice credits to each account; fees are deferred, usage is earned."""
    sums: dict[Account, Money] = {}
    for line in draft.lines:
        account = ACCOUNTS[line.key.kind]
        sums[account] = sums[account] + line.amount if account in sums else line.amount
    return sums


def issue_day(as_of: datetime, time_zone: str, *, last: date | None) -> date:
    """Return the day of issue: the run's in the seller's zone, never before the last (RULES 4)."""
    day = day_in(as_of, time_zone)
    return day if last is None else max(day, last)


def number_drafts(
    drafts: Sequence[Draft],
    ids: Sequence[UUID],
    numbers: Numbers,
    sealed: Sequence[bytes],
    *,
    net_days: int,
    finalized_at: datetime,
) -> Iterator[Invoice]:
    """Yield the invoices of drafts in their order, numbered without gaps; zero is paid at once."""
    due_on = numbers.issued_on + timedelta(days=net_days)
    for place, draft in enumerate(drafts):
        yield Invoice(
            draft.customer_id, ids[place], draft.boundary_at, numbers.series, numbers.year,
            numbers.first + place, Status.OPEN if draft.total.minor else Status.PAID,
            draft.total.currency, draft.total.minor, 0, numbers.issued_on, due_on, finalized_at,
            sealed[place],
        )  # fmt: skip


def pay(invoice: Invoice, amount: Money) -> Invoice:
    """Return the invoice with a payment applied. Raises: Conflict beyond what is due."""
    if invoice.status != Status.OPEN:
        raise errors.not_open(invoice.number_text, invoice.status)
    if amount.currency != invoice.currency:
        raise errors.other_currency(invoice.number_text, invoice.currency)
    require(amount.minor > 0, "a payment is above zero")
    paid = invoice.paid + amount.minor
    if paid > invoice.total:
        raise errors.too_much(invoice.number_text, invoice.due.text())
    status = Status.PAID if paid == invoice.total else Status.OPEN
    return replace(invoice, paid=paid, status=status)


def parse_number(text: str) -> tuple[str, int, int]:
    """Read an invoice's number as series, year and number. Raises: Invalid."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise errors.bad_number(text)
    return found[1], int(found[2]), int(found[3])


def buyer_text(account: Customer, personal: Personal) -> str:
    """Return the snapshot of a buyer as JSON, to be sealed with the invoice."""
    buyer = Buyer(
        key=account.customer_key,
        locale=account.locale,
        country=account.country,
        name=personal.name,
        email=personal.email,
        address=personal.address,
        tax_id=personal.tax_id,
    )
    return msgspec.json.encode(buyer).decode()


def unequal(row: UnequalRow) -> Difference:
    """Tell of an invoice that differs from its lines."""
    where = f"total of invoice {row.series}-{row.year}-{row.number:06d}"
    return Difference(where, f"the sum of its lines, {row.lines}", str(row.total))


def gaps(row: NumberingRow) -> list[Difference]:
    """Tell of a series and year whose numbers are not 1 to n, each once."""
    last = row.last_number
    expected = (min(last, 1), last, last, last)
    if (row.lowest, row.highest, row.invoices, row.numbers) == expected:
        return []
    return [
        Difference(
            where=f"numbers of series {row.series} in {row.year}",
            expected=f"{last} invoices numbered 1 to {last}",
            found=(
                f"{row.invoices} invoices with {row.numbers} different numbers"
                f" from {row.lowest} to {row.highest}"
            ),
        )
    ]


def audit(
    view: BillingView,
    prices: Prices,
    usage: Usage,
    billed: Mapping[ChargeKey, Billed],
    *,
    closed: datetime,
    begun: datetime | None,
) -> list[Difference]:
    """Tell where more is billed than owed, and which fees a run that had `begun` did not find.

    A fee may be missing when its subscription was made later than that run; a late usage may be
    missing until the customer's next boundary.
    """
    where = f"billing of customer {view.customer_id}"
    try:
        charges = owed(view, prices, usage, closed=closed)
    except ConvergioError as error:
        return [Difference(where, "owed can be computed", str(error))]
    problems = _overbilled(view, charges, billed, closed=closed)
    found = [Difference(where, "at most what is owed is billed", one.reason) for one in problems]
    there = {
        one.subscription.subscription_id
        for one in view.agreements
        if begun is not None and one.subscription.created_at <= begun
    }
    return found + [
        Difference(
            where=f"fee of item {key.item_id} of customer {view.customer_id}",
            expected=f"{charge.amount.minor} billed from {instant_text(key.period_start)}",
            found=str(billed[key].amount if key in billed else 0),
        )
        for key, charge in charges.items()
        if key.kind == Kind.FIXED
        and charge.subscription_id in there
        and charge.amount.minor > (billed[key].amount if key in billed else 0)
    ]


def unposted(revenue_rows: Iterable[RevenueRow], posted: Iterable[Posted]) -> list[Difference]:
    """Tell of invoices whose lines and transfers differ, account by account."""
    expected = {
        (row.invoice_id, ACCOUNTS[row.kind].value, row.currency): row.amount for row in revenue_rows
    }
    found: dict[tuple[UUID, str, str], int] = {}
    for row in posted:
        key = (row.source_id, row.credit_account, row.currency)
        found[key] = found.get(key, 0) + row.amount
    return [
        Difference(
            where=f"transfers of invoice {key[0]} to {key[1]} in {key[2]}",
            expected=str(expected.get(key, 0)),
            found=str(found.get(key, 0)),
        )
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
