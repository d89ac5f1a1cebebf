"""Owed less billed: the difference, of either sign, as lines, and what becomes of an invoice.

Fees and usage meet at the boundaries of periods, and one invoice a customer and boundary carries
them. A boundary that is invoiced is closed: what changes a charge of it later is a line of its own
on the next. What is owed is `owing.py`; where a line below zero goes is `crediting.py`.

A charge that comes to zero is no line, and a boundary without a line has no invoice: a Free plan
issues none (RULES 10), and usage within what is included is shown by the usage pages instead.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from convergio.billing import errors
from convergio.billing.bearing import earned_by
from convergio.billing.model import (
    Billed,
    Buyer,
    Charge,
    ChargeKey,
    Draft,
    Invoice,
    Kind,
    Line,
    Numbers,
    Problem,
    Status,
)
from convergio.billing.owing import NOTHING, Prices, Usage, nothing, owed
from convergio.customers.model import Customer, Personal
from convergio.kernel.errors import ConvergioError, Fault, require
from convergio.kernel.money import Money
from convergio.kernel.periods import day_in, instant_text
from convergio.ledger.model import Account
from convergio.subscriptions.model import BillingView

_NUMBER: Final = re.compile(r"([A-Z0-9]{1,8})-(\d{4})-(\d{6,18})", re.ASCII)
_TICK: Final = timedelta(microseconds=1)
_AMOUNT_MAX: Final = 2**62  # far from the end of a bigint, so that no sum of lines reaches it
_PERSONAL: Final = tuple(one.name for one in fields(Personal))
FEE: Final = "fee"
USAGE: Final = "usage"
FRESH: Final = frozenset({FEE, USAGE})
# What a contradiction in one customer's facts may raise; anything else is not of one customer.
BROKEN: Final = (ConvergioError, ArithmeticError, LookupError, ValueError)
OWING: Final = frozenset({Status.OPEN, Status.UNCOLLECTIBLE})
ACCOUNTS: Final = {Kind.FIXED: Account.DEFERRED_REVENUE, Kind.USAGE: Account.USAGE_REVENUE}


def settle(
    view: BillingView,
    prices: Prices,
    charges: Mapping[ChargeKey, Charge],
    billed: Mapping[ChargeKey, Billed],
    *,
    last_boundary: datetime | None,
    closed: datetime,
    waiting: set[UUID] | None = None,
) -> tuple[list[Draft], list[Problem]]:
    """Return what brings what is billed to what is owed, boundary by boundary, earliest first.

    A line below zero takes back what was billed. An end within a period does so at its own
    instant; any other difference of a boundary that is already invoiced waits for the customer's
    next one, and goes on a final invoice when none can come any more.
    """
    strays = [key for key in billed if is_stray(view, key, charges, closed=closed)]
    if strays:
        return [], [stray(view, strays[0], billed[strays[0]])]
    due: dict[datetime, list[Line]] = {}
    late: list[Line] = []
    waits = False
    for charge in _compared(view, prices, charges, billed, closed=closed):
        known = billed.get(charge.key)
        difference = charge.amount.minor - (known.amount if known else 0)
        if not difference:
            continue
        if known is None and (last_boundary is None or charge.due_at > last_boundary):
            due.setdefault(charge.due_at, []).append(_line(charge))
            continue
        at = charge.amended_at if difference < 0 else None
        if at is None or (last_boundary is not None and at <= last_boundary):
            late.append(_amendment(charge, known))
        elif at <= closed:
            due.setdefault(at, []).append(_amendment(charge, known))
        else:
            waits = True
    if late:
        boundary = _late_boundary(view, charges, last_boundary=last_boundary, closed=closed)
        waits = waits or boundary is None
        if boundary is not None:
            due.setdefault(boundary, []).extend(late)
    if waits and waiting is not None:
        waiting.add(view.customer_id)
    return [_draft(view.customer_id, at, due[at]) for at in sorted(due)], []


def _compared(
    view: BillingView,
    prices: Prices,
    charges: Mapping[ChargeKey, Charge],
    billed: Mapping[ChargeKey, Billed],
    *,
    closed: datetime,
) -> Iterator[Charge]:
    """Yield every charge, and one of zero for what is billed and no longer owed."""
    yield from charges.values()
    for key, known in billed.items():
        if known.amount and key not in charges and not is_to_come(view, key, known, closed=closed):
            gone = nothing(view, prices, key, period_end=known.period_end)
            if gone is not None:
                yield gone


def is_to_come(view: BillingView, key: ChargeKey, known: Billed, *, closed: datetime) -> bool:
    """Say whether a key that is not owed yet was billed by a run that reached further."""
    if key.period_start > closed:
        return True
    item = next((i for one in view.agreements for i in one.items if i.item_id == key.item_id), None)
    if item is None:
        return False
    began = max(item.active_from, key.period_start)
    if key.kind == Kind.FIXED:
        return began > closed
    if item.active_until is None:
        return known.period_end > closed
    return item.active_until > began


def is_stray(
    view: BillingView, key: ChargeKey, charges: Mapping[ChargeKey, Charge], *, closed: datetime
) -> bool:
    """Say whether a line names what the customer never had; no later line can mend that."""
    if key in charges or key.period_start > closed:
        return False
    return not any(i.item_id == key.item_id for one in view.agreements for i in one.items)


def stray(view: BillingView, key: ChargeKey, known: Billed) -> Problem:
    """Tell of a line of what the customer never had."""
    reason = (
        f"{key.kind} of item {key.item_id} from {instant_text(key.period_start)}:"
        f" {known.amount} is billed, in minor units, and there is no such item"
    )
    return Problem(view.customer_id, "stray", reason)


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
    reason = FEE if kind == Kind.FIXED else USAGE
    detail = f'{{"steps":{charge.steps}}}'
    return Line(
        charge.subscription_id, charge.key, charge.period_end, charge.price_id, reason,
        charge.name, charge.quantity, charge.amount, detail, due_at=charge.due_at,
    )  # fmt: skip


def _amendment(charge: Charge, known: Billed | None) -> Line:
    """Return the difference as a line of its own that says why, and what was owed and billed."""
    before = Money(known.amount if known else 0, charge.amount.currency)
    difference = charge.amount - before
    what = "fee" if charge.key.kind == Kind.FIXED else "usage"
    if difference.minor > 0:
        reason = f"late {what} for {_days(charge)}"
    elif charge.why is not None and charge.key.kind == Kind.FIXED:
        reason = f"credit: {charge.why}"
    else:
        reason = f"credit: correction of {what} for {_days(charge)}"
    quantity = charge.quantity - (known.quantity if known else 0)
    if charge.key.kind == Kind.FIXED:
        quantity = charge.quantity
    sums = f'"owed":"{charge.amount.text()}","billed":"{before.text()}"'
    return Line(
        charge.subscription_id, charge.key, charge.period_end, charge.price_id, reason,
        f"{charge.name}: {reason}", quantity, difference, f'{{"steps":{charge.steps},{sums}}}',
        due_at=charge.due_at,
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
    require(abs(minor) < _AMOUNT_MAX, "an invoice's total is out of range")
    return Draft(customer_id, boundary_at, tuple(lines), Money(minor, currency))


def _order(line: Line) -> tuple[str, datetime, bool, UUID]:
    """Fees before usage, the older period first, and what is taken back before what replaces it."""
    return line.key.kind, line.key.period_start, line.amount.minor >= 0, line.key.item_id


def bill(
    view: BillingView,
    prices: Prices,
    usage: Usage,
    billed: Mapping[ChargeKey, Billed],
    *,
    last_boundary: datetime | None,
    closed: datetime,
    waiting: set[UUID] | None = None,
    drawn: Usage = NOTHING,
) -> tuple[list[Draft], list[Problem]]:
    """Return a customer's next invoices, or why there can be none: one never stops the others."""
    try:
        charges = owed(view, prices, usage, closed=closed, drawn=drawn)
        return settle(
            view,
            prices,
            charges,
            billed,
            last_boundary=last_boundary,
            closed=closed,
            waiting=waiting,
        )
    except BROKEN as error:
        return [], [broken(view.customer_id, error)]


