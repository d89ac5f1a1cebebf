"""Who buys: the snapshot of each customer that a document is issued to, as text to seal."""

from uuid import UUID

from convergio.billing import rules, terms
from convergio.billing.model import CollectionMethod, Problem
from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.customers.model import Personal
from convergio.infra.db import Tx
from convergio.kernel.errors import ConvergioError


def buyers_of(
    tx: Tx, keyring: Keyring, customer_ids: set[UUID]
) -> tuple[dict[UUID, str], list[Problem]]:
    """Return each customer's snapshot as text to seal, and who cannot be named."""
    ids = sorted(customer_ids)
    accounts = customers.get_many(tx, ids) if ids else {}
    known: dict[UUID, Personal] = {}
    problems: list[Problem] = []
    try:
        known = dict(customers.personal_many(tx, keyring, ids))
    except ConvergioError:
        for customer_id in ids:  # the bulk read names nobody: find out who it is
            try:
                known |= customers.personal_many(tx, keyring, [customer_id])
            except ConvergioError as error:
                problems.append(Problem(customer_id, error.code, error.detail))
    unreadable = {problem.customer_id for problem in problems}
    nobody = Personal()
    agreed = terms.agreed(tx, ids) if ids else {}
    transfers = {
        who for who, one in agreed.items() if one.collection is CollectionMethod.SEND_INVOICE
    }
    return {
        customer_id: rules.buyer_text(
            account, known.get(customer_id, nobody), by_transfer=customer_id in transfers
        )
        for customer_id, account in accounts.items()
        if customer_id not in unreadable
    }, problems
