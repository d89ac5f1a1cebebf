"""The oracle's discounts: coupons, which are pinned to period numbers, and promotional credit.

Written from RULES 6 and 12 and `docs/howto/discounts.md`. Coupons come in the order in which they
were redeemed, each on what the earlier ones left; then credit by priority, expiry and creation.
Each is one amount, shared over its lines by largest remainder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from convergio.simulation.oracle_calendar import boundary, spans
from convergio.simulation.oracle_holds import fees, interval
from convergio.simulation.oracle_life import Life
from convergio.simulation.oracle_papers import Group, Line, Taken, spread, sums_of
from convergio.simulation.oracle_parts import Shop
from convergio.simulation.oracle_prices import rounded

_FOREVER = datetime.max.replace(tzinfo=UTC)
Words = Mapping[str, str]


@dataclass(slots=True)
class Redeemed:
    """A coupon in a customer's hands, for the numbers `first` to `last` of its own calendar."""

    code: str
    percent: Fraction | None
    amount: int
    anchor: datetime
    zone: str
    every: str
    first: int
    last: int | None
    prices: frozenset[str] | None
    used: dict[int, int] = field(default_factory=dict)

    def number(self, line: Line) -> int | None:
        """Return the period number under which it counts for a line, None if it does not."""
        if self.prices is not None and line.price["key"] not in self.prices:
            return None
        number = number_at(self.anchor, self.zone, self.every, line.key.start)
        inside = self.first <= number and (self.last is None or number <= self.last)
        return number if inside else None


@dataclass(slots=True)
class Grant:
    """Promotional credit in money, and what was drawn of it."""

    key: str
    amount: int
    priority: int
    starts: datetime
    expires: datetime | None
    made: int
    drawn: int = 0
    voided: bool = False

    @property
    def left(self) -> int:
        """What of it was not drawn."""
        return self.amount - self.drawn

    def covers(self, line: Line) -> bool:
        """Say whether the time that a line is for meets the time in which the credit lives."""
        start, end = line.span
        return self.starts < end and (self.expires is None or start < self.expires)


@dataclass(slots=True)
class Wallet:
    """What a customer has that lowers invoices, and the coupons that are on offer."""

    offered: dict[str, Words] = field(default_factory=dict)
    redeemed: list[Redeemed] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)

    def redeem(self, words: Words, life: Life, at: datetime, lines: Iterable[Line]) -> None:
        """Pin a coupon to the periods of the plan's fee, from the first that is not billed yet.

        `lines` are what is billed, fees among them.
        """
        terms, live = self.offered[words["code"]], life.live
        if live is None:
            return  # the product found a subscription that should not be: the comparison says so
        every = interval([*fees(live.pinned), *live.pinned][0])
        first = max(0, number_at(live.anchor, live.zone, every, at))
        start = boundary(live.anchor, live.zone, every, first)
        first += any(line.key.kind == "fixed" and line.key.start >= start for line in lines)
        count = {"once": 1, "forever": None}.get(terms["duration"], int(terms.get("periods", "0")))
        self.redeemed.append(
            Redeemed(
                code=words["code"],
                percent=Fraction(terms["percent"]) if "percent" in terms else None,
                amount=int(terms.get("amount", "0")),
                anchor=live.anchor,
                zone=live.zone,
                every=every,
                first=first,
                last=None if count is None else first + count - 1,
                prices=_prices(terms, life.shop),
            )
        )

    def grant(self, words: Words) -> None:
        """Hear of promotional credit."""
        expires = words.get("expires")
        self.grants.append(
            Grant(
                key=words["key"],
                amount=int(words["amount"]),
                priority=int(words.get("priority", "100")),
                starts=datetime.fromisoformat(words["starts"]),
                expires=datetime.fromisoformat(expires) if expires else None,
                made=len(self.grants),
            )
        )

    def void_grant(self, words: Words) -> None:
        """Hear that what is left of a grant is taken back."""
        for one in self.grants:
            one.voided |= one.key == words["key"]

    def coupons_off(self, lines: Sequence[Line]) -> None:
        """Take off lines above zero what coupons do. Rounds: a percentage once over its lines."""
        for one in self.redeemed:
            counted = [
                (number, line)
                for line in lines
                if line.net > 0 and (number := one.number(line)) is not None
            ]
            if one.percent is not None:
                whole = sum(line.net for _, line in counted)
                _share(one, counted, rounded(whole * one.percent / 100, 0))
                continue
            for number in sorted({number for number, _ in counted}):
                some = [pair for pair in counted if pair[0] == number]
                rest = one.amount - one.used.get(number, 0)
                part = max(0, min(rest, sum(line.net for _, line in some)))
                one.used[number] = one.used.get(number, 0) + part
                _share(one, some, part)

    def credit_off(self, lines: Sequence[Line], below: Iterable[tuple[Group, int]]) -> None:
        """Let credit pay for what is left; no tax group may lose more than it comes to.

        `below` is what reductions on the same invoice take back of each group.
        """
        room = dict(sums_of([*((line.group, line.net) for line in lines), *below]))
        order = sorted(self.grants, key=lambda g: (g.priority, _end(g), g.made))
        for one in order:
            if one.voided or one.left <= 0:
                continue
            groups: dict[Group, list[Line]] = {}
            for line in lines:
                if line.net > 0 and room[line.group] > 0 and one.covers(line):
                    groups.setdefault(line.group, []).append(line)
            most = [min(room[g], sum(line.net for line in some)) for g, some in groups.items()]
            part = min(one.left, sum(most))
            one.drawn += part
            for (group, some), share in zip(groups.items(), spread(part, most), strict=True):
                room[group] -= share
                _share(one, [(None, line) for line in some], share)


def give_back(line: Line, discount: int) -> list[Taken]:
    """Give a part of a line's discount back to what took it off, by what is left of each.

    Giving back of a line below zero takes it anew, as if its source had never lost it.
    """
    whole = sum(one.amount for one in line.taken)
    size = min(abs(discount), abs(whole))
    if not size:
        return []
    shares = spread(size, [abs(one.amount) for one in line.taken])
    sign, rest, parts = (1 if whole > 0 else -1), [], []
    for one, share in zip(line.taken, shares, strict=True):
        part = sign * share
        rest.append(one._replace(amount=one.amount - part))
        parts.append(one._replace(amount=-part))
        if isinstance(one.source, Grant):
            one.source.drawn -= part
        elif isinstance(one.source, Redeemed) and one.number is not None:
            one.source.used[one.number] = one.source.used.get(one.number, 0) - part
    line.taken = [one for one in rest if one.amount]
    if line.source is not None:
        line.source.taken += parts
    return parts


def number_at(anchor: datetime, zone: str, every: str, instant: datetime) -> int:
    """Return the number of the period that holds an instant, -1 for all time before the anchor."""
    return sum(1 for _ in spans(anchor, zone, every, instant)) - 1


def _share(source: object, lines: Sequence[tuple[int | None, Line]], part: int) -> None:
    shares = spread(part, [line.net for _, line in lines])
    for (number, line), share in zip(lines, shares, strict=True):
        line.take(source, number, share)


def _prices(terms: Words, shop: Shop) -> frozenset[str] | None:
    if "price" in terms:
        return frozenset({terms["price"]})
    if "plan" in terms:
        return frozenset(price["key"] for price in shop.sold(terms["plan"]))
    return None


def _end(grant: Grant) -> datetime:
    return _FOREVER if grant.expires is None else grant.expires
