"""Money is a whole number of minor units; a price times a quantity is exact until one rounding.

`Money` is what is owed and paid. `Rate` is a price. `Rate.times(quantity)` gives an `Amount`, an
exact fraction of major units, whose only way back to `Money` is `round()`: half away from zero,
once a line. No float is accepted or produced anywhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from convergio.kernel.errors import Invalid, require

# ISO 4217 (2026-01-01): currencies whose minor unit is not 2. Metals, funds and testing codes have
# no minor unit and cannot be billed in.
_EXPONENTS: Final = (
    dict.fromkeys("bif clp djf gnf isk jpy kmf krw pyg rwf ugx uyi vnd vuv xaf xof xpf".split(), 0)
    | dict.fromkeys("bhd iqd jod kwd lyd omr tnd".split(), 3)
    | {"clf": 4, "uyw": 4}
)
_TWO: Final = frozenset(
    "aed afn all amd aoa ars aud awg azn bam bbd bdt bmd bnd bob bov brl bsd btn bwp byn bzd cad "
    "cdf che chf chw cny cop cou crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs "
    "gip gmd gtq gyd hkd hnl htg huf idr ils inr irr jmd kes kgs khr kpw kyd kzt lak lbp lkr lrd "
    "lsl mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn mxv myr mzn nad ngn nio nok npr nzd pab "
    "pen pgk php pkr pln qar ron rsd rub sar sbd scr sdg sek sgd shp sle sos srd ssp stn svc syp "
    "szl thb tjs tmt top try ttd twd tzs uah usd usn uyu uzs ves wst xcd yer zar zmw zwg ved "
    "xcg".split()
)
AMOUNT_MAX: Final = 10**15  # minor units of what one request may state: no sum of many overflows
_AMOUNT_TEXT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,22})(?:\.[0-9]{1,15})?", re.ASCII)


def exponent(currency: str) -> int:
    """Return how many decimals the currency's minor unit has (ISO 4217).

    Raises: Invalid when the code, three lower-case letters, is not a currency one can bill in.
    """
    if currency in _TWO:
        return 2
    try:
        return _EXPONENTS[currency]
    except KeyError:
        detail = f"'{currency[:20]}' is not an ISO 4217 currency; write a code such as usd or eur"
        raise Invalid(detail, code="unknown_currency", field="currency") from None


def divided(numerator: int, denominator: int) -> int:
    """Return a quotient as a whole number. Rounds: half away from zero, as `Amount.round`."""
    require(denominator > 0, "a quotient has a denominator above zero")
    whole = (abs(numerator) * 2 + denominator) // (2 * denominator)
    return -whole if numerator < 0 else whole


def _half_away(value: Fraction) -> int:
    """Round to a whole number, a half away from zero."""
    return divided(value.numerator, value.denominator)


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """A whole number of minor units of one currency; it may be negative, as a credit is."""

    minor: int
    currency: str

    @classmethod
    def zero(cls, currency: str) -> "Money":
        """Return nothing of the currency."""
        return cls(0, currency)

    @classmethod
    def parse(cls, text: str, currency: str, *, field: str = "amount") -> "Money":
        """Read decimal text in major units.

        Raises: Invalid naming the field, also for a part of a minor unit.
        """
        # A Fraction, for a Decimal product keeps 28 digits and would round a longer amount.
        amount = Fraction(parse_rate(text, field=field)) * 10 ** exponent(currency)
        if amount.denominator != 1:
            detail = f"'{text}' has more decimals than {currency} has; write whole minor units"
            raise Invalid(detail, code="amount_too_fine", field=field)
        return cls(int(amount), currency)

    def text(self) -> str:
        """Return major units as decimal text with the currency's own decimals: `6.99`, `500`."""
        places = exponent(self.currency)
        sign = "-" if self.minor < 0 else ""
        if not places:
            return f"{sign}{abs(self.minor)}"
        whole, part = divmod(abs(self.minor), 10**places)
        return f"{sign}{whole}.{part:0{places}d}"

    def __add__(self, other: "Money") -> "Money":
        """Add money of the same currency."""
        _same(self.currency, other.currency)
        return Money(self.minor + other.minor, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        """Subtract money of the same currency."""
        _same(self.currency, other.currency)
        return Money(self.minor - other.minor, self.currency)

    def __neg__(self) -> "Money":
        """Return the same amount the other way."""
        return Money(-self.minor, self.currency)


@dataclass(frozen=True, slots=True)
class Amount:
    """An exact number of major units, before its one rounding."""

    value: Fraction
    currency: str

    def __add__(self, other: "Amount") -> "Amount":
        """Add exactly."""
        _same(self.currency, other.currency)
        return Amount(self.value + other.value, self.currency)

    def __sub__(self, other: "Amount") -> "Amount":
        """Subtract exactly."""
        _same(self.currency, other.currency)
        return Amount(self.value - other.value, self.currency)

    def __mul__(self, factor: Fraction | Decimal | int) -> "Amount":
        """Scale exactly, for proration and quantities."""
        return Amount(self.value * Fraction(factor), self.currency)

    def round(self) -> Money:
        """Return minor units. Rounds: half away from zero (DESIGN 4)."""
        return Money(_half_away(self.value * 10 ** exponent(self.currency)), self.currency)


@dataclass(frozen=True, slots=True)
class Rate:
    """A price in major units for `per` units of quantity: $0.0375 per 1,000,000 tokens."""

    value: Decimal
    currency: str
    per: Decimal = Decimal(1)

    def times(self, quantity: Decimal | int) -> Amount:
        """Return the exact price of a quantity."""
        value = Fraction(self.value) * Fraction(quantity)
        return Amount(value if self.per == 1 else value / Fraction(self.per), self.currency)


def parse_rate(text: str, *, field: str = "amount") -> Decimal:
    """Read a price as decimal text of at most 23 digits and 15 decimals.

    A finer price is refused and never rounded (RULES 14), and so are exponents, NaN and blanks.
    Raises: Invalid naming the field.
    """
    if not isinstance(text, str) or _AMOUNT_TEXT.fullmatch(text) is None:
        detail = 'write a decimal number as text, such as "0.01", with at most 15 decimals'
        raise Invalid(detail, code="bad_amount", field=field)
    return Decimal(text)


def allocate(money: Money, weights: Sequence[int | Decimal | Fraction]) -> list[Money]:
    """Split money by weights without losing a minor unit, by largest remainder.

    The parts add up to the whole; each differs from its exact share by less than one minor unit;
    among equal remainders the earlier part is served first. Raises: Fault for negative weights,
    or when all of them are zero and there is something to split.
    """
    shares = [Fraction(weight) for weight in weights]
    total = sum(shares, Fraction(0))
    require(all(share >= 0 for share in shares), "a weight of an allocation is negative")
    require(total > 0 or money.minor == 0, "an allocation needs a weight above zero")
    if money.minor == 0:
        return [Money(0, money.currency) for _ in shares]
    size, sign = abs(money.minor), -1 if money.minor < 0 else 1
    exact = [size * share / total for share in shares]
    floors = [int(part) for part in exact]
    left = size - sum(floors)
    order = sorted(range(len(exact)), key=lambda place: (floors[place] - exact[place], place))
    for place in order[:left]:
        floors[place] += 1
    return [Money(sign * part, money.currency) for part in floors]


def _same(one: str, other: str) -> None:
    require(one == other, f"{one} and {other} cannot be added: one currency a sum")
