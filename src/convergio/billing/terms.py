"""How a customer pays: by the card on file, or by a transfer within agreed days.

A customer without a row has the usual terms. Invoices take their due day from the terms when they
are issued and keep it; whether a card is charged is asked each time.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from convergio.billing import errors, store
from convergio.billing.model import CollectionMethod, Terms
from convergio.infra import outbox
from convergio.infra.db import Tx

NET_DAYS_MAX = 365
USUAL = Terms(CollectionMethod.CHARGE_AUTOMATICALLY, None)


def set_terms(
    tx: Tx, customer_id: UUID, collection: CollectionMethod, net_days: int | None, *, now: datetime
) -> Terms:
    """Agree on terms; invoices that are out already keep theirs. `net_days` None: the seller's.

    Emits: billing_terms.changed. Raises: Invalid.
    """
    if net_days is not None and not 0 <= net_days <= NET_DAYS_MAX:
        raise errors.bad_net_days(NET_DAYS_MAX)
    terms = Terms(collection, net_days)
    store.save_terms(tx, customer_id, terms, now=now)
    data = {"collection": collection.value, "net_days": net_days}
    outbox.emit(
        tx, "billing_terms.changed", customer_id=customer_id, subject=customer_id, data=data,
        now=now,
    )  # fmt: skip
    return terms


def terms_of(tx: Tx, customer_id: UUID) -> Terms:
    """Return how one customer pays."""
    return store.list_terms(tx, [customer_id]).get(customer_id, USUAL)


def agreed(tx: Tx, customer_ids: Iterable[UUID]) -> Mapping[UUID, Terms]:
    """Return the terms of those of these customers who have other than the usual ones."""
    return store.list_terms(tx, sorted(set(customer_ids)))


def net_days(agreed: Mapping[UUID, Terms], customer_id: UUID, *, usual: int) -> int:
    """Return within how many days a customer pays."""
    found = agreed.get(customer_id)
    return usual if found is None or found.net_days is None else found.net_days
