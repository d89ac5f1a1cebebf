"""Write invoices and credit notes in bulk: everything that can wait for nobody first.

The numbers are taken last, under each series' own lock, so none is lost with a batch that fails.
Credit notes come before invoices: what they leave on a customer's balance pays at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.billing import crediting, rules, sellers, settling, store, terms
from convergio.billing.model import CreditDraft, Draft, Invoice, Numbers, Status
from convergio.crypto.actions import Keyring
from convergio.discounts import actions as discounts
from convergio.discounts.model import DrawRow
from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.ids import new_id, new_ids
from convergio.infra.settings import Seller
from convergio.kernel.money import Money
from convergio.ledger import actions as ledger
from convergio.ledger.model import Account, Kind, Transfer
from convergio.taxes import actions as taxes
from convergio.taxes import stating
from convergio.taxes.model import NOTHING_KEPT, DocumentTax

TABLE: Final = "invoice"
NOTE_TABLE: Final = "credit_note"
BUYER: Final = "sealed_buyer"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues, and when: `as_of` is what documents say, `now` what ids are made of."""

    seller: Seller
    keyring: Keyring
    as_of: datetime
    now: datetime


def issue(
    tx: Tx,
    by: Issuer,
    drafts: Sequence[Draft],
    notes: Sequence[CreditDraft],
    buyers: Mapping[UUID, str],
    *,
    is_void: bool = False,
) -> list[UUID]:
    """Write credit notes and invoices with their lines, transfers and facts; number them last.

    Returns the ids of the credit notes. A note that voids its invoice does not pay it.
    Locks: the credited invoices, then the series. Emits: credit_note.finalized,
    invoice.finalized, invoice.paid.
    """
    note_ids, applied = _credit(tx, by, notes, is_void=is_void) if notes else ([], [])
    ids = new_ids(by.now, len(drafts))
    drawn = _drawn(tx, by, drafts, ids)
    _write_lines(tx, drafts, ids)
    ledger.post_many(tx, _transfers(by, drafts, ids))
    _tell(tx, by, drafts, ids, drawn)
    sealed = _sealed(tx, by, TABLE, drafts, ids, buyers)
    sealed_notes = _sealed(tx, by, NOTE_TABLE, notes, note_ids, buyers)
    version = sellers.version_of(by.seller)
    store.keep_seller(tx, version, now=by.as_of)
    if drafts:
        agreed = terms.agreed(tx, buyers)
        numbers = _numbers(tx, by, len(drafts))
        made = rules.number_drafts(
            drafts,
            ids,
            numbers,
            sealed,
            net_days=lambda one: terms.net_days(agreed, one, usual=by.seller.net_days),
            finalized_at=by.as_of,
            from_balance=drawn,
        )
        store.copy_invoices(tx, made, seller=version.version_id)
    if notes:
        numbers = _numbers(tx, by, len(notes), is_note=True)
        finished = crediting.number_notes(
            notes, note_ids, applied, numbers, sealed_notes, finalized_at=by.as_of
        )
        store.copy_credit_notes(tx, finished, seller=version.version_id)
        store.copy_credit_note_lines(tx, notes, note_ids)
        taxes.record(tx, credit_notes=_taxes(zip(notes, note_ids, strict=True)))
        _give_back(tx, by, notes)
    return note_ids


def _sealed(  # noqa: PLR0917 - the parts of one column
    tx: Tx,
    by: Issuer,
    table: str,
    documents: Sequence[Draft | CreditDraft],
    ids: Sequence[UUID],
    buyers: Mapping[UUID, str],
) -> list[bytes]:
    """Return the snapshot of each document's buyer, sealed for its row."""
    texts = [buyers[one.customer_id] for one in documents]
    return by.keyring.seal_many_retained(tx, table, BUYER, dict(zip(ids, texts, strict=True)))


def _write_lines(tx: Tx, drafts: Sequence[Draft], ids: Sequence[UUID]) -> None:
    """Write lines, and where there are any, their taxes and what was taken off them."""
    pairs = list(zip(drafts, ids, strict=True))
    plain = [(draft, one) for draft, one in pairs if draft.is_plain]
    other = [(draft, one) for draft, one in pairs if not draft.is_plain]
    if plain:
        store.copy_lines(tx, [draft for draft, _ in plain], [one for _, one in plain])
    if other:
        store.copy_charged_lines(tx, [draft for draft, _ in other], [one for _, one in other])
        taxes.record(tx, invoices=_taxes(other))
        kept = [(one.customer_id, id_, one.kept) for one, id_ in other if one.kept != NOTHING_KEPT]
        stating.record(tx, kept)
        _record_draws(tx, other)


def _taxes(pairs: Iterable[tuple[Draft | CreditDraft, UUID]]) -> list[DocumentTax]:
    return [
        DocumentTax(draft.customer_id, document_id, row)
        for draft, document_id in pairs
        for row in draft.taxes
    ]


def _record_draws(tx: Tx, pairs: Sequence[tuple[Draft, UUID]]) -> None:
    """Write what was taken off lines, and what lines that take back return of it."""
    rows = [
        DrawRow(
            draft.customer_id, draw.source_id, invoice_id, number, draw.period_number,
            draw.amount, line.origin,
        )
        for draft, invoice_id in pairs
        for number, line in enumerate(draft.lines, 1)
        for draw in line.bearing.draws
    ]  # fmt: skip
    discounts.record(tx, rows)


