"""Take back what was billed: credit notes by hand, void, and giving an invoice up.

A correction lowers what is billed, so that the next run sees the difference; a concession, a
waived invoice and one that nobody will pay never do: what was given away is not billed again
(RULES 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.billing import buying, crediting, declaring, errors, issuing, store
from convergio.billing.bearing import Credited
from convergio.billing.model import (
    Buyer,
    Creditable,
    CreditDraft,
    CreditKind,
    CreditNote,
    CreditNoteLine,
    CreditNoteView,
    Invoice,
    Status,
    Voiding,
)
from convergio.crypto.actions import Keyring
from convergio.discounts import actions as discounts
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind
from convergio.subscriptions import actions as subscriptions
from convergio.taxes import actions as taxes
from convergio.taxes import stating

_FIRST: Final = (UUID(int=0), UUID(int=0))


def credit(
    tx: Tx,
    by: issuing.Issuer,
    *,
    invoice: Invoice,
    reason: str,
    kind: CreditKind = CreditKind.CONCESSION,
    amount: Money | None = None,
    lines: Mapping[int, Money] | None = None,
) -> CreditNote:
    """Give back all that is left of an invoice, an amount of it, or amounts of its lines.

    Amounts are before discount and tax, as the lines show them; the note says what that comes to.
    What is due of the invoice shrinks first; the rest is the customer's credit balance. Locks: the
    subscriptions, so that no run takes back from the same lines meanwhile, the invoice, then the
    series. Emits: credit_note.finalized. Raises: Invalid, Conflict beyond what is left.
    """
    subscriptions.hold(tx, invoice.customer_id)
    locked = _locked(tx, invoice)
    rows, credited = _left(tx, invoice)
    draft = crediting.asked(
        locked, rows, credited, reason=reason, kind=kind, amount=amount, lines=lines
    )
    return _issued(tx, by, _returning(tx, draft))


def void(tx: Tx, by: issuing.Issuer, *, invoice: Invoice, how: Voiding) -> Invoice:
    """Void an open invoice by a full credit note: its lines are billed again, or never.

    What coupons and promotional credit took off it is given back where it is billed again, but for
    the part that was given away before.

    Locks: the subscriptions, the invoice, then the series. Emits: credit_note.finalized,
    invoice.voided. Raises: Conflict for one that is not open, or partly paid.
    """
    subscriptions.hold(tx, invoice.customer_id)
    locked = _locked(tx, invoice)
    rows, credited = _left(tx, invoice)
    draft = crediting.void(locked, rows, credited, how)
    if draft is not None:
        _issued(tx, by, _returning(tx, draft), is_void=True)
    voided = replace(_locked(tx, invoice), status=Status.VOID)
    store.save_settled(tx, voided)
    _tell(tx, by, "invoice.voided", voided)
    return voided


def give_up(tx: Tx, by: issuing.Issuer, *, invoice: Invoice) -> Invoice:
    """Mark an open invoice as one that nobody will pay; what is due is written off.

    It stays billed, and a payment that comes after all is taken. Locks: the invoice. Emits:
    invoice.uncollectible. Raises: Conflict for one that is not open.
    """
    locked = _locked(tx, invoice)
    given_up = crediting.write_off(locked)
    store.save_settled(tx, given_up)
    move = (Account.WRITE_OFF, Account.RECEIVABLE, locked.due)
    ledger.post_many(
        tx,
        [issuing.transfer(by, invoice.customer_id, Kind.WRITE_OFF, invoice.invoice_id, move)],
    )
    _tell(tx, by, "invoice.uncollectible", given_up)
    return given_up


def _locked(tx: Tx, invoice: Invoice) -> Invoice:
    locked = store.lock_invoice(tx, invoice.customer_id, invoice.invoice_id)
    if locked is None:
        raise errors.unknown_invoice()
    return locked


def _left(tx: Tx, invoice: Invoice) -> tuple[list[Creditable], Credited]:
    """Return what is left of an invoice's lines, and the tax that was credited so far."""
    ids = [invoice.customer_id]
    rows = store.list_creditable(tx, ids, invoice_id=invoice.invoice_id)
    return rows, Credited(taxes.credited(tx, ids))


def _returning(tx: Tx, draft: CreditDraft) -> CreditDraft:
    """Return a correction with what it gives back to coupons and credit; a concession as it is."""
    if draft.kind != CreditKind.CORRECTION or not any(one.bearing.discount for one in draft.lines):
        return draft
    return crediting.returning(draft, discounts.taken(tx, [draft.customer_id]))


