"""An amount that is not worth asking for waits for the next invoice.

Gateways refuse very small charges, and their fee would eat them. What a boundary comes to below
the catalog's `minimum_charge` stays unbilled, so owed - billed finds it again with whatever comes
next; a customer who leaves is asked for it all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from convergio.billing.model import Draft, Line
from convergio.kernel.money import Money


def gathered(
    drafts: Sequence[Draft], minimums: Mapping[str, Money], *, is_final: bool
) -> tuple[list[Draft], bool]:
    """Return a customer's drafts, the small ones joined to the next, and whether any waits.

    Drafts come and go in the order of their boundaries. What takes back is not joined.
    """
    kept: list[Draft] = []
    waiting: list[Draft] = []
    for draft in drafts:
        if draft.total.minor <= 0:
            kept.append(draft)
            continue
        joined = _joined([*waiting, draft])
        if is_small(joined.total, minimums):
            waiting.append(draft)
        else:
            kept.append(joined)
            waiting = []
    if waiting and is_final:
        kept.append(_joined(waiting))
        waiting = []
    return kept, bool(waiting)


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