def _give_back(tx: Tx, by: Issuer, notes: Sequence[CreditDraft]) -> None:
    """Count what corrections return of the discounts of the lines that they take from."""
    rows = [
        DrawRow(
            note.customer_id, draw.source_id, note.invoice_id, line.invoice_line,
            draw.period_number, draw.amount,
        )
        for note in notes
        for line in note.lines
        for draw in line.bearing.draws
    ]  # fmt: skip
    discounts.give_back(tx, rows, now=by.as_of)


def _numbers(tx: Tx, by: Issuer, count: int, *, is_note: bool = False) -> Numbers:
    series = by.seller.series + (crediting.SERIES_SUFFIX if is_note else "")
    store.lock_series(tx, series)
    last = store.find_last_issue(tx, series)
    day = rules.issue_day(by.as_of, by.seller.time_zone, last=last)
    return store.take_numbers(tx, series, count=count, issued_on=day, is_note=is_note)


def _credit(
    tx: Tx, by: Issuer, notes: Sequence[CreditDraft], *, is_void: bool
) -> tuple[list[UUID], list[Money]]:
    """Apply credit notes to what is due of their invoices; the rest is the customers' balance."""
    locked = store.lock_invoices(tx, *settling.creditable_ids(notes))
    invoices = {one.invoice_id: one for one in locked}
    ids = [new_id(by.now) for _ in notes]
    applied: list[Money] = []
    transfers: list[Transfer] = []
    facts: list[outbox.Fact] = []
    for note, note_id in zip(notes, ids, strict=True):
        before = invoices[note.invoice_id]
        after, part = crediting.apply(before, note.total)
        invoices[note.invoice_id] = after
        applied.append(part)
        transfers += _note_transfers(by, note, note_id, before, part)
        data = {"total": note.total.text(), "currency": note.total.currency}
        facts.append(outbox.Fact("credit_note.finalized", note.customer_id, note_id, data))
        if after.status != before.status and not is_void:
            facts.append(outbox.Fact("invoice.paid", after.customer_id, after.invoice_id, {}))
    for invoice in invoices.values():
        store.save_settled(tx, invoice)
    ledger.post_many(tx, transfers)
    outbox.emit_many(tx, facts, now=by.as_of)
    return ids, applied


def _note_transfers(
    by: Issuer, note: CreditDraft, note_id: UUID, invoice: Invoice, applied: Money
) -> list[Transfer]:
    """Return what a credit note moves: back from revenue, and what is left to the customer."""
    moves = [
        _directed(account, Account.RECEIVABLE, amount)
        for account, amount in crediting.reversal(note).items()
        if amount.minor
    ]
    rest = note.total - applied
    if rest.minor:
        moves.append((Account.RECEIVABLE, Account.CUSTOMER_CREDIT, rest))
    made = [transfer(by, note.customer_id, Kind.CREDIT_NOTE, note_id, move) for move in moves]
    if invoice.status == Status.UNCOLLECTIBLE and applied.minor:
        regained = (Account.RECEIVABLE, Account.WRITE_OFF, applied)
        made.append(transfer(by, note.customer_id, Kind.WRITE_OFF, invoice.invoice_id, regained))
    return made


def _directed(debit: Account, credit: Account, amount: Money) -> tuple[Account, Account, Money]:
    return (debit, credit, amount) if amount.minor > 0 else (credit, debit, -amount)


def transfer(
    by: Issuer,
    customer_id: UUID,
    kind: Kind,
    source_id: UUID,
    move: tuple[Account, Account, Money],
) -> Transfer:
    """Return one movement of money, (debit, credit, amount), at the issuer's instant."""
    return Transfer(customer_id, new_id(by.now), kind, source_id, *move, by.as_of)


def _drawn(tx: Tx, by: Issuer, drafts: Sequence[Draft], ids: Sequence[UUID]) -> list[int]:
    """Take from the credit balances of customers what their invoices can use of them."""
    balances = ledger.customer_credit(tx, sorted({draft.customer_id for draft in drafts}))
    drawn = rules.drawn(drafts, balances)
    moves = [
        transfer(
            by,
            draft.customer_id,
            Kind.BALANCE,
            invoice_id,
            (Account.CUSTOMER_CREDIT, Account.RECEIVABLE, Money(part, draft.total.currency)),
        )
        for draft, invoice_id, part in zip(drafts, ids, drawn, strict=True)
        if part
    ]
    ledger.post_many(tx, moves)
    return drawn


def _transfers(by: Issuer, drafts: Sequence[Draft], ids: Sequence[UUID]) -> list[Transfer]:
    moves = [
        (draft.customer_id, invoice_id, _directed(Account.RECEIVABLE, account, amount))
        for draft, invoice_id in zip(drafts, ids, strict=True)
        for account, amount in rules.revenue(draft).items()
        if amount.minor
    ]
    return [
        Transfer(customer_id, transfer_id, Kind.INVOICE, invoice_id, *move, by.as_of)
        for (customer_id, invoice_id, move), transfer_id in zip(
            moves, new_ids(by.now, len(moves)), strict=True
        )
    ]


def _tell(
    tx: Tx, by: Issuer, drafts: Sequence[Draft], ids: Sequence[UUID], drawn: Sequence[int]
) -> None:
    facts = []
    for draft, invoice_id, part in zip(drafts, ids, drawn, strict=True):
        data = {"total": draft.total.text(), "currency": draft.total.currency}
        facts.append(outbox.Fact("invoice.finalized", draft.customer_id, invoice_id, data))
        if part == draft.total.minor:
            facts.append(outbox.Fact("invoice.paid", draft.customer_id, invoice_id, {}))
    outbox.emit_many(tx, facts, now=by.as_of)
