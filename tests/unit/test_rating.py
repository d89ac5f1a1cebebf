"""What each price model bills, with zero usage, within bounds and for a part of a period."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from convergio.kernel.errors import Fault, Invalid
from convergio.kernel.periods import Period
from convergio.rating import Charge, Rated, proration, rate

Fields = dict[str, Any]
HALF = Fraction(1, 2)
TIERS = [{"up_to": "5", "flat": "100", "unit": "0"}, {"up_to": None, "unit": "1"}]
START = datetime(2024, 1, 1, tzinfo=UTC)


def charge(**fields: object) -> Charge:
    priced: Charge = msgspec.convert(fields, Charge)
    return priced


def rated(quantity: str, share: Fraction | None = None, **fields: object) -> Rated:
    return rate(charge(**fields), Decimal(quantity), currency="usd", proration=share)


def total(quantity: str, share: Fraction | None = None, **fields: object) -> str:
    return rated(quantity, share, **fields).total.text()


def rows(priced: Rated) -> list[tuple[str, str, str]]:
    return [
        (line.description, f"{line.quantity} x {line.unit}", line.amount.text())
        for line in priced.lines
    ]


# --- models ---------------------------------------------------------------------------------------


def test_a_flat_fee_ignores_the_quantity() -> None:
    assert [total(used, model="flat", amount="6.99") for used in ("0", "1", "7")] == ["6.99"] * 3


def test_included_units_are_used_up_first() -> None:
    pro: Fields = {"model": "unit", "unit": "0.01", "included": "500"}
    assert rows(rated("1164", **pro)) == [
        ("Included", "500 x 0", "0.00"),
        ("Usage", "664 x 0.01", "6.64"),
    ]
    assert [total(used, **pro) for used in ("0", "499.5", "500", "501")] == [
        "0.00", "0.00", "0.00", "0.01",
    ]  # fmt: skip


def test_a_price_for_a_million_tokens_is_exact_until_the_end() -> None:
    priced = rated("1333333", model="unit", unit="0.0375", per="1000000")
    assert priced.total.text() == "0.05"
    assert priced.lines[0].per == 1_000_000


def test_a_per_that_has_no_decimal_quotient_is_exact() -> None:
    assert total("3000000", model="unit", unit="1", per="3") == "1000000.00"
    assert total("0.015", model="unit", unit="1", per="3") == "0.01"


def test_graduated_tiers_are_inclusive_and_entering_one_bills_its_flat_fee() -> None:
    tiers = [
        {"up_to": "10", "unit": "1"},
        {"up_to": "20", "flat": "7", "unit": "2"},
        {"flat": "9"},
    ]
    found = [total(used, model="graduated", tiers=tiers) for used in ("10", "10.5", "20", "20.1")]
    assert found == ["10.00", "18.00", "37.00", "46.00"]


def test_graduated_tiers_begin_after_the_included_quantity() -> None:
    assert total("17", model="graduated", tiers=TIERS, included="10") == "102.00"


def test_volume_prices_the_whole_quantity_in_the_tier_it_lands_in() -> None:
    tiers = [{"up_to": "10", "unit": "10"}, {"up_to": "50", "unit": "8"}, {"unit": "6"}]
    found = [total(used, model="volume", tiers=tiers) for used in ("10", "10.5", "11", "51")]
    assert found == ["100.00", "84.00", "88.00", "306.00"]


def test_packages_are_rounded_up_after_the_included_quantity() -> None:
    package: Fields = {
        "model": "package",
        "package_size": "10",
        "package_price": "15",
        "included": "5",
    }
    found = [total(used, **package) for used in ("5", "5.000000001", "15", "16")]
    assert found == ["0.00", "15.00", "15.00", "30.00"]


def test_a_percentage_has_a_fixed_fee_and_bounds() -> None:
    fields: Fields = {"model": "percentage", "percent": "2.9", "fixed": "0.30", "maximum": "5"}
    assert rows(rated("100", **fields)) == [
        ("Fixed fee", "1 x 0.30", "0.30"),
        ("2.9%", "100 x 0.029", "2.90"),
    ]
    assert total("1000", **fields) == "5.00"


def test_a_graduated_percentage_takes_each_part_at_its_own() -> None:
    tiers = [{"up_to": "1000", "percent": "3"}, {"flat": "1", "percent": "2.5"}]
    assert total("1500", model="graduated_percentage", tiers=tiers) == "43.50"


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({"model": "flat", "amount": "6.99"}, "6.99"),
        ({"model": "unit", "unit": "1"}, "0.00"),
        ({"model": "unit", "unit": "1", "minimum": "10"}, "10.00"),
        ({"model": "seat", "unit": "20"}, "0.00"),
        ({"model": "graduated", "tiers": TIERS}, "100.00"),
        ({"model": "volume", "tiers": TIERS}, "100.00"),
        ({"model": "package", "package_size": "10", "package_price": "15"}, "0.00"),
        ({"model": "percentage", "percent": "2", "fixed": "0.30"}, "0.30"),
        ({"model": "graduated_percentage", "tiers": [{"flat": "2", "percent": "1"}]}, "2.00"),
    ],
    ids=lambda value: value.get("model") if isinstance(value, dict) else None,
)
def test_zero_usage_bills_the_fees_of_the_period_on_a_line(fields: Fields, due: str) -> None:
    priced = rated("0", **fields)
    assert priced.total.text() == due
    assert priced.lines


# --- one rounding and the lines -------------------------------------------------------------------


def test_a_half_is_rounded_away_from_zero_once() -> None:
    assert total("1", model="unit", unit="0.005") == "0.01"
    assert total("3", model="unit", unit="0.005") == "0.02"
    tiers = [{"up_to": "1", "unit": "0.004"}, {"unit": "0.004"}]
    assert total("2", model="graduated", tiers=tiers) == "0.01"


def test_the_lines_share_the_rounded_total_by_largest_remainder() -> None:
    tiers = [{"up_to": "1", "unit": "0.333"}, {"up_to": "2", "unit": "0.334"}, {"unit": "0.333"}]
    priced = rated("3", model="graduated", tiers=tiers)
    assert priced.total.text() == "1.00"
    assert [line.amount.text() for line in priced.lines] == ["0.33", "0.34", "0.33"]


def test_currencies_round_to_their_own_minor_unit() -> None:
    unit = charge(model="unit", unit="10.5005")
    found = [rate(unit, Decimal(1), currency=code).total.text() for code in ("jpy", "usd", "bhd")]
    assert found == ["11", "10.50", "10.501"]


def test_a_minimum_is_a_line_of_its_own() -> None:
    priced = rated("3", model="unit", unit="10", minimum="100")
    assert rows(priced) == [("Usage", "3 x 10", "30.00"), ("Minimum", "1 x 70.00", "70.00")]


def test_a_maximum_cuts_the_lines_that_cross_it() -> None:
    tiers = [*TIERS[:1], {"up_to": "10", "unit": "2"}, {"unit": "1"}]
    priced = rated("12", model="graduated", tiers=tiers, maximum="104")
    assert [line.amount.text() for line in priced.lines] == ["100.00", "0.00", "4.00", "0.00"]
    assert priced.lines[2].description == "Tier 2 (up to 10), up to the maximum"


def test_no_digit_of_a_long_quantity_is_lost() -> None:
    long = "12345678901234567890123456789.123456789"
    priced = rated(long, model="unit", unit="1", included="0.000000001")
    assert priced.lines[1].quantity == Decimal("12345678901234567890123456789.123456788")
    assert priced.total.text() == "12345678901234567890123456789.12"


# --- proration ------------------------------------------------------------------------------------


def test_proration_scales_fees_seats_and_bounds_but_no_unit_price() -> None:
    assert total("1", HALF, model="flat", amount="9.99") == "5.00"
    assert total("3", HALF, model="seat", unit="20") == "30.00"
    assert total("9", HALF, model="unit", unit="2") == "18.00"
    assert total("9", HALF, model="unit", unit="2", minimum="100") == "50.00"
    assert total("9", HALF, model="unit", unit="2", maximum="10") == "5.00"
    assert total("9", HALF, model="package", package_size="5", package_price="3") == "6.00"
    assert total("100", HALF, model="percentage", percent="2", fixed="1") == "2.50"
    assert total("22", HALF, model="graduated", tiers=TIERS) == "67.00"
    assert total("22", HALF, model="volume", tiers=TIERS) == "22.00"


def test_a_prorated_line_says_so() -> None:
    priced = rated("22", Fraction(31, 91), model="graduated", tiers=TIERS)
    assert priced.total.text() == "51.07"
    assert rows(priced) == [
        ("Tier 1 (up to 5), flat fee (34.07% of the period)", "1 x 100", "34.07"),
        ("Tier 1 (up to 5)", "5 x 0", "0.00"),
        ("Tier 2 (above 5)", "17 x 1", "17.00"),
    ]


def test_a_prorated_included_quantity_is_rounded_up_but_not_above_itself() -> None:
    unit: Fields = {"model": "unit", "unit": "1"}
    assert total("500", Fraction(15, 31), included="500", **unit) == "258.00"
    assert total("500", Fraction(1, 1000), included="500", **unit) == "499.00"
    assert total("500", HALF, included="0.5", **unit) == "499.50"


def test_included_seats_stay_whole_so_that_halves_add_up() -> None:
    seats: Fields = {"model": "seat", "unit": "10", "included": "5"}
    assert total("10", **seats) == "50.00"
    assert total("10", HALF, **seats) == "25.00"


def test_an_empty_service_bills_nothing_at_all() -> None:
    charges: list[Fields] = [
        {"model": "flat", "amount": "20", "minimum": "5"},
        {"model": "unit", "unit": "20", "minimum": "5"},
        {"model": "seat", "unit": "20"},
        {"model": "graduated", "tiers": TIERS},
        {"model": "package", "package_size": "5", "package_price": "3"},
    ]
    for fields in charges:
        assert total("7", Fraction(0), **fields) == "0.00"


def test_proration_counts_utc_seconds() -> None:
    full = Period(START, START + timedelta(days=91))
    service = Period(START, START + timedelta(days=31))
    assert proration(full, service) == Fraction(31, 91)
    assert proration(full, Period(START, START)) == 0
    assert proration(full, full) == 1


def test_a_service_outside_its_period_is_refused() -> None:
    full = Period(START, START + timedelta(days=1))
    with pytest.raises(Invalid, match="service"):
        proration(full, Period(START, START + timedelta(days=2)))
    with pytest.raises(Invalid, match="full"):
        proration(Period(START, START), Period(START, START))
    with pytest.raises(Fault):
        rated("1", Fraction(3, 2), model="flat", amount="1")


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["-1", "NaN", "Infinity", "0.0000000001"])
def test_a_quantity_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        rated(text, model="unit", unit="1")
    assert caught.value.field == "quantity"


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        rate(charge(model="flat", amount="1"), Decimal(1), currency="xxx")
    assert caught.value.field == "currency"


@pytest.mark.parametrize(
    "text",
    ["0.0000000000000001", "1e3", "-1", "+1", ".5", "1.", "01", "", " 1", "1\n", "NaN", "1,5",
     "1" * 24, "\u0661"],
)  # fmt: skip
def test_a_price_that_is_not_plain_decimal_text_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="unit: "):
        charge(model="unit", unit=text)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"model": "graduated", "tiers": []}, "tiers: "),
        ({"model": "graduated", "tiers": [{"up_to": "5"}]}, "tiers: "),
        ({"model": "volume", "tiers": [{"up_to": None}, {"up_to": None}]}, r"tiers\[0\].up_to: "),
        ({"model": "volume", "tiers": [{"up_to": "0"}, {}]}, r"tiers\[0\].up_to: "),
        ({"model": "volume", "tiers": [{"up_to": "5"}, {"up_to": "5"}, {}]}, r"tiers\[1\].up_to: "),
        ({"model": "volume", "tiers": [{"unit": "-1"}]}, "unit: "),
        ({"model": "graduated_percentage", "tiers": [{"up_to": "5"}]}, "tiers: "),
        ({"model": "unit", "unit": "1", "per": "0"}, "per: "),
        ({"model": "unit", "unit": "1", "included": "-1"}, "included: "),
        ({"model": "package", "package_size": "0", "package_price": "1"}, "package_size: "),
        ({"model": "unit", "unit": "1", "minimum": "2", "maximum": "1"}, "minimum: "),
        ({"model": "flat", "amount": "1", "included": "1"}, "included"),
        ({"model": "unit", "unit": "1", "discount": "1"}, "discount"),
        ({"model": "unit", "unit": 1.5}, "float"),
        ({"model": "staircase"}, "staircase"),
    ],
)
def test_a_charge_that_is_not_valid_is_refused_by_name(fields: Fields, why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        charge(**fields)
