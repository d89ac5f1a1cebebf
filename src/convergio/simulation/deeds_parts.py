"""What is agreed beside a plan, and what is sold anew, as calls of the product's own actions.

Each deed returns the fact that the oracle is told, which is the step itself: nothing of these is
decided by the product but whether it agrees.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from convergio.billing.actions import Issuer
from convergio.customers import actions as customers
from convergio.infra import strict_yaml
from convergio.infra.db import Database, Tx
from convergio.kernel.money import Money
from convergio.payments import actions as payments
from convergio.simulation.script import Step
from convergio.subscriptions import adding, negotiating, repricing
from convergio.subscriptions.model import When


def _add_on(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    words = step.words
    adding.set_add_on(
        tx,
        customer_id=customer_id,
        key=words["key"],
        quantity=int(words["quantity"]),
        when=When(words.get("when", "now")),
        now=by.as_of,
    )
    return step


def _charge(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    currency = customers.get_many(tx, [customer_id])[customer_id].currency
    adding.charge_once(
        tx,
        customer_id=customer_id,
        description=step.words["name"],
        amount=Money.parse(step.words["amount"], currency),
        when=When(step.words["when"]),
        now=by.as_of,
    )
    return step


def _agree(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    plain = {"steps": json.loads(step.words["steps"])}
    file = strict_yaml.typed(plain, negotiating.AgreementFile, mends=negotiating.MENDS)
    wanted = negotiating.steps_of(file)
    negotiating.agree(tx, customer_id=customer_id, steps_=wanted, now=by.as_of)
    return step


DEEDS: Final[Mapping[str, Callable[[Tx, Step, UUID, Issuer], Step]]] = {
    "add_on": _add_on,
    "charge": _charge,
    "agree": _agree,
}


def repriced(catalog: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Return the catalog file with another version of one price."""
    newer = {"version": words["version"], "charge": json.loads(words["charge"])}
    plans = [
        plan
        | {"prices": [p | (newer if p["key"] == words["price"] else {}) for p in plan["prices"]]}
        for plan in catalog["plans"]
    ]
    return dict(catalog) | {"plans": plans}


def migrate(database: Database, step: Step, *, now: datetime) -> set[UUID]:
    """Move whoever has an older version; return who keeps what they have. Raises: Rejected."""
    moved = repricing.migrate(
        database,
        price_key=step.words["price"],
        version=int(step.words["version"]),
        since=datetime.fromisoformat(step.words["since"]),
        now=now,
        can_pay=payments.payable,
    )
    return set(moved.left)
