"""An amount that is not worth asking for waits for the next invoice.

Gateways refuse very small charges, and their fee would eat them. What a boundary comes to below
the catalog's `minimum_charge` stays unbilled, so owed - billed finds it again with whatever comes
next; a customer who leaves is asked for it all the same. It is judged on what the customer would be
asked to pay: the total after discount and tax, less what credit notes of the same moment give back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from convergio.billing.model import CreditDraft, Draft, Line
from convergio.kernel.money import Money


class Made(NamedTuple):
    """The documents that a boundary becomes."""

    invoice: Draft | None
    notes: Sequence[CreditDraft] = ()

    @property
    def asked(self) -> int:
        """What is asked for, less what is taken back, before discount and tax (minor units)."""
        above = self.invoice.lines if self.invoice is not None else ()
        below = sum(line.amount.minor for note in self.notes for line in note.lines)
        return sum(line.amount.minor for line in above) - below

    def is_small(self, minimums: Mapping[str, Money]) -> bool:
        """Say whether they ask for something, and for less than is worth asking for."""
        if self.invoice is None:
            return False
        total = self.invoice.total.minor - sum(one.total.minor for one in self.notes)
        return is_small(Money(total, self.invoice.total.currency), minimums)


def made(
    drafts: Sequence[Draft],
    make: Callable[[Draft], Made],
    undo: Callable[[], None],
    minimums: Mapping[str, Money],
    *,
    is_final: bool,
) -> tuple[list[Made], list[Draft]]:
    """Return a customer's documents, small ones joined to the next, and what waits.

    Drafts come in the order of their boundaries. What takes back is not joined; of what was given
    away nothing is left to take back, and it decides nothing. `make` decides the
    documents of a draft; `undo` makes it forget those that it made last.
    """
    kept: list[Made] = []
    waiting: list[Draft] = []
    for draft in drafts:
        found = make(draft)
        if found.asked <= 0:
            kept.append(found)
            continue
        if waiting:
            undo()
            found = make(_joined([*waiting, draft]))
        if found.is_small(minimums):
            undo()
            waiting.append(draft)
        else:
            kept.append(found)
            waiting = []
    if waiting and is_final:
        kept.append(make(_joined(waiting)))
        waiting = []
    return kept, waiting


def is_small(total: Money, minimums: Mapping[str, Money]) -> bool:
    """Say whether an amount is above zero and not worth asking for."""
    least = minimums.get(total.currency)
    return least is not None and 0 < total.minor < least.minor


def _joined(drafts: Sequence[Draft]) -> Draft:
    """Return drafts as one, at the last of their boundaries."""
    if len(drafts) == 1:
        return drafts[0]
    lines: tuple[Line, ...] = tuple(line for draft in drafts for line in draft.lines)
    total = Money(sum(draft.total.minor for draft in drafts), drafts[-1].total.currency)
    return replace(drafts[-1], lines=lines, total=total)
