"""What a customer or the seller does in a script, as calls of the product's own actions.

Each returns the fact that the oracle is told: the step itself, with what only the product decides
(which of the invoices that there are) filled in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing import correcting
from convergio.billing.actions import Issuer
from convergio.billing.model import CreditKind, Invoice, Voiding
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid, NotFound
from convergio.kernel.money import Money
from convergio.payments import actions as payments
from convergio.payments import receiving
from convergio.payments.model import ReceiptMethod
from convergio.simulation import deeds_money, deeds_parts
from convergio.simulation.script import Step
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Trial, TrialPolicy, When

_INVOICES_MAX: Final = 1_000
_EXTRA: Final = 77


def do(tx: Tx, step: Step, *, customer_id: UUID, by: Issuer) -> Step:
    """Do one step; return it as the oracle is told. Raises: Rejected where the product refuses."""
    deed = _DEEDS.get(step.verb)
    if deed is None:
        raise Invalid(f"nobody can {step.verb}", code="bad_script", field="script")
    return deed(tx, step, customer_id, by)


def numbered(invoices: Sequence[Invoice]) -> list[Invoice]:
    """Return invoices in the order in which they were issued."""
    return sorted(invoices, key=lambda one: (one.year, one.number))


def _subscribe(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    words = step.words
    trial = None
    if "trial" in words:
        policy = TrialPolicy(words.get("without", "activate"))
        trial = Trial(int(words["trial"]), policy, words.get("fallback"))
    subscriptions.create(
        tx,
        customer_id=customer_id,
        plan_key=words["plan"],
        start=datetime.fromisoformat(words["start"]) if "start" in words else by.as_of,
        now=by.as_of,
        time_zone=words.get("zone", "UTC"),
        seats=int(words.get("seats", "1")),
        trial=trial,
        by_calendar=words.get("anchor") == "calendar",
    )
    return step


def _change(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    words = step.words
    changes.change(
        tx,
        customer_id=customer_id,
        plan_key=words.get("plan"),
        seats=int(words["seats"]) if "seats" in words else None,
        when=When(words["when"]) if "when" in words else None,
        now=by.as_of,
        can_pay=payments.payable,
    )
    return step


def _drop(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    changes.drop_change(tx, customer_id=customer_id, now=by.as_of, can_pay=payments.payable)
    return step


def _pause(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    changes.pause(tx, customer_id=customer_id, now=by.as_of, can_pay=payments.payable)
    return step


def _resume(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    changes.resume(tx, customer_id=customer_id, now=by.as_of, can_pay=payments.payable)
    return step


def _reactivate(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    changes.reactivate(tx, customer_id=customer_id, now=by.as_of, can_pay=payments.payable)
    return step


def _cancel(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    subscriptions.cancel(
        tx,
        customer_id=customer_id,
        at_period_end=step.words.get("at") == "period_end",
        credit=step.words.get("credit") == "yes",
        now=by.as_of,
        can_pay=payments.payable,
    )
    return step


def _card(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    payments.add_method(
        tx,
        customer_id,
        gateway="sandbox",
        token=step.words["token"],
        brand="visa",
        last_four="4242",
        now=by.as_of,
    )
    return step


def _pay(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    """Pay an open invoice by bank transfer: what is due, a part of it, or more than that."""
    number, invoice = _chosen(tx, step, customer_id)
    due = max(0, invoice.due.minor)
    amount = {"all": due, "half": due // 2, "more": due + _EXTRA}[step.words["part"]]
    if not amount:
        raise Invalid("nothing is due", code="nothing_due")
    receiving.record(
        tx,
        customer_id=customer_id,
        amount=Money(amount, invoice.currency),
        method=ReceiptMethod("bank_transfer"),
        reference=f"{step.who}-{step.at.isoformat()}-{step.words['part']}",
        received_on=by.as_of.date(),
        now=by.as_of,
        invoice=invoice,
    )
    words = {"invoice": str(number), "amount": str(amount), "reached": str(min(amount, due))}
    return replace(step, verb="paid", words=words)


def _credit(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    number, invoice = _chosen(tx, step, customer_id)
    words = {"invoice": str(number), "kind": step.words["kind"], "reason": "goodwill"}
    amount, lines = None, None
    if "line" in step.words:
        every = billing.read(tx, by.keyring, invoice).lines
        place = int(step.words["line"]) % len(every)
        half = Money(every[place].amount // 2, invoice.currency)
        words |= {"line": str(place), "amount": str(half.minor)}
        lines = {every[place].line_number: half}
    elif "part" in step.words:
        amount = Money(max(1, invoice.subtotal // 3), invoice.currency)
        words["amount"] = str(amount.minor)
    correcting.credit(
        tx,
        by,
        invoice=invoice,
        reason=words["reason"],
        kind=CreditKind(words["kind"]),
        amount=amount,
        lines=lines,
    )
    return replace(step, words=words)


def _void_invoice(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    number, invoice = _chosen(tx, step, customer_id)
    correcting.void(tx, by, invoice=invoice, how=Voiding(step.words["how"]))
    return replace(step, words={"invoice": str(number), "how": step.words["how"]})


def _give_up(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    number, invoice = _chosen(tx, step, customer_id)
    correcting.give_up(tx, by, invoice=invoice)
    return replace(step, words={"invoice": str(number)})


def _chosen(tx: Tx, step: Step, customer_id: UUID) -> tuple[int, Invoice]:
    """Return one of the customer's invoices: the step's number, counted round. Raises: NotFound."""
    found = numbered(billing.page(tx, customer_id=customer_id, limit=_INVOICES_MAX))
    if not found:
        raise NotFound("this customer has no invoice yet", code="no_invoice")
    number = int(step.words["invoice"]) % len(found)
    return number, found[number]


OF_THE_SELLER: Final = frozenset(deeds_money.OF_THE_SELLER)
_Deed = Callable[[Tx, Step, UUID, Issuer], Step]
_DEEDS: Final[Mapping[str, _Deed]] = {
    "subscribe": _subscribe,
    "change": _change,
    "drop": _drop,
    "pause": _pause,
    "resume": _resume,
    "reactivate": _reactivate,
    "cancel": _cancel,
    "card": _card,
    "pay": _pay,
    "credit": _credit,
    "void_invoice": _void_invoice,
    "give_up": _give_up,
    **deeds_money.OF_A_CUSTOMER,
    **deeds_money.OF_THE_SELLER,
    **deeds_parts.DEEDS,
}
