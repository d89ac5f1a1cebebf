"""What follows from an answer: the next state, the next date, and how the customer stands.

Everything here is a pure function of what is stored and of `now`. A decline moves one step along
the schedule; a hard decline ends the method, not the invoice; the lack of a method becomes a
failure when the invoice is overdue, so that an unpaid invoice always ends at the schedule's end.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from convergio.billing.model import Invoice
from convergio.billing.model import Status as InvoiceStatus
from convergio.billing.rules import OWING
from convergio.kernel.errors import require
from convergio.kernel.money import AMOUNT_MAX, Money
from convergio.kernel.text import check_text, check_words, refuse_card_number
from convergio.payments import errors
from convergio.payments.gateways.protocol import (
    ChargeResult,
    Declined,
    RequiresAction,
    Succeeded,
)
from convergio.payments.model import (
    PENDING,
    RESTING,
    TRANSITIONS,
    Attempt,
    AttemptState,
    Collection,
    CollectionState,
    Method,
    Schedule,
)
from convergio.subscriptions.model import Status

_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_BRAND_SIZE_MAX: Final = 60
_NOT_CHARGED: Final = "not_charged"
_SETTLED: Final = frozenset({InvoiceStatus.PAID, InvoiceStatus.VOID})
_REFERENCE_SIZE_MAX: Final = 140  # of a SEPA transfer
EARLIEST_RECEIPT: Final = date(2000, 1, 1)
_LAST_FOUR: Final = re.compile(r"[0-9]{4}")


def check_method(*, gateway: str, token: str, brand: str | None, last_four: str | None) -> None:
    """Refuse what is no token. Raises: Invalid, also for a card number in any of the fields."""
    fields = {"gateway": gateway, "token": token, "brand": brand, "last_four": last_four}
    for field, text in fields.items():
        if text is not None:
            refuse_card_number(text, field=field)
        if field in {"gateway", "token"} and _KEY.fullmatch(text or "") is None:
            raise errors.bad_key(field)
    if brand is not None:
        check_text(brand, field="brand", size_max=_BRAND_SIZE_MAX)
    if last_four is not None and _LAST_FOUR.fullmatch(last_four) is None:
        raise errors.bad_last_four()


def overdue_at(due_on: date) -> datetime:
    """Return the instant at which an invoice that was to be paid by a day is late."""
    return datetime.combine(due_on + timedelta(days=1), time(), UTC)


def claimed(collection: Collection) -> Collection:
    """Return the collection with one more attempt under way: no date until it has an answer."""
    return replace(
        collection, state=CollectionState.DUE, attempts=collection.attempts + 1, next_at=None
    )


def closed(collection: Collection, status: InvoiceStatus) -> Collection:
    """Return the collection of an invoice from which nothing is left to collect."""
    paid = status == InvoiceStatus.PAID
    state = CollectionState.PAID if paid else CollectionState.CLOSED
    return replace(collection, state=state, next_at=None)


def reopened(collection: Collection, *, now: datetime) -> Collection:
    """Return the collection ready for a new method; what has failed before stays counted."""
    return replace(collection, state=CollectionState.DUE, next_at=now)


def without_method(
    collection: Collection, *, overdue: datetime, now: datetime, schedule: Schedule
) -> Collection:
    """Return the collection of an invoice for which there is nothing to charge.

    It waits until the invoice is overdue, then for as long as the schedule lasts, then it is over.
    """
    waiting = replace(collection, state=CollectionState.WAITING_FOR_METHOD)
    if collection.first_failed_at is None and now < overdue:
        return replace(waiting, next_at=overdue)
    first = collection.first_failed_at or now
    end = first + schedule[-1]
    if now >= end:
        return replace(
            collection, state=CollectionState.EXHAUSTED, first_failed_at=first, next_at=None
        )
    return replace(waiting, first_failed_at=first, next_at=end)


def rested(
    collection: Collection, invoice: Invoice, *, now: datetime, schedule: Schedule
) -> Collection:
    """Return the collection of an invoice that cannot be charged: all settled, or no method."""
    if owed(invoice).minor == 0:
        return closed(collection, invoice.status)
    overdue = overdue_at(invoice.due_on)
    return without_method(collection, overdue=overdue, now=now, schedule=schedule)


def answered(
    collection: Collection, result: ChargeResult, *, now: datetime, schedule: Schedule
) -> Collection:
    """Return the collection after an answer of the gateway."""
    match result:
        case Succeeded():
            return closed(collection, InvoiceStatus.PAID)
        case RequiresAction():
            return replace(collection, state=CollectionState.REQUIRES_ACTION, next_at=None)
        case Declined(hard=hard):
            first = collection.first_failed_at or now
            failed = replace(
                collection,
                state=CollectionState.DUE,
                failures=collection.failures + 1,
                first_failed_at=first,
            )
            if hard:
                return without_method(failed, overdue=now, now=now, schedule=schedule)
            return _stepped(failed, first, now=now, schedule=schedule)


def _stepped(
    failed: Collection, first: datetime, *, now: datetime, schedule: Schedule
) -> Collection:
    """Return the collection at its next step: never two tries closer than the schedule's first."""
    if failed.failures > len(schedule):
        return replace(failed, state=CollectionState.EXHAUSTED, next_at=None)
    step = first + schedule[failed.failures - 1]
    return replace(failed, next_at=max(step, now + schedule[0]))


