"""Apply the tax file, read the book, and note that somebody checked a customer's tax number."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from convergio.crypto.actions import Keyring
from convergio.customers import actions as customers
from convergio.customers.model import Customer, TaxNumber
from convergio.infra import outbox, strict_yaml
from convergio.infra.db import Tx
from convergio.infra.ids import new_id
from convergio.rating.taxing import GroupKey, Place, TaxBook, TaxRow, Treatment
from convergio.taxes import errors, rules, store
from convergio.taxes.model import (
    MENDS,
    DocumentTax,
    Evidence,
    EvidenceKind,
    NumberCheck,
    Stored,
    TaxFile,
    TaxNumberChecker,
)

_READS_MAX: Final = 5


class _Undone(Exception):
    """Leaves the savepoint of a trial, so that nothing of it stays."""


def stored(tx: Tx) -> Stored | None:
    """Return the stored book; None where no file was ever applied, and nothing is taxed.

    It is of one version, also while a file is applied. Raises: Unavailable when one file after
    another is.
    """
    before = store.find_state(tx)
    for _ in range(_READS_MAX):
        if before is None:
            return None
        registrations = tuple(store.list_registrations(tx))
        rates = tuple(store.list_rates(tx))
        state = store.find_state(tx)
        if state == before:
            book = TaxBook(
                state.seller_country, state.one_stop_shop, registrations, rates, state.evidence_min
            )
            return Stored(state.version, book, state.currency, state.fatturapa)
        before = state
    raise errors.changing()


def apply(tx: Tx, source: bytes, *, now: datetime, home: str | None = None) -> tuple[Stored, bool]:
    """Make the stored book what the file says; return it, and whether anything changed.

    Invoices that are issued keep their rates. `home` is where the settings say that the
    seller is. Locks: the book. Emits: tax.applied on a change. Raises: Invalid naming the field of
    the file.
    """
    file = strict_yaml.typed(strict_yaml.read(source), TaxFile, mends=MENDS)
    book = rules.book_of(file)
    if home not in {None, book.seller_country}:
        raise errors.other_home(book.seller_country, home or "")
    store.begin_state(tx, seller_country=book.seller_country, now=now)
    version = store.lock_state(tx)
    before = stored(tx)
    after = Stored(version + 1, book, file.currency, file.fatturapa)
    if before is not None and _sorted(before) == _sorted(after):
        return before, False
    store.clear_registrations(tx)
    store.clear_rates(tx)
    store.copy_registrations(tx, book.registrations)
    store.copy_rates(tx, book.rates)
    store.save_state(tx, after, now=now)
    outbox.emit(tx, "tax.applied", data={"version": version + 1}, now=now)
    return after, True


def try_apply(
    tx: Tx, source: bytes, *, now: datetime, home: str | None = None
) -> tuple[Stored, bool]:
    """Return what `apply` would, and keep nothing of it. Locks and raises as it."""
    found: list[tuple[Stored, bool]] = []
    with suppress(_Undone), tx.savepoint():
        found.append(apply(tx, source, now=now, home=home))
        raise _Undone
    return found[0]


def _sorted(stored: Stored) -> tuple[object, ...]:
    book = stored.book
    registrations = sorted(book.registrations, key=lambda r: (r.country, r.region, r.valid_from))
    rates = sorted(book.rates, key=lambda r: (r.country, r.region, r.category, r.valid_from))
    return (
        book.seller_country, book.one_stop_shop, book.evidence_min, stored.currency,
        stored.fatturapa, registrations, rates,
    )  # fmt: skip


def place_of(account: Customer, region: str | None, evidence: Sequence[Evidence] = ()) -> Place:
    """Return where a customer is taxed, as far as its account and the evidence say."""
    exempt = account.tax_exempt
    return Place(
        country=account.country,
        region=region,
        is_verified=account.tax_id_verified_at is not None,
        exemption=None if exempt is None else Treatment(exempt),
        reason=account.tax_exempt_reason,
        evidence=tuple((one.kind.value, one.country) for one in evidence),
    )


def verify_number(
    tx: Tx,
    keyring: Keyring,
    checker: TaxNumberChecker,
    *,
    customer_id: UUID,
    evidence: str,
    now: datetime,
) -> NumberCheck:
    """Note that somebody saw that a customer's tax number is real, unless its form is wrong.

    The check is kept either way; a number that cannot be one is not verified, whatever the
    evidence, and its customer is charged tax (RULES 13). The check holds for what was looked at:
    it is refused when the number or the country is another one by its end. Locks: the customer.
    Emits: customer.updated. Raises: Invalid, NotFound; Conflict without a number or a country, or
    when either changed meanwhile.
    """
    evidence = rules.check_evidence(evidence)
    account = customers.get(tx, customer_id)
    number = customers.personal(tx, keyring, customer_id).tax_id
    if number is None:
        raise errors.nothing_to_check("tax_id")
    if account.country is None:
        raise errors.nothing_to_check("country")
    found = checker.check(account.country, number)
    check = NumberCheck(
        customer_id, new_id(now), account.country, f"{checker.name}: {found.finding}",
        found.is_valid, evidence, now,
    )  # fmt: skip
    store.insert_check(tx, check)
    checked = TaxNumber(account.country, number)
    customers.set_tax_id_verified(
        tx, keyring, customer_id, verified=found.is_valid, now=now, checked=checked
    )
    return check


def checks(tx: Tx, customer_id: UUID, *, limit: int = 100) -> list[NumberCheck]:
    """Return the checks of a customer's tax number, the newest first."""
    return store.list_checks(tx, customer_id, limit=limit)


