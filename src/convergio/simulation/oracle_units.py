"""The oracle's prepaid units: what usage beyond the allowance draws, and what is left.

Written from RULES 12 and `docs/howto/quotas.md`. Time is cut wherever a period, a price or a grant
begins or ends; of each piece the usage beyond the allowance that the whole period shares draws the
grants that live in it, by priority, expiry and creation. Nothing is carried over: late usage of an
early piece draws before a later one does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from convergio.simulation.oracle_calendar import Span, spans
from convergio.simulation.oracle_holds import Hold, interval
from convergio.simulation.oracle_life import Life
from convergio.simulation.oracle_owing import Usage, allowed, limit_now

_NOTHING = Fraction(0)
_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Pack:
    """A grant in units of a meter."""

    key: str
    meter: str
    quantity: Fraction
    priority: int
    starts: datetime
    expires: datetime
    made: int
    ends: datetime


class Piece(NamedTuple):
    """A stretch of time in which nothing changes, of a hold and a period that share `free`."""

    start: datetime
    end: datetime
    hold: Hold
    period: tuple[int, str, datetime]
    free: Fraction


class Drawn(NamedTuple):
    """What a piece meets and draws: spent before it in its period, credit that it may draw."""

    piece: Piece
    spent: Fraction
    credit: Fraction
    units: Fraction


@dataclass(slots=True)
class Packs:
    """The prepaid units of one customer."""

    every: list[Pack] = field(default_factory=list)

    def told(self, words: Mapping[str, str]) -> None:
        """Hear of a grant."""
        expires = words.get("expires")
        ends = datetime.fromisoformat(expires) if expires else _FOREVER
        self.every.append(
            Pack(
                words["key"],
                words["meter"],
                Fraction(words["quantity"]),
                int(words.get("priority", "100")),
                datetime.fromisoformat(words["starts"]),
                ends,
                len(self.every),
                ends,
            )
        )

    def void(self, key: str, at: datetime) -> None:
        """Hear that what usage has not drawn by an instant is taken back."""
        for one in self.every:
            if one.key == key:
                one.ends = min(one.ends, at)

    def bill(self, life: Life, usage: Usage, until: datetime) -> None:
        """Tell usage what of each hold and period is paid already."""
        usage.drawn = {}
        for meter in sorted({one.meter for one in self.every}):
            for one in self._draws(life, usage, meter, until)[0]:
                key = id(one.piece.hold), one.piece.period[2]
                usage.drawn[key] = usage.drawn.get(key, _NOTHING) + one.units

    def left(self, life: Life, usage: Usage, until: datetime) -> dict[str, Fraction]:
        """Return what of each grant is not drawn."""
        found: dict[str, Fraction] = {}
        for meter in sorted({one.meter for one in self.every}):
            found |= self._draws(life, usage, meter, until)[1]
        return found

    def limit(
        self, life: Life, usage: Usage, meter: str, at: datetime, since: datetime
    ) -> Fraction | None:
        """Return what a hard quota lets the window use that began at `since`."""
        plain = limit_now(life, usage, meter, at)
        if plain is None:
            return None
        for one in self._draws(life, usage, meter, at)[0]:
            if one.piece.start == since:
                return max(_NOTHING, one.piece.free - one.spent) + one.credit
        return plain

    def _draws(
        self, life: Life, usage: Usage, meter: str, until: datetime
    ) -> tuple[list[Drawn], dict[str, Fraction]]:
        packs = sorted(
            (one for one in self.every if one.meter == meter),
            key=lambda one: (one.priority, one.expires, one.made),
        )
        left = {one.key: one.quantity for one in packs}
        used: dict[tuple[int, str, datetime], Fraction] = {}
        spent: dict[tuple[int, str, datetime], Fraction] = {}
        found = []
        cuts = {at for one in packs for at in (one.starts, one.ends)}
        for piece in sorted(_pieces(life, meter, cuts, until), key=lambda one: one.start):
            units = usage.used(meter, piece.start, piece.end)
            before = used.get(piece.period, _NOTHING)
            beyond = max(_NOTHING, units - max(_NOTHING, piece.free - before))
            active = [one for one in packs if one.starts <= piece.start < one.ends]
            credit = sum((left[one.key] for one in active), _NOTHING)
            drawn = min(beyond, credit)
            found.append(Drawn(piece, spent.get(piece.period, _NOTHING), credit, drawn))
            used[piece.period] = before + units
            spent[piece.period] = spent.get(piece.period, _NOTHING) + units - drawn
            for one in active:
                part = min(left[one.key], drawn)
                left[one.key] -= part
                drawn -= part
        return found, left


def _pieces(life: Life, meter: str, cuts: set[datetime], until: datetime) -> Iterator[Piece]:
    """Yield the time of every hold that prices a meter, cut where anything begins or ends."""
    for agreement in life.agreements:
        holds = [h for h in agreement.holds if h.price.get("meter") == meter]
        for every in sorted({interval(hold.price) for hold in holds}):
            same = [hold for hold in holds if interval(hold.price) == every]
            for span in spans(agreement.anchor, agreement.zone, every, until):
                here = _within(same, span)
                free = allowed(here, span) if here else _NOTHING
                period = agreement.number, every, span[0]
                for hold in here:
                    since, end = max(hold.since, span[0]), min(hold.until or span[1], span[1])
                    inner = sorted(at for at in cuts if since < at < end)
                    for start, stop in pairwise([since, *inner, end]):
                        yield Piece(start, stop, hold, period, free)


def _within(holds: Sequence[Hold], span: Span) -> list[Hold]:
    start, end = span
    return [
        h for h in holds
        if h.since < end and (h.until is None or (h.until > start and h.until > h.since))
    ]  # fmt: skip
