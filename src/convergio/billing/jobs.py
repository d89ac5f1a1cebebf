"""What a schedule asks of billing beside the run: compute everything again, every night."""

from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID

from convergio.billing import checking
from convergio.infra import outbox
from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Difference
from convergio.subscriptions import actions as subscriptions

CUSTOMERS_TOLD_MAX: Final = 1_000
_SHOWN_MAX: Final = 10
_CUSTOMER: Final = attrgetter("customer_id")


class Recomputed(NamedTuple):
    """Who is billed otherwise than they owe, and how: the first differences of each."""

    customers: tuple[UUID, ...]
    differences: tuple[Difference, ...]


def recompute(database: Database, *, now: datetime, reopen: bool = False) -> Recomputed:
    """Compare owed and billed of everything, closed periods too, and tell of each customer.

    Reads in one snapshot, page by page, and changes no invoice. With `reopen` the marks of who
    differs are taken away, so that the next run bills the difference, of either sign. At most a
    thousand customers are told of at once. Emits: billing.differs. Locks: with `reopen`, the
    subscriptions of each customer.
    """
    with database.snapshot() as tx:
        by_customer: dict[UUID, list[Difference]] = {}
        for customer_id, findings in groupby(checking.recomputed(tx), _CUSTOMER):
            if len(by_customer) == CUSTOMERS_TOLD_MAX:
                break
            by_customer[customer_id] = [one.difference for one in findings]
    if by_customer:
        facts = [_fact(who, some) for who, some in by_customer.items()]
        marked = list(by_customer) if reopen else []

        def tell(tx: Tx) -> None:
            for customer_id in marked:
                subscriptions.hold(tx, customer_id)
                subscriptions.reopen(tx, customer_id)
            outbox.emit_many(tx, facts, now=now)

        database.insist(tell)
    return Recomputed(
        tuple(by_customer), tuple(one for some in by_customer.values() for one in some)
    )


def _fact(customer_id: UUID, found: list[Difference]) -> outbox.Fact:
    shown = [str(one) for one in found[:_SHOWN_MAX]]
    data = {"differences": len(found), "shown": shown}
    return outbox.Fact("billing.differs", customer_id, customer_id, data)
