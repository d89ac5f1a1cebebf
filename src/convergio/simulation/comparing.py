"""Compare what the product wrote with what the oracle expects, document by document.

Invoices are compared in the order of issue: boundary, each line (what, period, amount, reason,
discount, tax), the tax of each group, total, what settled it and its status; then credit notes, the
customer's balance, what is left of credit, who waits for a tax that cannot be told, and the usage
of every period that the oracle knows. The first difference of a customer is the one that counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeVar
from uuid import UUID

from convergio.billing import actions as billing
from convergio.billing import correcting
from convergio.billing.charging import TAX_UNKNOWN
from convergio.billing.model import CreditNote, InvoiceLine, Status
from convergio.billing.model import Invoice as Issued
from convergio.catalog import actions as catalog
from convergio.discounts import actions as discounts
from convergio.infra.db import Tx
from convergio.kernel.errors import Difference
from convergio.kernel.periods import instant_text
from convergio.ledger import actions as ledger
from convergio.metering import actions as metering
from convergio.simulation import comparing_money
from convergio.simulation.deeds import numbered
from convergio.simulation.oracle import Account
from convergio.simulation.oracle_papers import Invoice, Note
from convergio.simulation.playing import Played
from convergio.taxes import actions as taxes
from convergio.wiring import App

_PAGE: Final = 10_000
_FRESH: Final = frozenset({"fee", "usage"})
Document = TypeVar("Document", Issued, CreditNote)


@dataclass(frozen=True, slots=True)
class Found:
    """A difference and whose it is."""

    who: str
    difference: Difference

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.who} {self.difference}"


class Comparison:
    """Reads each document once: they are immutable, and only what settles them changes."""

    def __init__(self, product: App) -> None:
        """Begin with nothing read."""
        self._product = product
        self._lines: dict[UUID, tuple[InvoiceLine, ...]] = {}
        self._credits: dict[UUID, list[str]] = {}
        self._taxes: dict[UUID, list[str]] = {}
        self._draws: dict[UUID, comparing_money.Draws] = {}

    def differences(self, played: Played, *, now: datetime) -> list[Found]:
        """Return the first difference of each customer who has one, and the run's problems."""
        found = [Found("-", Difference("run", "no problem", text)) for text in played.problems]
        with self._product.database.snapshot() as tx:
            invoices = _by_customer(billing.page(tx, limit=_PAGE))
            notes = _by_customer(correcting.notes(tx, limit=_PAGE))
            balances = ledger.customer_credit(tx, sorted(played.ids.values()))
            waiting = {one.customer_id for one in billing.parked(tx) if one.code == TAX_UNKNOWN}
            for who, customer_id in played.ids.items():
                every = self._of(
                    tx,
                    played.accounts[who],
                    numbered(invoices.get(customer_id, [])),
                    sorted(notes.get(customer_id, []), key=lambda n: (n.year, n.number)),
                    balances.get(customer_id, 0),
                )
                account = played.accounts[who]
                more = comparing_money.differences(
                    tx, account, customer_id, now=now, waits=customer_id in waiting
                )
                found += [Found(who, one) for one in [*every, *more][:1]]
        return found

    def totals(self, played: Played, *, now: datetime) -> list[Found]:
        """Return windows whose total, or whose hard limit, is not the oracle's.

        Only right after a run: a change that nobody has carried out yet has cut no window.
        """
        names = {customer_id: who for who, customer_id in played.ids.items()}
        with self._product.database.snapshot() as tx:
            keys = {one.meter_id: key for key, one in catalog.current(tx).meters.items()}
            rows = [row for row in metering.windows_at(tx, list(names), now) if not row.dimensions]
            found = [
                Found(names[one], difference)
                for one in names
                for difference in comparing_money.units(
                    tx, played.accounts[names[one]], one, now=now
                )
            ]
        for row in rows:
            account, meter = played.accounts[names[row.customer_id]], keys[row.meter_id]
            due = account.used(meter, row.start_at, row.end_at)
            limit = account.hard_limit(meter, now, row.start_at)
            there = None if row.quota_limit is None else Fraction(row.quota_limit)
            if (due, limit) != (Fraction(row.used), there if limit is not None else None):
                shown = f"{Fraction(row.used)} of {there}"
                where = f"{meter} from {instant_text(row.start_at)}"
                found.append(
                    Found(names[row.customer_id], Difference(where, f"{due} of {limit}", shown))
                )
        return found

    def _of(
        self,
        tx: Tx,
        account: Account,
        invoices: Sequence[Issued],
        notes: Sequence[CreditNote],
        balance: int,
    ) -> Iterator[Difference]:
        for number in range(max(len(account.invoices), len(invoices))):
            due = account.invoices[number] if number < len(account.invoices) else None
            there = invoices[number] if number < len(invoices) else None
            shown = _expected(due), self._found(tx, there)
            if shown[0] != shown[1]:
                yield Difference(f"invoice {number}", *shown)
        places = {one.invoice_id: number for number, one in enumerate(invoices)}
        expected = [_expected_note(note) for note in account.notes]
        stored = [self._found_note(tx, note, places) for note in notes]
        if sorted(expected) != sorted(stored):
            extra = [text for text in expected if text not in stored]
            other = [text for text in stored if text not in expected]
            yield Difference("credit notes", "; ".join(extra), "; ".join(other))
        if account.balance != balance:
            yield Difference("balance", str(account.balance), str(balance))

    def _found(self, tx: Tx, invoice: Issued | None) -> str:
        if invoice is None:
            return "none"
        if invoice.invoice_id not in self._lines:
            view = billing.read(tx, self._product.keyring, invoice)
            self._lines[invoice.invoice_id] = view.lines
            self._taxes[invoice.invoice_id] = comparing_money.tax_texts(view.taxes)
            self._draws[invoice.invoice_id] = discounts.draws(
                tx, invoice.customer_id, invoice.invoice_id
            )
        lines = [
            _line(
                line.description.removesuffix(f": {line.reason}"),
                (instant_text(line.period_start), instant_text(line.period_end)),
                line.reason,
                line.amount,
                line.quantity if line.reason in _FRESH else None,
            )
            + comparing_money.line_text(line, self._draws[invoice.invoice_id])
            for line in self._lines[invoice.invoice_id]
        ]
        lines += self._taxes[invoice.invoice_id]
        settled = (invoice.paid - invoice.excess, invoice.credited, invoice.from_balance)
        return _invoice(
            instant_text(invoice.boundary_at), lines, invoice.total, settled, invoice.status
        )

    def _found_note(self, tx: Tx, note: CreditNote, places: dict[UUID, int]) -> str:
        if note.credit_note_id not in self._credits:
            self._credits[note.credit_note_id] = [
                f"{line.description.partition(':')[0]} {line.amount} less {line.discount}"
                for line in correcting.note_lines(tx, note)
            ]
            rows = taxes.of_credit_note(tx, note.customer_id, note.credit_note_id)
            self._credits[note.credit_note_id] += comparing_money.tax_texts(rows)
        lines = self._credits[note.credit_note_id]
        return _note(places[note.invoice_id], note.reason, lines, note.total, note.applied)


