"""Collect what is due: claim, call, record; ask again about what had no answer.

Claim and record are one transaction each and the gateway is called between them, so a crash at
any point leaves either nothing or an attempt under our own key, which `reconcile` asks about.
An attempt begins when it is claimed, however long the pass has lasted by then: how long its call
takes is counted from there. Locks are taken in the order of docs/adr/0018: subscription, invoice,
the customer's collections, attempt. A claim or record that met another transaction is done again;
the call in between never.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID, uuid5

from convergio.billing import actions as billing
from convergio.billing import terms
from convergio.billing.model import CollectionMethod, Invoice
from convergio.infra import outbox
from convergio.infra.clock import Clock
from convergio.infra.db import Database, Tx
from convergio.infra.ids import new_id, typeid
from convergio.kernel.errors import OutcomeUnknown, Unavailable, require
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.payments import errors, following, rules, store
from convergio.payments.gateways.protocol import (
    ChargeRequest,
    ChargeResult,
    Declined,
    Gateway,
    Succeeded,
)
from convergio.payments.model import (
    DUNNING,
    PENDING,
    Attempt,
    AttemptState,
    Collection,
    CollectReport,
    Method,
    Tally,
)
from convergio.subscriptions import actions as subscriptions

ANSWER_EXPECTED_WITHIN: Final = timedelta(minutes=15)
"""How long a call may take before `reconcile` asks: longer than any gateway's time-out."""

Gateways = Mapping[str, Gateway]
Progress = Callable[[int], None]
_FIRST: Final = UUID(int=0)
_PAGE: Final = 500


def add_method(
    tx: Tx,
    customer_id: UUID,
    *,
    gateway: str,
    token: str,
    now: datetime,
    brand: str | None = None,
    last_four: str | None = None,
) -> Method:
    """Keep a gateway's token as the customer's default, and try again what waited for one.

    Locks: the customer's collections. Emits: payment_method.added. Raises: Invalid, also for a
    card number in any field.
    """
    rules.check_method(gateway=gateway, token=token, brand=brand, last_four=last_four)
    collections = store.lock_collections(tx, customer_id)
    method = Method(
        customer_id=customer_id,
        payment_method_id=new_id(now),
        gateway=gateway,
        token=token,
        brand=brand,
        last_four=last_four,
        is_default=True,
        refused_at=None,
        created_at=now,
    )
    store.clear_default_method(tx, customer_id)
    store.insert_method(tx, method)
    for collection in collections:
        if rules.wants_method(collection):
            store.save_collection(tx, rules.reopened(collection, now=now))
    outbox.emit(
        tx,
        "payment_method.added",
        customer_id=customer_id,
        subject=method.payment_method_id,
        data={"gateway": gateway},
        now=now,
    )
    return method


def methods(tx: Tx, customer_id: UUID) -> list[Method]:
    """Return a customer's payment methods, the default first, then the newest."""
    return store.list_methods(tx, customer_id)


