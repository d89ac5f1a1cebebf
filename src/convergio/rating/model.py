"""What a price can look like, and what rating gives back.

A charge is data as the catalog file and `convergio rate` write it: every number is decimal text,
so no float can slip in and a stored charge reads back letter for letter. A charge that exists is
valid: its prices fit `numeric(38,15)`, its quantities `numeric(38,9)`, its tiers rise and the last
one is open. The text of a message begins with the field, and msgspec adds the path to it.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias

import msgspec

from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money, parse_rate
from convergio.kernel.quantity import parse_quantity

ONE: Final = Decimal(1)
PER_SEAT_BOUND: Final = 10**18


class RatedLine(msgspec.Struct, frozen=True):
    """One step of the arithmetic: `quantity` at `unit` for every `per` makes `amount`.

    `amount` is the line's share of the rounded total, less than one minor unit from its exact
    value. A prorated line is that times `share`. One with a `bound`, a minimum or a maximum, makes
    what brings the sum so far to that, times `share`.
    """

    description: str
    quantity: Decimal
    unit: Decimal
    amount: Money
    per: Decimal = ONE
    share: Fraction | None = None
    bound: Decimal | None = None


class Rated(msgspec.Struct, frozen=True):
    """What a charge comes to: `total` was rounded once, and the lines add up to it."""

    total: Money
    lines: tuple[RatedLine, ...]


class _Priced(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="model"):
    """Bounds that every model may have, for the whole period."""

    minimum: str | None = None
    maximum: str | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that cannot both hold. Raises: ValueError."""
        low = None if self.minimum is None else _price(self.minimum, "minimum")
        high = None if self.maximum is None else _price(self.maximum, "maximum")
        if low is not None and high is not None and low > high:
            raise ValueError("minimum: it is above the maximum; lower it or raise the maximum")


class _Measured(_Priced, frozen=True):
    """A charge on a quantity, of which `included` is free and used up first.

    What is `included_per_seat` is for each seat: `rating.rules.for_seats` makes it that of all.
    """

    included: str = "0"
    included_per_seat: bool | None = None

    def __post_init__(self) -> None:
        """Check the included quantity. Raises: ValueError."""
        super().__post_init__()
        if _quantity(self.included, "included") >= PER_SEAT_BOUND and self.included_per_seat:
            raise ValueError("included: each seat has less than 10 to the power 18; write less")


class Flat(_Priced, frozen=True, kw_only=True, tag="flat"):
    """A fee for the period, whatever the quantity."""

    amount: str

    def __post_init__(self) -> None:
        """Check the fee. Raises: ValueError."""
        super().__post_init__()
        _price(self.amount, "amount")


class Unit(_Measured, frozen=True, kw_only=True, tag="unit"):
    """A price for every `per` units of usage."""

    unit: str
    per: str = "1"

    def __post_init__(self) -> None:
        """Check the price. Raises: ValueError."""
        super().__post_init__()
        _price(self.unit, "unit")
        _positive(self.per, "per")


class Seat(_Measured, frozen=True, kw_only=True, tag="seat"):
    """A fee for the period for each seat beyond the included ones."""

    unit: str

    def __post_init__(self) -> None:
        """Check the fee. Raises: ValueError."""
        super().__post_init__()
        _price(self.unit, "unit")


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to and including `up_to` (None: endless): a fee for entering, a price for each unit."""

    up_to: str | None = None
    flat: str = "0"
    unit: str = "0"

    def __post_init__(self) -> None:
        """Check the numbers. Raises: ValueError."""
        _price(self.flat, "flat")
        _price(self.unit, "unit")


class PercentTier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to and including `up_to` (None: endless): a fee for entering, a part of the amount."""

    up_to: str | None = None
    flat: str = "0"
    percent: str = "0"

    def __post_init__(self) -> None:
        """Check the numbers. Raises: ValueError."""
        _price(self.flat, "flat")
        _price(self.percent, "percent")


class Graduated(_Measured, frozen=True, kw_only=True, tag="graduated"):
    """Each unit at the price of the tier it falls in."""

    tiers: tuple[Tier, ...]
    per: str = "1"

    def __post_init__(self) -> None:
        """Check the tiers. Raises: ValueError."""
        super().__post_init__()
        _rising([tier.up_to for tier in self.tiers])
        _positive(self.per, "per")


class Volume(_Measured, frozen=True, kw_only=True, tag="volume"):
    """Every unit at the price of the one tier that the whole quantity lands in."""

    tiers: tuple[Tier, ...]
    per: str = "1"

    def __post_init__(self) -> None:
        """Check the tiers. Raises: ValueError."""
        super().__post_init__()
        _rising([tier.up_to for tier in self.tiers])
        _positive(self.per, "per")


class Package(_Measured, frozen=True, kw_only=True, tag="package"):
    """A price for each package begun."""

    package_size: str
    package_price: str

    def __post_init__(self) -> None:
        """Check size and price. Raises: ValueError."""
        super().__post_init__()
        _positive(self.package_size, "package_size")
        _price(self.package_price, "package_price")


class Percentage(_Measured, frozen=True, kw_only=True, tag="percentage"):
    """A part of a quantity that is itself an amount, and a fixed fee for the period."""

    percent: str
    fixed: str = "0"

    def __post_init__(self) -> None:
        """Check the numbers. Raises: ValueError."""
        super().__post_init__()
        _price(self.percent, "percent")
        _price(self.fixed, "fixed")


class GraduatedPercentage(_Measured, frozen=True, kw_only=True, tag="graduated_percentage"):
    """Each part of an amount at the percentage of the tier it falls in."""

    tiers: tuple[PercentTier, ...]

    def __post_init__(self) -> None:
        """Check the tiers. Raises: ValueError."""
        super().__post_init__()
        _rising([tier.up_to for tier in self.tiers])


Charge: TypeAlias = (
    Flat | Unit | Seat | Graduated | Volume | Package | Percentage | GraduatedPercentage
)
MODELS: Final = "flat, unit, seat, graduated, volume, package, percentage, graduated_percentage"


def _price(text: str, field: str) -> Decimal:
    """Read a price, not negative. Raises: ValueError, which msgspec reports with its path."""
    try:
        price = parse_rate(text)
    except Invalid as error:
        raise ValueError(f"{field}: {error.detail}") from None
    if text.startswith("-"):
        raise ValueError(f"{field}: a price is not negative; write 0 or more")
    return price


def _quantity(text: str, field: str) -> Decimal:
    try:
        return parse_quantity(text)
    except Invalid as error:
        raise ValueError(f"{field}: {error.detail}") from None


def _positive(text: str, field: str) -> None:
    if not _quantity(text, field):
        raise ValueError(f"{field}: write a number above 0")


def _rising(ends: Sequence[str | None]) -> None:
    """Require tiers that rise from 0 and end with an open one."""
    if not ends or ends[-1] is not None:
        raise ValueError("tiers: end with one whose up_to is null, so that no quantity is unpriced")
    last = Decimal(0)
    for number, end in enumerate(ends[:-1]):
        if end is None:
            raise ValueError(f"tiers[{number}].up_to: only the last is open; write where it ends")
        reach = _quantity(end, f"tiers[{number}].up_to")
        if reach <= last:
            raise ValueError(f"tiers[{number}].up_to: write more than {last:f}, where it begins")
        last = reach
