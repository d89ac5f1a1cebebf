"""What of coupons, credit and tax the product wrote, and what the oracle expects, as texts.

A line without discount and outside of any tax says nothing here, so a world that has none of this
reads as if this module were not there.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Final
from uuid import UUID

from convergio.billing.model import InvoiceLine, TaxRow
from convergio.discounts import actions as discounts
from convergio.entitlements import grants
from convergio.infra.db import Tx
from convergio.kernel.errors import Difference
from convergio.simulation.oracle import Account
from convergio.simulation.oracle_money import Redeemed
from convergio.simulation.oracle_papers import Group, Line, Tax

Draws = Sequence[tuple[int, str | None, int]]
_CREDIT: Final = "credit"
_NONE: Final = "none"
_PAGE: Final = 1_000


def line_text(line: InvoiceLine, draws: Draws) -> str:
    """Return what a stored line bears, and what took it off."""
    group = Group(
        line.tax_category, Fraction(line.tax_rate), str(line.tax_treatment), line.tax_inclusive
    )
    taken = [(code or _CREDIT, amount) for n, code, amount in draws if n == line.line_number]
    return _line(line.discount, group, taken)


def expected_line_text(line: Line) -> str:
    """Return what the oracle's line bears, and what took it off."""
    sums: dict[str, int] = {}
    for one in line.took:
        code = one.source.code if isinstance(one.source, Redeemed) else _CREDIT
        sums[code] = sums.get(code, 0) + one.amount
    return _line(line.discount, line.group, sums.items())


def _line(discount: int, group: Group, taken: Iterable[tuple[str, int]]) -> str:
    sums: dict[str, int] = {}
    for code, amount in taken:
        sums[code] = sums.get(code, 0) + amount
    parts = ", ".join(f"{code} {amount}" for code, amount in sorted(sums.items()))
    less = f" less {discount}" + (f" ({parts})" if discount > 0 else "") if discount else ""
    return less if group.treatment == _NONE else f"{less}, {_group(group)}"


def tax_texts(rows: Iterable[TaxRow]) -> list[str]:
    """Return the tax of a stored document, a text a group."""
    groups = [
        Tax(
            Group(row.category, Fraction(row.rate), str(row.treatment), row.inclusive),
            row.net,
            row.tax,
        )
        for row in rows
    ]
    return expected_tax_texts(groups)


def expected_tax_texts(rows: Iterable[Tax]) -> list[str]:
    """Return the tax of a document of the oracle's, a text a group."""
    return [
        f"tax of {row.net}: {row.tax}, {_group(row.group)}"
        for row in rows
        if row.group.treatment != _NONE
    ]


def _group(group: Group) -> str:
    inside = " inside" if group.inclusive else ""
    return f"{group.category} {group.treatment} {float(group.rate):g}%{inside}"


def differences(
    tx: Tx, account: Account, customer_id: UUID, *, now: datetime, waits: bool
) -> Iterator[Difference]:
    """Yield what differs beside the documents: who waits for a tax, what is left of credit."""
    if account.parked != waits:
        yield Difference("waits for a tax", str(account.parked), str(waits))
    if not account.wallet.grants:
        return
    drawn = discounts.drawn_of_grants(tx, [customer_id])
    found = grants.page(tx, customer_id, now=now, size=_PAGE, money_drawn=drawn)
    due = {one.key: one.drawn for one in account.wallet.grants if not one.voided}
    there = {one.grant.key: int(one.drawn) for one in found if one.grant.key in due}
    if due != there:
        yield Difference("credit drawn", str(due), str(there))


def units(tx: Tx, account: Account, customer_id: UUID, *, now: datetime) -> Iterator[Difference]:
    """Yield what differs in what is left of prepaid units; right after a run only."""
    if not account.packs.every:
        return
    found = grants.page(tx, customer_id, now=now, size=_PAGE)
    packs = {one.key: one.quantity for one in account.packs.every}
    there = {one.grant.key: Fraction(one.drawn) for one in found if one.grant.key in packs}
    due = {key: packs[key] - left for key, left in account.units_left(now).items()}
    if due != there:
        yield Difference("units drawn", str(due), str(there))
