"""Money: one rounding, half away from zero, and allocations that lose nothing."""

from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.errors import Invalid
from convergio.kernel.money import Amount, Money, allocate, exponent

EXACT = Context(prec=200)
CURRENCIES = st.sampled_from(["usd", "jpy", "bhd", "clf"])
NUMBERS = st.integers(-(10**30), 10**30)


@given(NUMBERS, st.integers(0, 15), CURRENCIES)
def test_rounding_agrees_with_decimal_half_up(number: int, places: int, currency: str) -> None:
    exact = Decimal(number).scaleb(-places, EXACT)
    unit = Decimal(1).scaleb(-exponent(currency))
    expected = exact.quantize(unit, ROUND_HALF_UP, EXACT)
    rounded = Amount(Fraction(exact), currency).round()
    assert Decimal(rounded.text()) == expected


@given(NUMBERS, CURRENCIES)
def test_money_reads_back_from_its_text(minor: int, currency: str) -> None:
    money = Money(minor // 10**10, currency)
    assert Money.parse(money.text(), currency) == money


@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_an_allocation_adds_up_and_each_part_is_within_a_minor_unit(
    minor: int, weights: list[int]
) -> None:
    weights = [*weights, 1]
    parts = allocate(Money(minor, "usd"), weights)
    assert sum(part.minor for part in parts) == minor
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Fraction(minor * weight, sum(weights)) - part.minor) < 1


@given(st.integers(1, 10**22), st.integers(1, 999_999_999_999))
def test_money_finer_than_its_minor_unit_is_refused_however_long(whole: int, part: int) -> None:
    with pytest.raises(Invalid, match="decimals"):
        Money.parse(f"{whole}.000{part:012d}", "usd")
