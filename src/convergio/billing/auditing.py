"""Compute documents a second time from their stored lines: revenue, tax and discounts. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.billing.bearing import earned
from convergio.billing.model import Kind
from convergio.billing.rules import ACCOUNTS
from convergio.kernel.errors import Difference
from convergio.kernel.money import Money
from convergio.ledger.model import Account, Posted
from convergio.rating.taxing import STANDARD, ZERO, GroupKey, TaxRow, Treatment, tax_of

Taxes = Mapping[UUID, Sequence[TaxRow]]
_ACCOUNTS: Final = frozenset(ACCOUNTS.values()) | {Account.TAX_PAYABLE}


@dataclass(frozen=True, slots=True)
class UnequalRow:
    """An invoice that differs from its lines."""

    customer_id: UUID
    series: str
    year: int
    number: int
    total: int
    lines: int
    what: str = "total"


@dataclass(frozen=True, slots=True)
class NumberingRow:
    """What a series and year says, and what it holds."""

    series: str
    year: int
    last_number: int
    lowest: int
    highest: int
    invoices: int
    numbers: int


@dataclass(frozen=True, slots=True)
class RevenueRow:
    """What the lines of one kind and tax of an invoice or credit note come to after discount."""

    customer_id: UUID
    source_id: UUID
    kind: Kind
    currency: str
    amount: int
    tax_category: str = STANDARD
    tax_rate: Decimal = ZERO
    tax_treatment: str = Treatment.NONE
    tax_inclusive: bool = False


@dataclass(frozen=True, slots=True)
class StrangeRow:
    """A sum that two places disagree about."""

    customer_id: UUID
    document_id: UUID
    what: str
    expected: int
    found: int


def unequal(row: UnequalRow) -> Difference:
    """Tell of an invoice that differs from its lines."""
    where = f"{row.what} of invoice {row.series}-{row.year}-{row.number:06d}"
    return Difference(where, f"the sum of its lines, {row.lines}", str(row.total))


def gaps(row: NumberingRow) -> list[Difference]:
    """Tell of a series and year whose numbers are not 1 to n, each once."""
    last = row.last_number
    expected = (min(last, 1), last, last, last)
    if (row.lowest, row.highest, row.invoices, row.numbers) == expected:
        return []
    return [
        Difference(
            where=f"numbers of series {row.series} in {row.year}",
            expected=f"{last} invoices numbered 1 to {last}",
            found=(
                f"{row.invoices} invoices with {row.numbers} different numbers"
                f" from {row.lowest} to {row.highest}"
            ),
        )
    ]


def strange(row: StrangeRow) -> Difference:
    """Tell of a sum that two places disagree about."""
    where = f"{row.what} of {row.document_id} of customer {row.customer_id}"
    return Difference(where, str(row.expected), str(row.found))


def unposted(
    what: str,
    rows: Iterable[RevenueRow],
    taxes: Taxes,
    posted: Iterable[Posted],
    *,
    sign: int = 1,
) -> list[Difference]:
    """Tell of documents whose lines and transfers differ, account by account.

    An invoice credits its accounts; a credit note, with the sign -1, debits them.
    """
    expected: dict[tuple[UUID, str, str], int] = {}
    for (source_id, currency), priced in _priced(rows).items():
        of_source = taxes.get(source_id, ())
        for kind, minor in earned(priced, of_source, currency).items():
            expected[source_id, ACCOUNTS[kind], currency] = minor * sign
        tax = sum(row.tax for row in of_source)
        expected[source_id, Account.TAX_PAYABLE, currency] = tax * sign
    found: dict[tuple[UUID, str, str], int] = {}
    for row in posted:
        for account, amount in ((row.credit_account, row.amount), (row.debit_account, -row.amount)):
            if account in _ACCOUNTS:
                key = (row.source_id, account, row.currency)
                found[key] = found.get(key, 0) + amount
    return [
        Difference(
            where=f"transfers of {what} {key[0]} to {key[1]} in {key[2]}",
            expected=str(expected.get(key, 0)),
            found=str(found.get(key, 0)),
        )
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key, 0) != found.get(key, 0)
    ]


def _priced(
    rows: Iterable[RevenueRow],
) -> dict[tuple[UUID, str], dict[tuple[Kind, GroupKey], int]]:
    """Return by document what its lines come to after discount, by kind and tax group."""
    sums: dict[tuple[UUID, str], dict[tuple[Kind, GroupKey], int]] = {}
    for row in rows:
        key = GroupKey(
            row.tax_category, row.tax_rate, Treatment(row.tax_treatment), row.tax_inclusive
        )
        of_source = sums.setdefault((row.source_id, row.currency), {})
        of_source[row.kind, key] = of_source.get((row.kind, key), 0) + row.amount
    return sums


def mistaxed(rows: Iterable[RevenueRow], taxes: Taxes) -> list[Difference]:
    """Tell of invoices whose tax is not that of their lines, computed once a group.

    Without a tax file there are no taxes, and no line may say that it bears one.
    """
    found: list[Difference] = []
    for (invoice_id, currency), priced in _priced(rows).items():
        stored = {row.key: row for row in taxes.get(invoice_id, ())}
        sums: dict[GroupKey, int] = {}
        for (_, key), minor in priced.items():
            sums[key] = sums.get(key, 0) + minor
        for key in sums.keys() | stored.keys():
            row = stored.get(key)
            amount = Money(sums.get(key, 0), currency)
            tax = tax_of(amount, key.rate, inclusive=key.inclusive).minor
            there = (amount.minor, 0) if row is None else (row.priced, row.tax)
            if there != (amount.minor, tax) or (row is None and key.treatment != Treatment.NONE):
                where = f"tax of {key.category} at {key.rate} of invoice {invoice_id}"
                found.append(
                    Difference(where, f"{tax} on {amount.minor}", f"{there[1]} on {there[0]}")
                )
    return found


def miscredited(
    credited: Mapping[tuple[UUID, GroupKey], tuple[int, int]], currency: Mapping[UUID, str]
) -> list[Difference]:
    """Tell of invoices whose credit notes do not give back the tax of all that they credit."""
    return [
        Difference(f"tax of credit notes of invoice {invoice_id}", str(due), str(tax))
        for (invoice_id, key), (priced, tax) in credited.items()
        for amount in (Money(priced, currency[invoice_id]),)
        for due in (tax_of(amount, key.rate, inclusive=key.inclusive).minor,)
        if due != tax
    ]


def undrawn(
    lines: Mapping[tuple[UUID, int], int],
    draws: Mapping[tuple[UUID, int], int],
    *,
    what: str = "discount",
) -> list[Difference]:
    """Tell of lines whose discount is not what coupons and credit took off them, or got back."""
    return [
        Difference(
            f"{what} of line {key[1]} of invoice {key[0]}",
            str(draws.get(key, 0)),
            str(lines.get(key, 0)),
        )
        for key in sorted(lines.keys() | draws.keys())
        if lines.get(key, 0) != draws.get(key, 0)
    ]