def broken(customer_id: UUID, error: Exception) -> Problem:
    """Say why nothing can be decided for a customer; an unforeseen error is told by its place."""
    if isinstance(error, ConvergioError):
        return Problem(customer_id, error.code, str(error))
    reason = f"{type(error).__name__} while deciding{_place_of(error)}"
    return Problem(customer_id, Fault.code, reason)


def _place_of(error: Exception) -> str:
    """Return where an error was raised: what it says itself may hold a customer's data."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if module.startswith("convergio."):
            place = f", in {module} line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def revenue(draft: Draft) -> dict[Account, Money]:
    """Return what an invoice credits to each account: fees are deferred, usage is earned.

    Revenue is less the discounts; the tax is owed to the state.
    """
    currency = draft.total.currency
    if not draft.is_plain:
        earned = earned_by(draft.lines, draft.taxes, currency)
        sums = {ACCOUNTS[kind]: Money(minor, currency) for kind, minor in earned.items()}
        sums[Account.TAX_PAYABLE] = Money(sum(row.tax for row in draft.taxes), currency)
        return sums
    sums = {}
    for line in draft.lines:
        account = ACCOUNTS[line.key.kind]
        sums[account] = sums[account] + line.amount if account in sums else line.amount
    return sums


def is_fresh(draft: Draft) -> bool:
    """Say whether a draft only bills what became due; nothing in it amends what was billed."""
    return all(line.reason in FRESH for line in draft.lines)


def too_many(
    drafts: Iterable[Draft], counts: Mapping[tuple[UUID, UUID], int], *, lines_max: int
) -> list[Problem]:
    """Return who would get more lines in a day than any real change makes: something goes round.

    Only amendments count, of invoices and credit notes: catching up on years of periods is no
    circle. `counts` is how many each subscription got within a day before.
    """
    sums: dict[tuple[UUID, UUID], int] = {}
    for draft in drafts:
        for line in draft.lines:
            if line.reason not in FRESH:
                key = draft.customer_id, line.subscription_id
                sums[key] = sums.get(key, counts.get(key, 0)) + 1
    out = {key[0]: count for key, count in sums.items() if count > lines_max}
    return [
        Problem(customer_id, error.code, error.detail)
        for customer_id, count in out.items()
        for error in (errors.too_many_lines(count, lines_max),)
    ]


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
    net_days: Callable[[UUID], int],
    finalized_at: datetime,
    from_balance: Sequence[int],
) -> Iterator[Invoice]:
    """Yield the invoices of drafts in their order, numbered without gaps.

    `net_days` says within how many days a customer pays.
    Where nothing is left to pay, also because the customer's balance covers it, it is paid.
    """
    for place, draft in enumerate(drafts):
        due_on = numbers.issued_on + timedelta(days=net_days(draft.customer_id))
        total, drawn = draft.total.minor, from_balance[place]
        yield Invoice(
            draft.customer_id, ids[place], draft.boundary_at, numbers.series, numbers.year,
            numbers.first + place, Status.OPEN if total > drawn else Status.PAID,
            draft.total.currency, total, 0, numbers.issued_on, due_on, finalized_at,
            sealed[place], 0, drawn, 0, *draft.sums,
        )  # fmt: skip


def drawn(drafts: Sequence[Draft], balances: Mapping[UUID, int]) -> list[int]:
    """Return what each draft, in their order, takes from its customer's credit balance."""
    left = dict(balances)
    taken = []
    for draft in drafts:
        part = min(draft.total.minor, left.get(draft.customer_id, 0))
        left[draft.customer_id] = left.get(draft.customer_id, 0) - part
        taken.append(part)
    return taken


