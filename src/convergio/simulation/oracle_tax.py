"""The oracle's tax: which rate a line bears, from the seller's file and the customer's place.

Written from RULES 5 and 13 and `docs/howto/tax.md`, row by row of its table. What cannot be told is
None, and the customer waits. Facts come as the words of a script: `rates` is a list with commas of
`country[/region]:category:percent:from:to`, where a percent may be `exempt` and a day empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from convergio.simulation.oracle_papers import UNTAXED, Group

UNION = frozenset(
    {
        "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU",
        "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
    }
)  # fmt: skip
_NOTHING = Fraction(0)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """A registration, or a rate, and the days in which it is in force."""

    country: str
    region: str
    category: str
    percent: str
    since: date
    until: date

    def is_on(self, day: date) -> bool:
        """Say whether it is in force on a day."""
        return self.since <= day < self.until


@dataclass(frozen=True, slots=True)
class File:
    """The seller's tax file; `apart`: whatever is taken back goes on a credit note (RULES 11)."""

    seller: str
    one_stop_shop: bool
    registrations: tuple[Entry, ...]
    rates: tuple[Entry, ...]
    apart: bool


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of where a customer is; nobody verified another number, or one elsewhere."""

    country: str | None = None
    region: str | None = None
    exempt: str | None = None
    number: str | None = None
    verified: bool = False

    def told(self, words: Mapping[str, str]) -> "Place":
        """Hear all of it anew; `said` is what came of looking at the number, if somebody did."""
        number, country = words["number"] or None, words["country"] or None
        verified = self.verified and (number, country) == (self.number, self.country)
        if words["said"]:
            verified = words["said"] == "real"
        region, exempt = words["region"] or None, words["exempt"] or None
        return Place(country, region, exempt, number, verified)


def file_of(words: Mapping[str, str]) -> File:
    """Read the words of a tax file."""
    return File(
        words["seller"],
        words.get("oss") == "yes",
        tuple(_entry(text) for text in words["registrations"].split(",")),
        tuple(_entry(text) for text in words["rates"].split(",")),
        words.get("fatturapa") == "yes",
    )


def _entry(text: str) -> Entry:
    where, category, percent, since, until = text.split(":")
    country, _, region = where.partition("/")
    return Entry(
        country,
        region,
        category,
        percent,
        date.fromisoformat(since) if since else date.min,
        date.fromisoformat(until) if until else date.max,
    )


def day_of(at: datetime, zone: str, *, is_end: bool) -> date:
    """Return the day of an instant where the subscription is; an end is of the day before it."""
    return (at - _TICK if is_end else at).astimezone(ZoneInfo(zone)).date()


def group_of(file: File | None, place: Place, price: Mapping[str, Any], day: date) -> Group | None:
    """Return how a line of a price is taxed on a day, None where it cannot be told."""
    if file is None:
        return UNTAXED
    found = _decided(file, place, price.get("tax_category", "standard"), day)
    if found is None:
        return None
    treatment, rate = found
    inside = price.get("tax_inclusive") == "true" and rate > 0
    return Group(price.get("tax_category", "standard"), rate, treatment, inside)


def _decided(file: File, place: Place, category: str, day: date) -> tuple[str, Fraction] | None:
    """Return treatment and rate by the first row of the table that fits, None for a wait."""
    country, region = place.country, place.region
    if place.exempt is not None:
        return _no(place.exempt)
    if country is None:
        return None
    here, within = country == file.seller, country in UNION
    registered = _registered(file, country, region, day)
    found: tuple[str, Fraction] | None = _no("none" if here else "export")
    if within and place.verified and not here:
        found = _no("reverse_charge")
    elif registered is None:
        found = None
    elif registered or (within and file.one_stop_shop and not here):
        found = _rate(file, country, region, category, day)
    elif within and file.seller in UNION and not here:
        found = _rate(file, file.seller, None, category, day)
    return found


def _no(treatment: str) -> tuple[str, Fraction]:
    return treatment, _NOTHING


def _registered(file: File, country: str, region: str | None, day: date) -> bool | None:
    """Say whether the seller is registered there; None where only the region could tell."""
    there = [e for e in file.registrations if e.country == country and e.is_on(day)]
    if any(entry.region in {"", region} for entry in there):
        return True
    return None if there and region is None else False


def _rate(
    file: File, country: str, region: str | None, category: str, day: date
) -> tuple[str, Fraction] | None:
    """Return the rate in force: that of the region, or else of the whole country."""
    here = [
        e for e in file.rates if (e.country, e.category) == (country, category) and e.is_on(day)
    ]
    for entry in sorted(here, key=lambda e: not e.region):
        if entry.region in {"", region}:
            if entry.percent == "exempt":
                return _no("exempt")
            rate = Fraction(entry.percent)
            return ("standard" if rate else "zero"), rate
    return None