def settled(attempt: Attempt, result: ChargeResult, *, now: datetime) -> Attempt:
    """Return the attempt with its answer. Raises: Fault for a step that its table lacks."""
    match result:
        case Succeeded(reference=reference, fee=fee):
            return _moved(
                replace(attempt, gateway_reference=reference, fee=fee.minor, settled_at=now),
                AttemptState.SUCCEEDED,
            )
        case Declined(reference=reference, code=code):
            return _moved(
                replace(attempt, gateway_reference=reference, decline_code=code, settled_at=now),
                AttemptState.DECLINED,
            )
        case RequiresAction(reference=reference):
            return _moved(
                replace(attempt, gateway_reference=reference), AttemptState.REQUIRES_ACTION
            )


def unanswered(attempt: Attempt) -> Attempt:
    """Return the attempt as `unknown`: to be asked about, neither failed nor tried again."""
    return _moved(attempt, AttemptState.UNKNOWN)


def _moved(attempt: Attempt, state: AttemptState) -> Attempt:
    require(
        state in TRANSITIONS[attempt.state], f"an attempt that is {attempt.state} became {state}"
    )
    return replace(attempt, state=state)


def standing(current: Status, collections: Iterable[Collection]) -> Status:
    """Return the subscription's status that follows from all of the customer's collections.

    Failing once is past due, the end of a schedule is unpaid, nothing failing is active. Unpaid
    ends only when nothing fails any more. Other states are not for payments to change, except that
    a first payment activates what was incomplete.
    """
    one = list(collections)
    failing = any(c.first_failed_at is not None and not _over(c) for c in one)
    exhausted = any(c.state is CollectionState.EXHAUSTED for c in one)
    if current is Status.INCOMPLETE:
        paid = any(c.state is CollectionState.PAID for c in one)
        return Status.ACTIVE if paid and not failing else current
    if current not in {Status.ACTIVE, Status.PAST_DUE, Status.UNPAID}:
        return current
    if exhausted or (failing and current is Status.UNPAID):
        return Status.UNPAID
    return Status.PAST_DUE if failing else Status.ACTIVE


def _over(collection: Collection) -> bool:
    return collection.state in {CollectionState.PAID, CollectionState.CLOSED}


def wants_method(collection: Collection) -> bool:
    """Say whether a new payment method is a reason to try again, also after the schedule's end."""
    return collection.state in RESTING


def owed(invoice: Invoice) -> Money:
    """Return what is left to collect of an invoice: nothing of one that is not open."""
    still = invoice.status == InvoiceStatus.OPEN
    return invoice.due if still else Money.zero(invoice.currency)


def is_due(collection: Collection, *, now: datetime) -> bool:
    """Say whether it is time to try; without a date another try is under way, or none is due."""
    return collection.next_at is not None and collection.next_at <= now


def intent(
    attempt_id: UUID, claimed: Collection, method: Method, owed: Money, *, now: datetime
) -> Attempt:
    """Return the attempt that is written down before the gateway is called."""
    return Attempt(
        customer_id=claimed.customer_id,
        attempt_id=attempt_id,
        invoice_id=claimed.invoice_id,
        number=claimed.attempts,
        payment_method_id=method.payment_method_id,
        gateway=method.gateway,
        amount=owed.minor,
        currency=owed.currency,
        state=AttemptState.INTENT,
        decline_code=None,
        gateway_reference=None,
        fee=None,
        made_at=now,
        settled_at=None,
    )


def dropped(attempt: Attempt, *, now: datetime) -> Attempt:
    """Return an attempt that never reached the gateway and is not wanted any more."""
    return _moved(
        replace(attempt, decline_code=_NOT_CHARGED, settled_at=now), AttemptState.DECLINED
    )


def awaited(attempt: Attempt, result: ChargeResult | None) -> Attempt | None:
    """Return the attempt as one that this answer, or the lack of one, belongs to.

    None where it has its answer. One that was dropped has none: if its call was on its way all the
    same, only a no leaves it as it is.
    """
    if attempt.state in PENDING:
        return attempt
    if attempt.decline_code != _NOT_CHARGED or isinstance(result, Declined):
        return None
    return replace(attempt, state=AttemptState.UNKNOWN, decline_code=None, settled_at=None)


def held(collection: Collection) -> Collection:
    """Return the collection without a date, for an attempt is under way after all."""
    state = CollectionState.DUE if collection.state in RESTING else collection.state
    return replace(collection, state=state, next_at=None)


def check_receipt(amount: Money, reference: str, received_on: date, *, today: date) -> None:
    """Refuse a receipt that cannot be true. Raises: Invalid, also for a card number in it."""
    if not 0 < amount.minor <= AMOUNT_MAX:
        raise errors.bad_receipt("amount", "write what arrived, above zero, such as 120.00")
    if not EARLIEST_RECEIPT <= received_on <= today + timedelta(days=1):
        raise errors.bad_receipt(
            "received_on", "write the day on which it arrived, not later than today"
        )
    check_words(reference, field="reference", size_max=_REFERENCE_SIZE_MAX)
    if not reference.strip():
        raise errors.bad_receipt("reference", "write what the bank statement calls it")


def payable(invoice: Invoice) -> Money:
    """Return what a receipt can pay of an invoice: also of one that was given up."""
    return invoice.due if invoice.status in OWING else Money.zero(invoice.currency)


def settled_elsewhere(collection: Collection, invoice: Invoice) -> Collection:
    """Return the collection of an invoice that something else than a charge may have settled.

    Money from elsewhere, a credit or a void ends it; what was given up is still owed. A pending
    attempt stays what it is: its answer finds the invoice settled.
    """
    return closed(collection, invoice.status) if invoice.status in _SETTLED else collection