def pay(invoice: Invoice, amount: Money) -> tuple[Invoice, Money]:
    """Return the invoice with a captured payment, and what of it was more than was due.

    Money that came is never refused: the excess is the customer's. Raises: Conflict for another
    currency.
    """
    if amount.currency != invoice.currency:
        raise errors.other_currency(invoice.number_text, invoice.currency)
    require(amount.minor > 0, "a payment is above zero")
    due = invoice.due if invoice.status in OWING else Money.zero(invoice.currency)
    excess = amount - min(due, amount)
    paid = replace(invoice, paid=invoice.paid + amount.minor, excess=invoice.excess + excess.minor)
    if invoice.status in OWING and not paid.due.minor:
        paid = replace(paid, status=Status.PAID)
    return paid, excess


def parse_number(text: str) -> tuple[str, int, int]:
    """Read an invoice's number as series, year and number. Raises: Invalid."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise errors.bad_number(text)
    return found[1], int(found[2]), int(found[3])


def buyer_text(account: Customer, personal: Personal, *, by_transfer: bool = False) -> str:
    """Return the snapshot of a buyer as JSON, to be sealed with the invoice."""
    buyer = Buyer(
        key=account.customer_key,
        locale=account.locale,
        country=account.country,
        by_transfer=by_transfer,
        **{name: getattr(personal, name) for name in _PERSONAL},
    )
    return msgspec.json.encode(buyer).decode()