def payable(tx: Tx, customer_ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these customers have a method that can be charged, or pay by transfer."""
    agreed = terms.agreed(tx, customer_ids)
    by_transfer = {
        key for key, one in agreed.items() if one.collection == CollectionMethod.SEND_INVOICE
    }
    return store.list_payable(tx, customer_ids) | by_transfer


def attempts(tx: Tx, customer_id: UUID) -> list[Attempt]:
    """Return every try to collect from a customer, by invoice and number."""
    return store.list_attempts(tx, customer_id)


def collections(tx: Tx, customer_id: UUID) -> list[Collection]:
    """Return how the collecting of each of a customer's invoices stands."""
    return store.list_collections(tx, customer_id)


def open_collections(
    tx: Tx, *, now: datetime, after: tuple[UUID, UUID] = (_FIRST, _FIRST), limit: int = _PAGE
) -> tuple[UUID, UUID] | None:
    """Begin to collect a page of the open invoices; return where the next page begins, if any."""
    invoices = billing.open_invoices(tx, after=after, limit=limit)
    pairs = [(invoice.customer_id, invoice.invoice_id) for invoice in invoices]
    store.insert_collections(tx, pairs, next_at=now)
    return pairs[-1] if len(pairs) == limit else None


def collect_due(
    database: Database,
    gateways: Gateways,
    *,
    clock: Clock,
    limit: int | None = None,
    progress: Progress | None = None,
) -> CollectReport:
    """Try to collect every invoice whose time has come; `progress` hears how many are done.

    What is due is due when the pass begins; each attempt is made at the clock's instant of its
    claim. Opens its own transactions: claim, (call), record, for each invoice. What is refused or
    unreachable becomes a problem of the report and sinks no other invoice. Whoever waits for an
    invoice that was settled otherwise since is let in again first.
    Emits: payment.succeeded, payment.declined, payment.requires_action, payment.unknown,
    collection.waiting_for_method, collection.exhausted.
    """
    now, tally = clock.now(), Tally()
    page: tuple[UUID, UUID] | None = (_FIRST, _FIRST)
    while page is not None:
        page = database.insist(partial(open_collections, now=now, after=page))
    for customer_id in _settled_since(database):
        with tally.watching(typeid("cus", customer_id)):
            database.insist(partial(following.close_settled, customer_id=customer_id, now=now))
    for done, due in enumerate(_due(database, now=now, limit=limit), start=1):
        with tally.watching(typeid("inv", due.invoice_id)):
            _collect(database, gateways, due, clock=clock, tally=tally)
        if progress is not None:
            progress(done)
    return tally.report()


def reconcile(
    database: Database,
    gateways: Gateways,
    *,
    now: datetime,
    older_than: timedelta = ANSWER_EXPECTED_WITHIN,
) -> CollectReport:
    """Ask the gateway about every attempt that has had no final answer for `older_than`.

    A key that the gateway has never seen is sent again, as the same key: were the first call
    still on its way, the two would be one charge. Nothing is tried under a new key meanwhile.
    Emits: as `collect_due`.
    """
    tally = Tally()
    for attempt in _pending(database, before=now - older_than):
        with tally.watching(typeid("inv", attempt.invoice_id)):
            _ask(database, gateways, attempt, now=now, tally=tally)
    return tally.report()


def _due(database: Database, *, now: datetime, limit: int | None) -> Iterator[store.DueRow]:
    after, left = (_FIRST, _FIRST), limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(left, _PAGE)
        with database.transaction() as tx:
            page = store.list_due(tx, now=now, after=after, size=size)
        yield from page
        if len(page) < size:
            return
        after = (page[-1].customer_id, page[-1].invoice_id)
        left = None if left is None else left - len(page)


def _settled_since(database: Database) -> Iterator[UUID]:
    after = _FIRST
    while True:
        with database.transaction() as tx:
            page = store.page_settled(tx, after=after, size=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1]


def _pending(database: Database, *, before: datetime) -> Iterator[Attempt]:
    after = (_FIRST, _FIRST)
    while True:
        with database.transaction() as tx:
            page = store.list_pending(tx, before=before, after=after, size=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = (page[-1].customer_id, page[-1].attempt_id)


def _collect(
    database: Database, gateways: Gateways, due: store.DueRow, *, clock: Clock, tally: Tally
) -> None:
    claim = database.insist(partial(_claim, due=due, gateways=gateways, clock=clock))
    if isinstance(claim, Collection):
        tally.rest(claim)
    elif claim is not None:
        attempt, request = claim
        result = _charge(gateways[attempt.gateway], request)
        _settle(database, attempt, result, now=clock.now(), tally=tally)


def _claim(
    tx: Tx, due: store.DueRow, gateways: Gateways, *, clock: Clock
) -> tuple[Attempt, ChargeRequest] | Collection | None:
    """Write down the intent to charge, or that the collection rests; None when it is not due.

    The clock is asked once everything is locked, so that the wait for it is none of the attempt's.
    Locks: subscription, invoice, collections. The commit of this transaction is what makes the
    call ours.
    """
    subscriptions.hold(tx, due.customer_id)
    invoice = billing.lock_invoice(tx, due.customer_id, due.invoice_id)
    found = {one.invoice_id: one for one in store.lock_collections(tx, due.customer_id)}
    collection, now = found[due.invoice_id], clock.now()
    if not rules.is_due(collection, now=now):
        return None
    owed = rules.owed(invoice)
    method = _method(tx, due.customer_id)
    if owed.minor == 0 or method is None:
        resting = rules.rested(collection, invoice, now=now, schedule=DUNNING)
        store.save_collection(tx, resting)
        following.follow(tx, found, resting, now=now)
        return resting
    if method.gateway not in gateways:
        raise errors.unknown_gateway(method.gateway)
    claimed = rules.claimed(collection)
    attempt = rules.intent(new_id(now), claimed, method, owed, now=now)
    store.save_collection(tx, claimed)
    store.insert_attempt(tx, attempt)
    return attempt, _request(attempt, method, invoice)


def _method(tx: Tx, customer_id: UUID) -> Method | None:
    """Return what may be charged: nothing of a customer who transfers the money."""
    if terms.terms_of(tx, customer_id).collection == CollectionMethod.SEND_INVOICE:
        return None
    return store.find_usable_method(tx, customer_id)


def _key(attempt: Attempt) -> str:
    return typeid("pay", attempt.attempt_id)


def _request(attempt: Attempt, method: Method, invoice: Invoice) -> ChargeRequest:
    """Return what the gateway is asked: the same for every call of one attempt."""
    return ChargeRequest(
        idempotency_key=_key(attempt),
        token=method.token,
        amount=Money(attempt.amount, attempt.currency),
        description=f"Invoice {invoice.number_text}",
        attempt=attempt.number,
    )


def _charge(gateway: Gateway, request: ChargeRequest) -> ChargeResult | None:
    """Call the gateway; None when nobody knows what became of it."""
    try:
        return gateway.charge(request)
    except (OutcomeUnknown, Unavailable):
        return None


def _ask(
    database: Database, gateways: Gateways, attempt: Attempt, *, now: datetime, tally: Tally
) -> None:
    gateway = gateways.get(attempt.gateway)
    if gateway is None:
        raise errors.unknown_gateway(attempt.gateway)
    try:
        result = gateway.find(_key(attempt))
    except (OutcomeUnknown, Unavailable):
        tally.states[AttemptState.UNKNOWN] += 1
        return
    if result is None:
        request = database.insist(partial(_same_request, attempt=attempt, now=now))
        if request is None:
            return
        result = _charge(gateway, request)
    _settle(database, attempt, result, now=now, tally=tally)


def _same_request(tx: Tx, attempt: Attempt, *, now: datetime) -> ChargeRequest | None:
    """Return the request of an attempt that the gateway never saw, or drop the attempt.

    It is dropped, without counting as a failure, when the invoice no longer owes the amount.
    Locks: invoice, collections, attempt.
    """
    invoice = billing.lock_invoice(tx, attempt.customer_id, attempt.invoice_id)
    found = {one.invoice_id: one for one in store.lock_collections(tx, attempt.customer_id)}
    current = store.lock_attempt(tx, attempt.customer_id, attempt.attempt_id)
    if current is None or current.state not in PENDING:
        return None
    if rules.owed(invoice).minor < current.amount:
        store.save_attempt(tx, rules.dropped(current, now=now))
        collection = found[attempt.invoice_id]
        store.save_collection(tx, rules.reopened(collection, now=now))
        return None
    method = store.find_method(tx, attempt.customer_id, attempt.payment_method_id)
    require(method is not None, "an attempt has lost its payment method")
    return None if method is None else _request(current, method, invoice)


def _settle(
    database: Database,
    attempt: Attempt,
    result: ChargeResult | None,
    *,
    now: datetime,
    tally: Tally,
) -> None:
    """Record an answer, and count it once it is committed."""
    recorded = database.insist(partial(_record, attempt=attempt, result=result, now=now))
    if recorded is not None:
        tally.add(*recorded)


def _record(
    tx: Tx, attempt: Attempt, result: ChargeResult | None, *, now: datetime
) -> tuple[Attempt, Collection] | None:
    """Record what became of an attempt; None when someone else has recorded it already.

    One that was dropped has an answer all the same if its call was on its way: what it took is
    booked, and while nobody knows it is pending again. Locks: subscription, invoice, collections,
    attempt. Raises: Conflict when another attempt is pending by then.
    """
    subscriptions.hold(tx, attempt.customer_id)
    invoice = billing.lock_invoice(tx, attempt.customer_id, attempt.invoice_id)
    found = {one.invoice_id: one for one in store.lock_collections(tx, attempt.customer_id)}
    current = store.lock_attempt(tx, attempt.customer_id, attempt.attempt_id)
    require(current is not None, "an attempt is gone")
    awaited = None if current is None else rules.awaited(current, result)
    if awaited is None:
        return None
    collection = found[attempt.invoice_id]
    after = rules.unanswered(awaited) if result is None else rules.settled(awaited, result, now=now)
    if result is not None:
        collection = rules.answered(collection, result, now=now, schedule=DUNNING)
        if not isinstance(result, Succeeded) and not rules.owed(invoice).minor:
            collection = rules.closed(collection, invoice.status)  # a transfer or a credit paid it
    if after == current:
        return after, collection
    if awaited != current and after.state in PENDING:
        _refuse_beside(tx, after)
        collection = rules.held(collection)
    store.save_attempt(tx, after)
    store.save_collection(tx, collection)
    if isinstance(result, Succeeded):
        _book(tx, after, result, now=now)
    if isinstance(result, Declined) and result.hard:
        store.refuse_method(tx, after.customer_id, after.payment_method_id, refused_at=now)
    _tell(tx, after, now=now)
    following.follow(tx, found, collection, now=now)
    return after, collection


def _refuse_beside(tx: Tx, attempt: Attempt) -> None:
    """Refuse to have two attempts pending for one invoice. Raises: Conflict."""
    for one in store.list_attempts(tx, attempt.customer_id):
        if one.invoice_id == attempt.invoice_id and one.state in PENDING:
            raise errors.called_beside(_key(attempt), attempt.gateway)


def _book(tx: Tx, attempt: Attempt, result: Succeeded, *, now: datetime) -> None:
    """Post the payment and its fee, and take the amount off the invoice."""
    amount = Money(attempt.amount, attempt.currency)
    moved = [(Kind.PAYMENT, Account.GATEWAY_CLEARING, Account.RECEIVABLE, amount)]
    if result.fee.minor:
        moved.append((Kind.FEE, Account.GATEWAY_FEES, Account.GATEWAY_CLEARING, result.fee))
    transfers = [
        Transfer(
            customer_id=attempt.customer_id,
            transfer_id=uuid5(attempt.attempt_id, kind),
            kind=kind,
            source_id=attempt.attempt_id,
            debit_account=debit,
            credit_account=credit,
            amount=money,
            occurred_at=now,
        )
        for kind, debit, credit, money in moved
    ]
    ledger.post_many(tx, transfers)
    billing.apply_payment(
        tx,
        customer_id=attempt.customer_id,
        invoice_id=attempt.invoice_id,
        amount=amount,
        now=now,
    )


def _tell(tx: Tx, attempt: Attempt, *, now: datetime) -> None:
    outbox.emit(
        tx,
        f"payment.{attempt.state}",
        customer_id=attempt.customer_id,
        subject=attempt.attempt_id,
        data={
            "invoice": typeid("inv", attempt.invoice_id),
            "amount": Money(attempt.amount, attempt.currency).text(),
            "currency": attempt.currency,
            "decline_code": attempt.decline_code,
        },
        now=now,
    )
