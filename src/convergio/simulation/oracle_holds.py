"""What the oracle's customer has: prices held for a time, and the agreement that they are of.

A price is the catalog file's own mapping, and two holds are of one price where they hold the very
same mapping. What is asked once (`docs/howto/agreements.md`) is a hold of one instant: it has no
end, and gets one only where it is taken back before it was asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

Price = Mapping[str, Any]
Plans = Mapping[str, Mapping[str, Any]]
LONG_AGO = -1
PAUSED = "paused"
OF_ITS_OWN = "@"
"""Stands where an add-on's key would for a charge that belongs to nothing."""


@dataclass(slots=True)
class Hold:
    """A price that someone has, how many of it, and when; `made` is the fact that began it.

    `beside` is the key of the add-on that it is of; the plan's own have none.
    """

    price: Price
    count: int
    since: datetime
    made: int
    until: datetime | None = None
    credited: bool = False
    why: str = ""
    ended: int = LONG_AGO
    beside: str = ""

    @property
    def is_once(self) -> bool:
        """Say whether it is asked a single time."""
        return bool(self.price.get("once") == "true")

    def lasts(self, at: datetime) -> bool:
        """Say whether it goes on beyond an instant, if perhaps not for ever."""
        return not self.is_once and (self.until is None or self.until > at)

    def end(self, at: datetime, *, credited: bool, why: str, fact: int) -> None:
        """End it once."""
        self.until, self.credited, self.why, self.ended = max(at, self.since), credited, why, fact


class Change(NamedTuple):
    """A change to come: when, to which plan at which prices, how many seats."""

    at: datetime
    plan: str
    prices: tuple[Price, ...]
    seats: int


@dataclass(slots=True)
class Agreement:
    """One subscription. Its prices are `pinned`; `waiting` are the changes to come, in order."""

    number: int
    plan: str
    zone: str
    anchor: datetime
    seats: int
    state: str
    made: int
    pinned: tuple[Price, ...] = ()
    policy: str = "activate"
    fallback: str | None = None
    by_calendar: bool = False
    holds: list[Hold] = field(default_factory=list)
    ends_at: datetime | None = None
    ended_at: datetime | None = None
    waiting: list[Change] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def of_plan(self) -> list[Hold]:
        """Return what of the plan has not ended."""
        return [h for h in self.holds if h.until is None and not h.is_once and not h.beside]

    def lasting(self, at: datetime, beside: str | None = None) -> list[Hold]:
        """Return what lasts beyond an instant: all of it, or one add-on."""
        return [h for h in self.holds if h.lasts(at) and beside in {None, h.beside}]

    def to_ask(self, at: datetime, beside: str | None = None) -> list[Hold]:
        """Return what would be asked once from an instant on, but for charges of their own."""
        return [
            h for h in self.holds
            if h.is_once and h.until is None and h.since >= at and h.beside != OF_ITS_OWN
            and beside in {None, h.beside}
        ]  # fmt: skip

    def stop(self, at: datetime, *, credited: bool, why: str, fact: int) -> None:
        """End everything that lasts, and take back what is still to be asked.

        A pause brings forward an end that was to come, and that keeps its reason.
        """
        for hold in [*self.lasting(at), *self.to_ask(at)]:
            said = hold.why if hold.until is not None and why == PAUSED else why
            hold.end(at, credited=credited, why=said, fact=fact)

    def hold(self, price: Price, at: datetime, fact: int, *, count: int = 1, add: str = "") -> None:
        """Begin to have a price; one that is asked once only where it never was."""
        key = str(price["key"])
        asked_before = any(h.until is None and h.price["key"] == key for h in self.holds)
        if price.get("once") == "true" and (key in self.asked or asked_before):
            return
        many = count if price["charge"]["model"] == "seat" else 1
        self.holds.append(Hold(price, many, at, fact, beside=add))

    def once_asked(self) -> list[str]:
        """Return the keys of what was asked once, here and in what this one follows."""
        return [*self.asked, *(h.price["key"] for h in self.holds if h.is_once and not h.until)]


def fees(prices: Iterable[Price]) -> list[Price]:
    """Return the prices that are charged in advance, again and again."""
    return [price for price in prices if "meter" not in price and price.get("once") != "true"]


def interval(price: Price) -> str:
    """Return how often a price is charged."""
    return str(price.get("interval", "month"))


def opens_anew(old: Sequence[Price], new: Sequence[Price]) -> bool:
    """Say whether a change goes from Free to paid, or to another interval of the fee (RULES 10)."""
    if _is_free(old):
        return not _is_free(new)
    before, after = ({interval(p) for p in fees(some)} for some in (old, new))
    return bool(before and after and before != after)


def _is_free(prices: Iterable[Price]) -> bool:
    """Say whether prices can never cost anything, whatever their hard quotas let through."""
    every = ((p, charge) for p in prices for charge in (p["charge"], *_charges(p)))
    return all(_within(p) or not _asks(charge) for p, charge in every)


def _within(price: Price) -> bool:
    """Say whether a hard quota ends where more would be charged."""
    quota, charge = price.get("quota", {}), price["charge"]
    if quota.get("hard") != "true" or "minimum" in charge:
        return False
    return Fraction(quota["limit"]) <= Fraction(charge.get("included", "0"))


def _charges(price: Price) -> Iterable[Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = price.get("charges", {})
    return found.values()


def _asks(charge: Mapping[str, Any]) -> bool:
    if "tiers" in charge:
        return True
    names = ("amount", "unit", "package_price", "percent", "fixed", "minimum")
    return any(Fraction(charge.get(name) or 0) for name in names)
