"""What lines bear beside their amounts: discount shares, tax groups, and the revenue without tax.

Pure. A reduction copies the category, rate and share of the discount of the line that it takes
from (RULES 1), and the tax of credit notes is computed on what was credited so far, so that the
last one closes the cent (RULES 11).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from convergio.billing.model import Bearing, Creditable, CreditLine, Kind, Line, TaxRow
from convergio.kernel.money import Money, divided
from convergio.rating.taxing import (
    GroupKey,
    Priced,
    Taxed,
    Treatment,
    row_of,
    tax_groups,
    tax_of,
)


def tax_rows(lines: Iterable[Line]) -> tuple[TaxRow, ...]:
    """Return the tax of each group of an invoice's lines. Rounds: once a group."""
    return tuple(
        tax_groups(Priced(net_of(line), line.bearing.group, line.bearing.reason) for line in lines)
    )


def net_of(line: Line | CreditLine) -> Money:
    """Return what is left of a line after its discount, as priced."""
    return Money(line.amount.minor - line.bearing.discount, line.amount.currency)


def taxed(known: Taxed, *, inclusive: bool) -> Bearing:
    """Return what a line bears before any discount; only a rate above zero can be inside."""
    return Bearing(
        category=known.category,
        rate=known.rate,
        treatment=known.treatment,
        inclusive=inclusive and known.rate > 0,
        reason=known.reason,
        country=known.country,
    )


def share(row: Creditable, part: int) -> Bearing:
    """Return what a part of what is left of a line bears: its tax, and its share of the discount.

    The part that uses up what is left takes the rest of the discount. Rounds: half away from zero.
    """
    if part == row.remaining or not row.remaining:
        discount = row.discount_left
    else:
        sign = 1 if row.remaining > 0 else -1
        discount = divided(row.discount_left * part * sign, row.remaining * sign)
    return Bearing(
        discount, row.tax_category, row.tax_rate, Treatment(row.tax_treatment), row.tax_inclusive
    )


@dataclass(slots=True)
class Credited:
    """What credit notes took back so far of each invoice's tax groups: as priced, and the tax."""

    of: dict[tuple[UUID, GroupKey], tuple[int, int]] = field(default_factory=dict)

    def take(self, invoice_id: UUID, lines: Iterable[CreditLine]) -> tuple[TaxRow, ...]:
        """Return the tax of a credit note, and count it.

        It is the tax of all that is credited by then, less what was credited before. Nothing of a
        document without tax. Rounds: once a group, half away from zero.
        """
        sums: dict[GroupKey, Money] = {}
        for line in lines:
            key, net = line.bearing.group, net_of(line)
            sums[key] = sums[key] + net if key in sums else net
        if all(key.treatment == Treatment.NONE for key in sums):
            return ()
        rows = []
        for key, amount in sums.items():
            before, tax_before = self.of.get((invoice_id, key), (0, 0))
            whole = Money(before, amount.currency) + amount
            due = tax_of(whole, key.rate, inclusive=key.inclusive)
            tax = Money(due.minor - tax_before, amount.currency)
            self.of[invoice_id, key] = (whole.minor, due.minor)
            rows.append(row_of(key, amount, tax, None))
        return tuple(rows)


def earned(
    priced: Mapping[tuple[Kind, GroupKey], int], taxes: Iterable[TaxRow], currency: str
) -> dict[Kind, int]:
    """Return what lines earn by kind, without the tax inside their prices.

    `priced` are sums after discount. Where a group with its tax inside has both fees and usage,
    the fees bear their own tax and usage the rest of the group's.
    """
    inside = {row.key: row.tax for row in taxes if row.inclusive}
    sums: dict[Kind, int] = {}
    for kind in (Kind.FIXED, Kind.USAGE):
        for key, amount in ((key, minor) for (one, key), minor in priced.items() if one == kind):
            tax = 0
            if key in inside:
                is_shared = kind == Kind.FIXED and (Kind.USAGE, key) in priced
                rest = inside.pop(key) if not is_shared else inside[key]
                tax = rest
                if is_shared:
                    tax = tax_of(Money(amount, currency), key.rate, inclusive=True).minor
                    inside[key] = rest - tax
            sums[kind] = sums.get(kind, 0) + amount - tax
    return sums


def earned_by(
    lines: Iterable[Line] | Iterable[CreditLine], taxes: Iterable[TaxRow], currency: str
) -> dict[Kind, int]:
    """Return what the lines of a document earn by kind, without the tax inside their prices."""
    priced: dict[tuple[Kind, GroupKey], int] = {}
    for line in lines:
        kind = line.key.kind if isinstance(line, Line) else line.kind
        key = kind, line.bearing.group
        priced[key] = priced.get(key, 0) + net_of(line).minor
    return earned(priced, taxes, currency)


def tax_instant(line: Line) -> datetime:
    """Return the instant whose day decides the rate of a line.

    Usage is taxed as its own period's end, and a fee as the boundary at which it fell due, however
    late they are billed and whatever they are billed with (RULES 5).
    """
    if line.key.kind == Kind.USAGE:
        return line.period_end
    return line.due_at or line.key.period_start
