"""What a business's books say: plans, invoices and money, read from where each is kept.

Money comes from the ledger alone, the only place from which a balance is summed; counts come from
the rooms that hold the things counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing.model import Invoice
from convergio.billing.model import Status as InvoiceStatus
from convergio.customers import actions as customers
from convergio.infra.db import Tx
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Status

_PAGE: Final = 500
_FIRST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Books:
    """A business at an instant; `plans` counts live subscriptions, `canceled` who has none left."""

    plans: Mapping[str, int]
    canceled: int
    invoices: Mapping[str, int]
    billed: Money
    collected: Money
    fees: Money
    receivable: Money


def read(tx: Tx, *, currency: str, now: datetime) -> Books:
    """Return the books in one currency."""
    plans = live_plans(tx, now=now)
    sums = ledger.totals(tx)

    def balance(*accounts: Account) -> Money:
        zero = Money.zero(currency)
        return sum((sums.get((one, currency), zero) for one in accounts), start=zero)

    return Books(
        plans=Counter(plan for plan in plans.values() if plan is not None),
        canceled=sum(plan is None for plan in plans.values()),
        invoices=Counter(invoice.status.value for invoice in invoices(tx)),
        billed=-balance(Account.DEFERRED_REVENUE, Account.USAGE_REVENUE),
        collected=balance(Account.GATEWAY_CLEARING, Account.GATEWAY_FEES),
        fees=balance(Account.GATEWAY_FEES),
        receivable=balance(Account.RECEIVABLE),
    )


def live_plans(tx: Tx, *, now: datetime) -> dict[UUID, str | None]:
    """Return by customer the plan of the live subscription; None where each one is canceled."""
    plans: dict[UUID, str | None] = {}
    after = None
    while views := subscriptions.as_stored(tx, after=after, limit=_PAGE, until=now):
        for view in views:
            every = (one.subscription for one in view.agreements)
            live = (one.plan_key for one in every if one.status != Status.CANCELED)
            plans[view.customer_id] = next(live, None)
        after = views[-1].customer_id
    return plans


def invoices(tx: Tx) -> Iterator[Invoice]:
    """Yield every invoice in the order of customer and time."""
    after = (_FIRST, _FIRST)
    while page := billing.page(tx, after=after, limit=_PAGE):
        yield from page
        after = (page[-1].customer_id, page[-1].invoice_id)


def telling_invoices(tx: Tx, *, plan: str, now: datetime) -> dict[str, Invoice]:
    """Return by the customer's locale the invoice that shows most: the largest paid one of a plan.

    Usage beyond the allowance makes it large; the fee of the next period is a line beside it.
    Where nobody on the plan has a paid invoice, any other one will do.
    """
    plans, found = live_plans(tx, now=now), list(invoices(tx))
    accounts = customers.get_many(tx, sorted({one.customer_id for one in found}))

    def rank(invoice: Invoice) -> tuple[bool, bool, int, str]:
        wanted, paid = plans[invoice.customer_id] == plan, invoice.status == InvoiceStatus.PAID
        return wanted, paid, invoice.total, invoice.number_text

    best: dict[str, Invoice] = {}
    for invoice in sorted(found, key=rank):
        best[accounts[invoice.customer_id].locale] = invoice
    return best
