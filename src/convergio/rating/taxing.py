"""Which tax a line bears and what a group of lines comes to: pure, one rounding a group.

Where a customer is, what is known of its tax number and which rates are in force decide a
treatment. What cannot be decided is `Unknown`, with the mend, and never a guess: the invoice waits.
Tax is computed once for each category, rate and treatment, on the sum of the rounded net lines
(EN 16931, BR-CO-17), so that adding a line can never move a cent of another group.

The rules are those of services supplied electronically: in the European Union a sale to another
member state's business with a verified number is reverse charged, to anybody else it bears the
buyer's rate where the seller is registered there or in the one-stop shop, and the seller's own
rate where it is not (Directive 2006/112/EC, articles 44, 58, 59c and 196).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from convergio.kernel.money import Money, divided

EUROPEAN_UNION: Final = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()
)
ZERO: Final = Decimal(0)
STANDARD: Final = "standard"
_HUNDRED: Final = 100


class Treatment(StrEnum):
    """Why a line bears the tax that it bears; `none`: it is outside of any tax."""

    STANDARD = "standard"
    ZERO = "zero"
    EXEMPT = "exempt"
    REVERSE_CHARGE = "reverse_charge"
    EXPORT = "export"
    NONE = "none"


REASONS: Final[Mapping[Treatment, str | None]] = {
    Treatment.STANDARD: None,
    Treatment.ZERO: None,
    Treatment.EXEMPT: "Exempt from tax",
    Treatment.REVERSE_CHARGE: "Reverse charge: the customer accounts for the tax",
    Treatment.EXPORT: "Supplied outside of the seller's tax territory",
    Treatment.NONE: "Not subject to tax",
}


class Taxed(NamedTuple):
    """The tax of a line: its rate in percent, zero but for the treatment `standard`.

    `country` is the one whose tax it is, None where nothing is taxed.
    """

    category: str
    rate: Decimal
    treatment: Treatment
    reason: str | None = None
    country: str | None = None


class Unknown(NamedTuple):
    """Why no tax can be told, and what would mend it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """What decides the place of a sale: `exemption` is what the seller granted, if anything.

    `is_verified`: the customer's tax number was checked, and the evidence kept. `evidence` is what
    else was seen of where the customer is: kinds, such as card, and countries.
    """

    country: str | None
    region: str | None = None
    is_verified: bool = False
    exemption: Treatment | None = None
    reason: str | None = None
    evidence: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate in percent, in force from a day on and before another; no region: everywhere else."""

    country: str
    region: str
    category: str
    valid_from: date
    valid_to: date | None
    percent: Decimal
    is_exempt: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """Where the seller is registered for tax, and since when."""

    country: str
    region: str
    valid_from: date
    valid_to: date | None


class TaxCalculator(Protocol):
    """Tells the tax of a line: our own `TaxBook`, or a provider's answers fetched beforehand."""

    def decide(self, place: Place, category: str, day: date) -> Taxed | Unknown:
        """Return the tax of a line of a category, sold to a place on a day."""
        ...


NOT_TAXED: Final = Taxed(STANDARD, ZERO, Treatment.NONE, REASONS[Treatment.NONE])