def locate(
    tx: Tx,
    *,
    customer_id: UUID,
    kind: EvidenceKind,
    country: str,
    note: str | None = None,
    now: datetime,
) -> Evidence:
    """Keep what the seller saw of where a customer is; the last of a kind counts.

    Invoices that are issued keep what was known then. Emits: customer.located. Raises: Invalid,
    NotFound.
    """
    rules.check_place(country, note)
    customers.get(tx, customer_id)
    evidence = Evidence(customer_id, kind, country, note, now)
    store.save_evidence(tx, evidence)
    data = {"kind": kind.value, "country": country}
    outbox.emit(
        tx, "customer.located", customer_id=customer_id, subject=customer_id, data=data, now=now
    )
    return evidence


def evidence_of(tx: Tx, customer_ids: Sequence[UUID]) -> dict[UUID, list[Evidence]]:
    """Return what was seen of where these customers are, of those of whom anything was."""
    found: dict[UUID, list[Evidence]] = {}
    for one in store.list_evidence(tx, customer_ids):
        found.setdefault(one.customer_id, []).append(one)
    return found


def credited(tx: Tx, customer_ids: Sequence[UUID]) -> dict[tuple[UUID, GroupKey], tuple[int, int]]:
    """Return what credit notes took back of each invoice's tax groups: as priced, and the tax."""
    return store.list_credited(tx, customer_ids)


def record(
    tx: Tx, invoices: Sequence[DocumentTax] = (), credit_notes: Sequence[DocumentTax] = ()
) -> None:
    """Keep the taxes of documents that are written in the same transaction."""
    if invoices:
        store.copy_invoice_taxes(tx, invoices)
    if credit_notes:
        store.copy_credit_note_taxes(tx, credit_notes)


def of_invoice(tx: Tx, customer_id: UUID, invoice_id: UUID) -> tuple[TaxRow, ...]:
    """Return the taxes of an invoice, the highest rate first."""
    return tuple(one.row for one in store.list_invoice_taxes(tx, [customer_id], invoice_id))


def of_credit_note(tx: Tx, customer_id: UUID, credit_note_id: UUID) -> tuple[TaxRow, ...]:
    """Return the taxes of a credit note, the highest rate first."""
    found = store.list_credit_note_taxes(tx, [customer_id], credit_note_id)
    return tuple(one.row for one in found)


def of_customers(
    tx: Tx, customer_ids: Sequence[UUID]
) -> tuple[list[DocumentTax], list[DocumentTax]]:
    """Return the taxes of all invoices and of all credit notes of these customers."""
    invoices = store.list_invoice_taxes(tx, customer_ids, None)
    return invoices, store.list_credit_note_taxes(tx, customer_ids, None)


def by_document(found: Iterable[DocumentTax]) -> dict[UUID, list[TaxRow]]:
    """Return taxes by the id of their document."""
    sums: dict[UUID, list[TaxRow]] = {}
    for one in found:
        sums.setdefault(one.document_id, []).append(one.row)
    return sums
