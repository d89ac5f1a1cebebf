"""Rating against an oracle in plain fractions, and the laws that any price has to keep."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from convergio.kernel.money import exponent
from convergio.rating import Charge, owed, rate

CURRENCIES: Final = st.sampled_from(["usd", "jpy", "bhd", "clf"])
SHARES: Final = st.one_of(
    st.none(),
    st.sampled_from([Fraction(0), Fraction(1)]),
    st.fractions(0, 1, max_denominator=31 * 86_400),
)
Fields = dict[str, Any]


def texts(places: int, high: int) -> st.SearchStrategy[str]:
    """Draw plain decimal text from 0 to `high`."""
    return st.builds(
        lambda number, scale: f"{Decimal(number).scaleb(-scale):f}" if scale else str(number),
        st.integers(0, high),
        st.integers(0, places),
    )


PRICES: Final = texts(15, 10**6)
QUANTITIES: Final = texts(9, 10**6)
POSITIVE: Final = QUANTITIES.filter(Decimal)


@st.composite
def tiers(draw: st.DrawFn, price: str) -> list[Fields]:
    ends = sorted(draw(st.sets(POSITIVE.map(Decimal), max_size=4)))
    reaches = [f"{end:f}" for end in ends]
    return [
        {"up_to": reach, "flat": draw(PRICES), price: draw(PRICES)} for reach in [*reaches, None]
    ]


def bounded(fields: Fields, bounds: list[str | None]) -> Fields:
    low, high = bounds
    if low is not None and high is not None and Decimal(low) > Decimal(high):
        low, high = high, low
    return fields | {"minimum": low, "maximum": high}


def model(name: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Fields]:
    drawn = st.fixed_dictionaries({"model": st.just(name), **fields})
    bounds = st.lists(st.none() | PRICES, min_size=2, max_size=2)
    return st.builds(bounded, drawn, bounds)


MONOTONE: Final = [
    model("unit", unit=PRICES, per=POSITIVE, included=QUANTITIES),
    model("seat", unit=PRICES, included=QUANTITIES),
    model("graduated", tiers=tiers("unit"), per=POSITIVE, included=QUANTITIES),
    model("package", package_size=POSITIVE, package_price=PRICES, included=QUANTITIES),
    model("percentage", percent=PRICES, fixed=PRICES, included=QUANTITIES),
    model("graduated_percentage", tiers=tiers("percent"), included=QUANTITIES),
]
CHARGES: Final = st.one_of(
    *MONOTONE,
    model("flat", amount=PRICES),
    model("volume", tiers=tiers("unit"), per=POSITIVE, included=QUANTITIES),
)


def charge(fields: Fields) -> Charge:
    priced: Charge = msgspec.convert(fields, Charge)
    return priced


# --- the oracle: RULES.md in fractions, with none of the arithmetic of rating ---------------------


def oracle(fields: Fields, quantity: Fraction, share: Fraction) -> Fraction:
    name = fields["model"]
    free = Fraction(fields.get("included", 0))
    if name != "seat":
        free = min(free, Fraction(-((-free * share).__floor__())))
    rest = max(Fraction(0), quantity - (free if share < 1 else Fraction(fields.get("included", 0))))
    value = ORACLES[name](fields, rest, share)
    if share == 0:
        return Fraction(0)
    if fields["minimum"] is not None:
        value = max(value, Fraction(fields["minimum"]) * share)
    if fields["maximum"] is not None:
        value = min(value, Fraction(fields["maximum"]) * share)
    return value


def graduated(fields: Fields, rest: Fraction, share: Fraction) -> Fraction:
    price, per = ("unit", fields["per"]) if "per" in fields else ("percent", 100)
    value, begin = Fraction(0), Fraction(0)
    for place, tier in enumerate(fields["tiers"]):
        end = rest if tier["up_to"] is None else min(rest, Fraction(tier["up_to"]))
        if place == 0 or rest > begin:
            value += Fraction(tier["flat"]) * share
            value += max(Fraction(0), end - begin) * Fraction(tier[price]) / Fraction(per)
        begin = Fraction(tier["up_to"] or 0)
    return value


def volume(fields: Fields, rest: Fraction, share: Fraction) -> Fraction:
    tier = next(
        tier for tier in fields["tiers"] if tier["up_to"] is None or rest <= Fraction(tier["up_to"])
    )
    return Fraction(tier["flat"]) * share + rest * Fraction(tier["unit"]) / Fraction(fields["per"])


def packages(fields: Fields, rest: Fraction, _: Fraction) -> Fraction:
    whole, part = divmod(rest, Fraction(fields["package_size"]))
    return (whole + bool(part)) * Fraction(fields["package_price"])


ORACLES: Final[dict[str, Callable[[Fields, Fraction, Fraction], Fraction]]] = {
    "flat": lambda fields, _, share: Fraction(fields["amount"]) * share,
    "unit": lambda fields, rest, _: rest * Fraction(fields["unit"]) / Fraction(fields["per"]),
    "seat": lambda fields, rest, share: rest * Fraction(fields["unit"]) * share,
    "graduated": graduated,
    "graduated_percentage": graduated,
    "volume": volume,
    "package": packages,
    "percentage": lambda fields, rest, share: (
        Fraction(fields["fixed"]) * share + rest * Fraction(fields["percent"]) / 100
    ),
}


def half_up(value: Fraction) -> int:
    """Round a value that is not negative, a half upwards."""
    return (value + Fraction(1, 2)).__floor__()


# --- the laws -------------------------------------------------------------------------------------


@given(CHARGES, QUANTITIES, SHARES, CURRENCIES)
def test_rating_agrees_with_the_oracle(
    fields: Fields, quantity: str, share: Fraction | None, currency: str
) -> None:
    expected = oracle(fields, Fraction(quantity), Fraction(1) if share is None else share)
    priced, used = charge(fields), Decimal(quantity)
    exact = owed(priced, used, currency=currency, proration=share)
    assert exact.value == expected
    rated = rate(priced, used, currency=currency, proration=share)
    assert rated.total.minor == half_up(expected * 10 ** exponent(currency))


@given(CHARGES, QUANTITIES, SHARES, CURRENCIES)
def test_the_lines_add_up_to_the_total_and_are_never_negative(
    fields: Fields, quantity: str, share: Fraction | None, currency: str
) -> None:
    rated = rate(charge(fields), Decimal(quantity), currency=currency, proration=share)
    assert rated.lines
    assert sum(line.amount.minor for line in rated.lines) == rated.total.minor
    assert all(line.amount.minor >= 0 for line in rated.lines)
    assert {line.amount.currency for line in rated.lines} == {currency}


@given(CHARGES, QUANTITIES, CURRENCIES)
def test_an_unbounded_line_is_within_a_minor_unit_of_its_own_arithmetic(
    fields: Fields, quantity: str, currency: str
) -> None:
    free = fields | {"minimum": None, "maximum": None}
    for line in rate(charge(free), Decimal(quantity), currency=currency).lines:
        exact = Fraction(line.quantity) * Fraction(line.unit) / Fraction(line.per)
        assert abs(exact * 10 ** exponent(currency) - line.amount.minor) < 1


@given(CHARGES, QUANTITIES, SHARES)
def test_the_lines_hold_the_whole_quantity(
    fields: Fields, quantity: str, share: Fraction | None
) -> None:
    if fields["model"] in {"flat", "package"}:
        return
    rated = rate(charge(fields), Decimal(quantity), currency="usd", proration=share)
    fees = ("flat fee", "Fixed fee", "Minimum")
    used = [line for line in rated.lines if not any(fee in line.description for fee in fees)]
    assert sum(line.quantity for line in used) == Decimal(quantity)


@given(st.one_of(MONOTONE), QUANTITIES, QUANTITIES, SHARES)
def test_more_usage_never_costs_less(
    fields: Fields, one: str, other: str, share: Fraction | None
) -> None:
    less, more = sorted([Decimal(one), Decimal(other)])
    priced = charge(fields)
    low = rate(priced, less, currency="usd", proration=share).total
    assert low.minor <= rate(priced, more, currency="usd", proration=share).total.minor


@given(CHARGES, QUANTITIES, st.lists(st.integers(1, 10**6), min_size=1, max_size=8))
def test_the_parts_of_a_split_fee_add_up_to_the_whole_before_rounding(
    fields: Fields, quantity: str, seconds: list[int]
) -> None:
    if fields["model"] not in {"flat", "seat"}:
        return
    priced, whole = charge(fields), sum(seconds)
    parts = [
        owed(priced, Decimal(quantity), currency="usd", proration=Fraction(part, whole)).value
        for part in seconds
    ]
    assert sum(parts) == owed(priced, Decimal(quantity), currency="usd").value


@given(st.one_of(MONOTONE), QUANTITIES, QUANTITIES, SHARES, SHARES)
def test_a_longer_service_never_has_less_included(
    fields: Fields, quantity: str, included: str, one: Fraction | None, other: Fraction | None
) -> None:
    if fields["model"] == "seat":
        return
    priced = charge(fields | {"included": included})
    shares = sorted(Fraction(1) if share is None else share for share in (one, other))
    free = [
        sum(
            line.quantity
            for line in rate(priced, Decimal(quantity), currency="usd", proration=share).lines
            if line.description == "Included"
        )
        for share in shares
    ]
    assert free[0] <= free[1] <= Decimal(included)


@given(CHARGES)
def test_a_charge_reads_back_from_its_json_as_it_was(fields: Fields) -> None:
    priced = charge(fields)
    assert msgspec.json.decode(msgspec.json.encode(priced), type=Charge) == priced


@given(PRICES, PRICES, QUANTITIES, QUANTITIES)
def test_a_percentage_is_a_graduated_percentage_of_one_tier(
    percent: str, fixed: str, included: str, quantity: str
) -> None:
    tier = {"up_to": None, "flat": fixed, "percent": percent}
    one: Fields = {"model": "percentage", "percent": percent, "fixed": fixed}
    other: Fields = {"model": "graduated_percentage", "tiers": [tier]}
    totals = {
        rate(charge(fields | {"included": included}), Decimal(quantity), currency="usd").total
        for fields in (one, other)
    }
    assert len(totals) == 1
