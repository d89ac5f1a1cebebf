"""Quantities are decimals of at most 29 whole digits and nine decimals, as `numeric(38,9)` holds.

They come in and go out as text. A number that would lose digits on the way is refused.
"""

import re
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import reduce
from typing import Final

from convergio.kernel.errors import Invalid

DECIMALS: Final = 9
_EXACT: Final = Context(prec=80, traps=[Inexact, InvalidOperation])
_TEXT: Final = re.compile(r"(?:0|[1-9][0-9]{0,28})(?:\.[0-9]{1,9})?", re.ASCII)


def parse_quantity(text: str, *, field: str = "quantity") -> Decimal:
    """Read a quantity as plain decimal text, not negative. Raises: Invalid naming the field."""
    if not isinstance(text, str) or _TEXT.fullmatch(text) is None:
        detail = (
            'write a decimal number that is not negative, as text such as "2.5", '
            "with at most 29 whole digits and 9 decimals"
        )
        raise Invalid(detail, code="bad_quantity", field=field)
    return Decimal(text)


def quantity_text(quantity: Decimal | int) -> str:
    """Return plain decimal text: no exponent, no trailing zeros, no negative zero."""
    if isinstance(quantity, int):
        return str(quantity)
    text = format(quantity, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def add_up(quantities: Iterable[Decimal]) -> Decimal:
    """Return the exact sum; Python's own addition rounds at 28 digits without a word."""
    return reduce(_EXACT.add, quantities, Decimal(0))


def subtract(whole: Decimal, part: Decimal) -> Decimal:
    """Return the exact difference."""
    return _EXACT.subtract(whole, part)


def multiply(quantity: Decimal, times: Decimal) -> Decimal:
    """Return the exact product."""
    return _EXACT.multiply(quantity, times)
