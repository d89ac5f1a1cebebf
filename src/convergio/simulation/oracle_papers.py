"""The oracle's documents: lines, invoices and credit notes, and the tax that is computed on them.

Written from RULES 2, 11, DESIGN 4 and `docs/howto/{discounts,tax}.md`: tax once a group on the sum
of its net lines; a reduction copies its source's tax and its share of the discount; the tax of
credit notes is that of all that is credited so far, less what was credited before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from convergio.simulation.oracle_calendar import Span
from convergio.simulation.oracle_holds import Price
from convergio.simulation.oracle_owing import Key
from convergio.simulation.oracle_prices import rounded

_NOTHING = Fraction(0)


class Group(NamedTuple):
    """What lines have in common whose tax is computed as one; the rate is in percent."""

    category: str
    rate: Fraction
    treatment: str
    inclusive: bool


class Tax(NamedTuple):
    """The tax of a group: its net is always without it."""

    group: Group
    net: int
    tax: int


UNTAXED = Group("standard", _NOTHING, "none", inclusive=False)


class Taken(NamedTuple):
    """What a coupon, for a period number, or a grant took off a line."""

    source: object
    number: int | None
    amount: int


@dataclass(slots=True)
class Line:
    """A line of an invoice. `given` was taken back of it; `corrected` of that lowers billed.

    `took` is what took its discount off, `taken` what of that was not given back. One below zero
    names its source; giving such a line back gives the source back what it lost. `place` is that
    of the boundary which it comes from, on an invoice of several.
    """

    key: Key
    name: str
    span: Span
    reason: str
    amount: int
    price: Price
    source: "Line | None" = None
    quantity: Fraction | None = None
    group: Group = UNTAXED
    discount: int = 0
    took: list[Taken] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    given: int = 0
    discount_given: int = 0
    corrected: int = 0
    place: int = 0

    @property
    def left(self) -> int:
        """What can still be given back of it, before discount."""
        return self.amount - self.given

    @property
    def net(self) -> int:
        """What is left of it after its discount."""
        return self.amount - self.discount

    def share(self, part: int) -> int:
        """Return the discount of a part of what is left; whoever takes the rest takes its rest."""
        rest = self.discount - self.discount_given
        return rest if part == self.left else rounded(Fraction(rest * part, self.left), 0)

    def take(self, source: object, number: int | None, amount: int) -> None:
        """Let something take an amount off."""
        if amount:
            self.discount += amount
            self.took.append(Taken(source, number, amount))
            self.taken.append(Taken(source, number, amount))

    def give(self, amount: int, discount: int) -> None:
        """Count what is given back of it."""
        self.given += amount
        self.discount_given += discount
        if self.source is not None:
            self.source.give(amount, discount)


@dataclass(slots=True)
class Invoice:
    """An invoice and what settled it; `noted` is what credit notes took of each group: net, tax."""

    boundary: datetime
    lines: list[Line]
    taxes: list[Tax]
    from_balance: int = 0
    credited: int = 0
    paid: int = 0
    state: str = "open"
    noted: dict[Group, tuple[int, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """What is to be paid: the net lines, and the tax that is not inside them."""
        return total_of(sum(line.net for line in self.lines), self.taxes)

    @property
    def due(self) -> int:
        """What is still to be paid."""
        return self.total - self.from_balance - self.credited - self.paid


@dataclass(slots=True)
class Note:
    """A credit note of one invoice: its lines with what they give back, before and as discount."""

    invoice: int
    reason: str
    lines: list[tuple[str, int, int]]
    taxes: list[Tax]
    total: int
    applied: int


def total_of(net: int, taxes: Iterable[Tax]) -> int:
    """Return net lines with the tax that is beside them."""
    return net + sum(one.tax for one in taxes if not one.group.inclusive)


def taxes_of(parts: Iterable[tuple[Group, int]]) -> list[Tax]:
    """Return the tax of each group of net amounts. Rounds: once a group."""
    rows = []
    for group, net in sums_of(parts).items():
        tax = _tax(net, group)
        rows.append(Tax(group, net - tax if group.inclusive else net, tax))
    return rows


def credited_taxes(
    noted: dict[Group, tuple[int, int]], parts: Iterable[tuple[Group, int]]
) -> list[Tax]:
    """Return the tax of a credit note, and count it: that of all so far, less that of before."""
    rows = []
    for group, net in sums_of(parts).items():
        before, known = noted.get(group, (0, 0))
        due = _tax(before + net, group)
        noted[group] = (before + net, due)
        rows.append(Tax(group, net - (due - known) if group.inclusive else net, due - known))
    return rows


def sums_of(parts: Iterable[tuple[Group, int]]) -> Mapping[Group, int]:
    """Add amounts up by group, in the order of their first parts."""
    sums: dict[Group, int] = {}
    for group, amount in parts:
        sums[group] = sums.get(group, 0) + amount
    return sums


def _tax(net: int, group: Group) -> int:
    whole = 100 + group.rate if group.inclusive else Fraction(100)
    return rounded(net * group.rate / whole, 0)


def spread(amount: int, weights: Sequence[int]) -> list[int]:
    """Share an amount by weights: floors, then the largest remainders, the earlier of equals."""
    whole = sum(weights)
    if not amount:
        return [0 for _ in weights]
    exact = [Fraction(amount * weight, whole) for weight in weights]
    shares = [int(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda n: (shares[n] - exact[n], n))
    for n in order[: amount - sum(shares)]:
        shares[n] += 1
    return shares
