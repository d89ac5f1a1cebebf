"""What follows for a customer from how the collecting of all their invoices stands.

A collection ends by an answer of a gateway, or because its invoice is settled otherwise: by a
transfer, a credit or a void. Either way the subscription's status follows from all of the
customer's collections, which are locked together, after the subscription and the invoices (ADR 18).
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing.model import Invoice
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.payments import rules, store
from convergio.payments.model import RESTING, Collection, CollectionState
from convergio.subscriptions import actions as subscriptions


def follow(
    tx: Tx, found: Mapping[UUID, Collection], collection: Collection, *, now: datetime
) -> None:
    """Let the subscription's status follow from the customer's collections, and say what rests.

    `found` are all of them, by invoice, as they were locked; `collection` is one of them as it is
    now. The caller has locked the subscription. Emits: subscription.updated,
    collection.waiting_for_method, collection.exhausted.
    """
    customer_id = collection.customer_id
    current = subscriptions.live_status(tx, [customer_id]).get(customer_id)
    if current is not None:
        every = {**found, collection.invoice_id: collection}.values()
        status = rules.standing(current, every)
        subscriptions.set_status(tx, customer_id=customer_id, status=status, now=now)
    if collection.state in RESTING:
        outbox.emit(
            tx,
            f"collection.{collection.state}",
            customer_id=customer_id,
            subject=collection.invoice_id,
            now=now,
        )


def settled_elsewhere(tx: Tx, invoice: Invoice, *, now: datetime) -> None:
    """Let the collection of an invoice follow money that came outside of a gateway.

    The caller has locked the customer's subscription and the invoice. Locks: the collections.
    Emits: subscription.updated.
    """
    found = {one.invoice_id: one for one in store.lock_collections(tx, invoice.customer_id)}
    collection = found.get(invoice.invoice_id)
    if collection is None:
        return
    after = rules.settled_elsewhere(collection, invoice)
    if after != collection:
        store.save_collection(tx, after)
        follow(tx, found, after, now=now)


def close_settled(tx: Tx, customer_id: UUID, *, now: datetime) -> None:
    """Close what had come to its end and whose invoice was settled since.

    Nothing else would: no date leads back to it. Locks: the subscription, those invoices, the
    collections. Emits: subscription.updated.
    """
    subscriptions.hold(tx, customer_id)
    invoices = [
        billing.lock_invoice(tx, customer_id, one.invoice_id)
        for one in store.list_collections(tx, customer_id)
        if one.state is CollectionState.EXHAUSTED
    ]
    found = {one.invoice_id: one for one in store.lock_collections(tx, customer_id)}
    closed = [
        after
        for invoice in invoices
        if (before := found[invoice.invoice_id]).state is CollectionState.EXHAUSTED
        and (after := rules.settled_elsewhere(before, invoice)) != before
    ]
    for one in closed:
        store.save_collection(tx, one)
        found[one.invoice_id] = one
    if closed:
        follow(tx, found, closed[-1], now=now)