def _issued(tx: Tx, by: issuing.Issuer, draft: CreditDraft, *, is_void: bool = False) -> CreditNote:
    by.keyring.prepare(tx)
    buyers, unreadable = buying.buyers_of(tx, by.keyring, {draft.customer_id})
    if unreadable:
        raise errors.unreadable_buyer(unreadable[0].reason)
    drafts = declaring.declared_notes(tx, [draft])
    (note_id,) = issuing.issue(tx, by, [], drafts, buyers, is_void=is_void)
    if draft.kind == CreditKind.CORRECTION:
        subscriptions.reopen(tx, draft.customer_id)
    before = draft.customer_id, UUID(int=note_id.int - 1)
    (note,) = notes(tx, customer_id=draft.customer_id, after=before, limit=1)
    return note


def _tell(tx: Tx, by: issuing.Issuer, type_: str, invoice: Invoice) -> None:
    outbox.emit(
        tx, type_, customer_id=invoice.customer_id, subject=invoice.invoice_id, now=by.as_of
    )


def notes(
    tx: Tx,
    *,
    customer_id: UUID | None = None,
    invoice_id: UUID | None = None,
    after: tuple[UUID, UUID] = _FIRST,
    limit: int = 1_000,
) -> list[CreditNote]:
    """Return the next credit notes in the order of customer and time."""
    return store.page_credit_notes(
        tx, after=after, limit=limit, customer_id=customer_id, invoice_id=invoice_id
    )


def find_note(tx: Tx, number_text: str) -> CreditNote:
    """Return the credit note with a number, such as CVG-CN-2025-000004.

    Raises: Invalid, NotFound.
    """
    note = store.find_credit_note(tx, *crediting.parse_number(number_text))
    if note is None:
        raise errors.unknown_note()
    return note


def note_lines(tx: Tx, note: CreditNote) -> list[CreditNoteLine]:
    """Return the lines of a credit note."""
    return store.list_credit_note_lines(tx, note.customer_id, note.credit_note_id)


def read_note(tx: Tx, keyring: Keyring, note: CreditNote) -> CreditNoteView:
    """Return a credit note with its lines, its invoice, and the buyer as of its issue.

    Raises: Fault.
    """
    sealed = keyring.open_retained(
        tx, issuing.NOTE_TABLE, issuing.BUYER, note.credit_note_id, note.sealed_buyer
    )
    invoice = store.find_invoice(tx, note.customer_id, note.invoice_id)
    if invoice is None:
        raise errors.unknown_invoice()
    lines = store.list_lines(tx, note.customer_id, note.invoice_id)
    zones = {s.subscription_id: s.time_zone for s in subscriptions.history(tx, note.customer_id)}
    return CreditNoteView(
        note=note,
        lines=tuple(note_lines(tx, note)),
        invoice=invoice,
        invoice_lines=tuple(lines),
        buyer=msgspec.json.decode(sealed, type=Buyer),
        time_zone=zones[lines[0].subscription_id],
        taxes=taxes.of_credit_note(tx, note.customer_id, note.credit_note_id),
        kept=stating.kept(tx, note.customer_id, note.invoice_id),
    )


def note_value(note: CreditNote, lines: Sequence[CreditNoteLine] | None = None) -> dict[str, Any]:
    """Return a credit note as JSON takes it, without personal data."""
    value: dict[str, Any] = {
        "number": note.number_text,
        "customer": typeid("cus", note.customer_id),
        "invoice": typeid("inv", note.invoice_id),
        "kind": note.kind.value,
        "reason": note.reason,
        "currency": note.currency,
        "total": Money(note.total, note.currency).text(),
        "subtotal": Money(note.subtotal, note.currency).text(),
        "discount": Money(note.discount, note.currency).text(),
        "tax": Money(note.tax, note.currency).text(),
        "applied": Money(note.applied, note.currency).text(),
        "to_balance": Money(note.total - note.applied, note.currency).text(),
        "issued_on": note.issued_on.isoformat(),
    }
    if lines is not None:
        value["lines"] = [
            {
                "line": line.invoice_line,
                "description": line.description,
                "amount": Money(line.amount, note.currency).text(),
                "discount": Money(line.discount, note.currency).text(),
            }
            for line in lines
        ]
    return value