def _expected(invoice: Invoice | None) -> str:
    if invoice is None:
        return "none"
    lines = [
        _line(
            one.name,
            (instant_text(one.span[0]), instant_text(one.span[1])),
            one.reason,
            one.amount,
            one.quantity,
        )
        + comparing_money.expected_line_text(one)
        for one in invoice.lines
    ]
    lines += comparing_money.expected_tax_texts(invoice.taxes)
    settled = (invoice.paid, invoice.credited, invoice.from_balance)
    boundary = instant_text(invoice.boundary)
    return _invoice(boundary, lines, invoice.total, settled, Status(invoice.state))


def _expected_note(note: Note) -> str:
    lines = [f"{name} {amount} less {discount}" for name, amount, discount in note.lines]
    lines += comparing_money.expected_tax_texts(note.taxes)
    return _note(note.invoice, note.reason, lines, note.total, note.applied)


def _line(
    name: str, span: tuple[str, str], reason: str, amount: int, quantity: Fraction | Decimal | None
) -> str:
    many = "" if quantity is None else f" of {Fraction(quantity)}"
    return f"{name} [{span[0]}, {span[1]}) '{reason}'{many} {amount}"


def _invoice(
    boundary: str, lines: Sequence[str], total: int, settled: tuple[int, ...], status: Status
) -> str:
    paid, credited, balance = settled
    end = f"total {total}, paid {paid}, credited {credited}, from balance {balance}, {status}"
    return f"at {boundary}: {'; '.join(sorted(lines))}; {end}"


def _note(invoice: int, reason: str, lines: Sequence[str], total: int, applied: int) -> str:
    said = ", ".join(sorted(lines))
    return f"of invoice {invoice} '{reason}': {said}; total {total}, applied {applied}"


def _by_customer(documents: Sequence[Document]) -> dict[UUID, list[Document]]:
    found: dict[UUID, list[Document]] = {}
    for one in documents:
        found.setdefault(one.customer_id, []).append(one)
    return found
