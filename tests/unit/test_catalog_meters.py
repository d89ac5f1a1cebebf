"""What a meter counts: the reference that ingest's compiled meters must agree with."""

from decimal import Decimal

import pytest

from convergio.catalog.model import Filter, MeterTerms, Missing, Unusable
from convergio.catalog.rules import kept, property_text, quantity, selects


def meter(
    *filters: Filter, value: str | None = "quantity", default: str | None = None
) -> MeterTerms:
    return MeterTerms(
        key="questions",
        name="Questions",
        event_type="ai.request",
        aggregation="count" if value is None else "sum",
        value=value,
        default=None if default is None else Decimal(default),
        filters=filters,
    )


DONE = Filter("status", "not_in", ("failed", "pending"))


def test_a_meter_selects_only_its_own_event_type() -> None:
    assert selects(meter(), "ai.request", {})
    assert not selects(meter(), "ai.requests", {})


@pytest.mark.parametrize(
    ("condition", "properties", "selected"),
    [
        (DONE, {"status": "succeeded"}, True),
        (DONE, {"status": "failed"}, False),
        (DONE, {"status": "FAILED"}, True),
        (DONE, {}, True),
        (DONE, {"status": None}, True),
        (DONE, {"status": ["failed"]}, True),
        (Filter("model", "in", ("a", "b")), {"model": "a"}, True),
        (Filter("model", "in", ("a", "b")), {"model": "c"}, False),
        (Filter("model", "in", ("a", "b")), {}, False),
        (Filter("model", "in", ("a",)), {"model": ["a"]}, False),
        (Filter("cached", "in", ("true",)), {"cached": True}, True),
        (Filter("cached", "in", ("true",)), {"cached": "true"}, True),
        (Filter("cached", "in", ("true",)), {"cached": 1}, False),
        (Filter("size", "in", ("1",)), {"size": 1}, True),
        (Filter("size", "in", ("1",)), {"size": Decimal("1.00")}, True),
        (Filter("size", "in", ("1",)), {"size": 1.0}, True),
        (Filter("size", "in", ("0.5",)), {"size": Decimal("5E-1")}, True),
        (Filter("size", "in", ("1",)), {"size": "1.0"}, False),
        (Filter("images", "exists", ("true",)), {"images": 0}, True),
        (Filter("images", "exists", ("true",)), {"images": False}, True),
        (Filter("images", "exists", ("true",)), {"images": None}, False),
        (Filter("images", "exists", ("true",)), {}, False),
        (Filter("images", "exists", ("false",)), {}, True),
        (Filter("images", "exists", ("false",)), {"images": 2}, False),
    ],
)
def test_filters_compare_text_and_take_null_for_absent(
    condition: Filter, properties: dict[str, object], selected: bool
) -> None:
    assert selects(meter(condition), "ai.request", properties) is selected


def test_every_filter_must_pass() -> None:
    both = meter(DONE, Filter("images", "exists", ("true",)))
    assert selects(both, "ai.request", {"status": "succeeded", "images": 1})
    assert not selects(both, "ai.request", {"status": "succeeded"})
    assert not selects(both, "ai.request", {"status": "failed", "images": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is ", "as it is "),
        (True, "true"),
        (False, "false"),
        (-3, "-3"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.0"), "0"),
        (0.1, "0.1"),
        (None, None),
        ({}, None),
        (Decimal("NaN"), None),
        (float("inf"), None),
        (Decimal("1E+999999"), None),
        (10**200, None),
    ],
)
def test_a_property_has_one_text_or_none(value: object, text: str | None) -> None:
    assert property_text(value) == text


def test_a_count_adds_one_whatever_the_event_holds() -> None:
    assert quantity(meter(value=None), {"quantity": "many"}) == Decimal(1)


@pytest.mark.parametrize("value", [2, "2", Decimal(2), Decimal("2.000")])
def test_a_sum_adds_whole_numbers_decimal_text_and_decimals(value: object) -> None:
    assert quantity(meter(), {"quantity": value}) == Decimal(2)


def test_an_absent_value_counts_as_the_default_and_is_missing_without_one() -> None:
    assert quantity(meter(default="1"), {}) == Decimal(1)
    assert quantity(meter(default="1"), {"quantity": None}) == Decimal(1)
    assert quantity(meter(), {"other": 5}) == Missing("quantity")


@pytest.mark.parametrize(
    "value",
    [
        -1,
        "-1",
        "1e3",
        "NaN",
        "",
        " 1",
        "1.0000000001",
        1.0,
        True,
        [1],
        {"a": 1},
        Decimal("NaN"),
        10**18,
        "1" + "0" * 18,
        10**200,
        "\u0661",
        "1\n",
    ],
)
def test_a_wrong_value_is_unusable_and_the_default_does_not_hide_it(value: object) -> None:
    found = quantity(meter(default="1"), {"quantity": value})
    assert isinstance(found, Unusable)
    assert found.property == "quantity"
    assert found.reason


def test_kept_properties_are_the_declared_ones_and_what_meters_read() -> None:
    found = kept({"ai.request": frozenset({"model"}), "ping": frozenset()}, [meter(DONE)])
    assert found == {
        "ai.request": frozenset({"model", "quantity", "status"}),
        "ping": frozenset(),
    }
