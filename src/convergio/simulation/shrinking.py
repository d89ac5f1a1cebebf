"""Make a failing script small: drop steps for as long as the difference remains.

First everyone else's life, then ever smaller pieces of what is left (delta debugging, Zeller and
Hildebrandt 2002). A step that makes no sense without a dropped one is refused by the product, so
any selection of steps is a world that can be lived.
"""

from collections.abc import Callable, Sequence

from convergio.simulation.script import NOBODY, Step

Steps = Sequence[Step]


def shrunk(
    steps: Steps, who: str, *, fails: Callable[[Steps], bool], may_go_on: Callable[[], bool]
) -> tuple[Step, ...]:
    """Return fewer steps that still fail; `may_go_on` ends it when the time is over."""
    alone = tuple(step for step in steps if step.who in {who, NOBODY})
    kept = alone if may_go_on() and fails(alone) else tuple(steps)
    size = max(1, len(kept) // 2)
    while may_go_on():
        shorter = _without_pieces(kept, size, fails, may_go_on)
        if size == 1 and len(shorter) == len(kept):
            return shorter
        kept, size = shorter, max(1, size // 2)
    return kept


def _without_pieces(
    steps: tuple[Step, ...],
    size: int,
    fails: Callable[[Steps], bool],
    may_go_on: Callable[[], bool],
) -> tuple[Step, ...]:
    """Try to leave out each piece in turn, the last first: the end is seldom the cause."""
    for first in range((len(steps) - 1) // size * size, -1, -size):
        if not may_go_on():
            break
        fewer = steps[:first] + steps[first + size :]
        if fewer and fails(fewer):
            steps = fewer
    return steps