@dataclass(frozen=True, slots=True)
class TaxBook:
    """The seller's own tax: where it is registered, and every rate with its dates.

    `evidence_min` is how many pieces of evidence must agree on where a consumer is, the country of
    the account being one.
    """

    seller_country: str
    one_stop_shop: bool
    registrations: tuple[Registration, ...]
    rates: tuple[Rate, ...]
    evidence_min: int = 1
    _by_key: dict[tuple[str, str, str], list[Rate]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """File the rates by where and for what they are."""
        for rate in self.rates:
            self._by_key.setdefault((rate.country, rate.region, rate.category), []).append(rate)

    def decide(self, place: Place, category: str, day: date) -> Taxed | Unknown:
        """Return the tax of a line of a category, sold to a place on a day."""
        if place.exemption is not None:
            return _untaxed(category, place.exemption, place.reason)
        if place.country is None:
            return Unknown("the customer has no country; set it on the customer")
        doubt = self._doubt(place, place.country)
        if doubt is not None:
            return doubt
        if place.country == self.seller_country:
            return self._rated(place, category, day)
        return self._abroad(place, place.country, category, day)

    def _doubt(self, place: Place, country: str) -> Unknown | None:
        """Say why it is not certain where a customer is who is no verified business.

        Two items that do not contradict each other are enough, and where any item contradicts the
        account, its country needs a second one and more than any other country has (Implementing
        Regulation 282/2011, articles 24b(d) and 24f). The reason names no place: it is kept and
        logged in plain.
        """
        if place.is_verified or (not place.evidence and self.evidence_min == 1):
            return None
        counts = {country: 1}
        for _, where in place.evidence:
            counts[where] = counts.get(where, 0) + 1
        others = [count for where, count in counts.items() if where != country]
        if not others and counts[country] >= self.evidence_min:
            return None
        if others and counts[country] > max(1, *others):
            return None
        if not others:
            return Unknown(
                "one more piece of evidence must say what the account's country does;"
                " record it with `convergio tax locate`"
            )
        return Unknown(
            "the evidence of the customer's place contradicts the account's country; see"
            " `convergio tax evidence CUSTOMER`, and correct the country or record what settles it"
            " with `convergio tax locate`"
        )

    def _abroad(self, place: Place, country: str, category: str, day: date) -> Taxed | Unknown:
        """Decide a sale to another country."""
        within = country in EUROPEAN_UNION
        if within and place.is_verified:
            return _untaxed(category, Treatment.REVERSE_CHARGE)
        registered = self._is_registered(country, place.region, day)
        if isinstance(registered, Unknown):
            return registered
        if registered or (within and self.one_stop_shop):
            return self._rated(place, category, day)
        if within and self.seller_country in EUROPEAN_UNION:
            return self._rated(Place(self.seller_country), category, day)
        return _untaxed(category, Treatment.EXPORT)

    def _is_registered(self, country: str, region: str | None, day: date) -> bool | Unknown:
        """Say whether the seller is registered in a country, or in a region of it."""
        there = [
            one
            for one in self.registrations
            if one.country == country and _is_in_force(one.valid_from, one.valid_to, day)
        ]
        if any(one.region in ("", region) for one in there):
            return True
        if there and not region:
            return Unknown(f"tax in {country} depends on the region; set the customer's region")
        return False

    def _rated(self, place: Place, category: str, day: date) -> Taxed | Unknown:
        """Return the rate in force, that of the region before that of the country."""
        country = place.country or ""
        registered = self._is_registered(country, place.region, day)
        if country == self.seller_country:
            if isinstance(registered, Unknown):
                return registered
            if not registered:
                return _untaxed(category, Treatment.NONE)
        for region in dict.fromkeys((place.region or "", "")):
            for rate in self._by_key.get((country, region, category), ()):
                if _is_in_force(rate.valid_from, rate.valid_to, day):
                    return _taxed(rate)
        return Unknown(
            f"no rate of category '{category}' is in force in {country} on {day.isoformat()};"
            " add it with `convergio tax apply`"
        )


def _is_in_force(valid_from: date, valid_to: date | None, day: date) -> bool:
    return valid_from <= day and (valid_to is None or day < valid_to)


def _untaxed(category: str, treatment: Treatment, reason: str | None = None) -> Taxed:
    return Taxed(category, ZERO, treatment, reason or REASONS[treatment])


def _taxed(rate: Rate) -> Taxed:
    if rate.is_exempt:
        exempt = _untaxed(rate.category, Treatment.EXEMPT, rate.reason)
        return exempt._replace(country=rate.country)
    treatment = Treatment.STANDARD if rate.percent else Treatment.ZERO
    return Taxed(rate.category, rate.percent, treatment, rate.reason, rate.country)


class GroupKey(NamedTuple):
    """What lines have in common whose tax is computed as one."""

    category: str
    rate: Decimal
    treatment: Treatment
    inclusive: bool


class TaxRow(NamedTuple):
    """The tax of a group of lines, computed once: `rate` in percent, amounts in minor units.

    `net` is the taxable amount, always without the tax, also where the prices of the lines have it
    inside (`inclusive`): the total of a document is the sum of net and tax over its groups. The
    last two are both in the seller's own currency, where the document is in another one.
    """

    category: str
    rate: Decimal
    treatment: Treatment
    net: int
    tax: int
    reason: str | None
    inclusive: bool
    stated_net: int | None = None
    stated_tax: int | None = None

    @property
    def key(self) -> GroupKey:
        """The group of lines that it is the tax of."""
        return GroupKey(self.category, self.rate, self.treatment, self.inclusive)

    @property
    def priced(self) -> int:
        """What the lines of the group add up to, as priced."""
        return self.net + self.tax if self.inclusive else self.net


class Priced(NamedTuple):
    """What a line comes to after its discount, as priced, and the group that it is in."""

    amount: Money
    key: GroupKey
    reason: str | None = None


def tax_of(amount: Money, rate: Decimal, *, inclusive: bool) -> Money:
    """Return the tax on an amount, or the tax inside it. Rounds: once, half away from zero."""
    if not rate:
        return Money(0, amount.currency)
    part, whole = _share(rate, inclusive=inclusive)
    return Money(divided(amount.minor * part, whole), amount.currency)


@lru_cache(maxsize=1024)
def _share(rate: Decimal, *, inclusive: bool) -> tuple[int, int]:
    """Return a rate as a quotient of whole numbers, of a price without or with its tax."""
    part, whole = rate.as_integer_ratio()
    return part, whole * _HUNDRED + (part if inclusive else 0)


def tax_groups(lines: Iterable[Priced]) -> list[TaxRow]:
    """Return the tax of each group of lines, in the order of their first lines.

    The sum of net and tax over the groups is what is to be paid. Rounds: once a group, on the sum
    of its lines, half away from zero.
    """
    sums: dict[GroupKey, Money] = {}
    reasons: dict[GroupKey, str | None] = {}
    for line in lines:
        key = line.key
        sums[key] = sums[key] + line.amount if key in sums else line.amount
        reasons[key] = reasons.get(key) or line.reason
    return [
        row_of(key, amount, tax_of(amount, key.rate, inclusive=key.inclusive), reasons[key])
        for key, amount in sums.items()
    ]


def row_of(key: GroupKey, amount: Money, tax: Money, reason: str | None) -> TaxRow:
    """Return the tax of a group whose lines add up to an amount, as priced."""
    net = amount.minor - tax.minor if key.inclusive else amount.minor
    why = reason or REASONS[key.treatment]
    return TaxRow(key.category, key.rate, key.treatment, net, tax.minor, why, key.inclusive)
