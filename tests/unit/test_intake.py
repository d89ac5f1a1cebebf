"""The pure half of ingest: which events may count, as what, and which are refused and why."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.catalog.model import Filter
from convergio.metering import intake, rules
from convergio.metering.model import AHEAD_SECONDS_MAX, EPOCH, Event, Verdict
from tests.fakes.meters import CUSTOMER, NOW, customer, event, meter, prepared, types, verdict

AHEAD = NOW + timedelta(seconds=AHEAD_SECONDS_MAX, microseconds=1)
EXISTS = Filter("images", "exists", ("true",))


def reason(found: Verdict | None) -> str | None:
    assert found is None or found.status == "rejected"
    return found.reason if found else None


@pytest.mark.parametrize(
    ("one", "expected", "field"),
    [
        (event(""), "bad_id", "id"),
        (event("x" * 256), "bad_id", "id"),
        (event("x" * 10_000), "bad_id", "id"),
        (event("a\x00"), "bad_id", "id"),
        (event("a\nb"), "bad_id", "id"),
        (event("\ud800"), "bad_id", "id"),
        (event("\x1b[31m"), "bad_id", "id"),
        (event(source=""), "bad_id", "source"),
        (event(source="\x00"), "bad_id", "source"),
        (event(source="s" * 256), "bad_id", "source"),
        (event(type="nope"), "unknown_type", "type"),
        (event(type="ai.request\x00"), "unknown_type", "type"),
        (event(subject="ghost"), "unknown_customer", "subject"),
        (event(subject=""), "unknown_customer", "subject"),
        (event(subject="\x00"), "unknown_customer", "subject"),
        (event(subject="\ud800"), "unknown_customer", "subject"),
        (event(subject="x" * 10_000), "unknown_customer", "subject"),
        (event(time=AHEAD), "time_ahead", "time"),
        (event(time=NOW + timedelta(hours=1)), "time_ahead", "time"),
        (event(time=NOW - timedelta(days=35, microseconds=1)), "time_too_old", "time"),
        (event(time=NOW.replace(year=2015)), "time_too_old", "time"),
        (event(time=datetime.max.replace(tzinfo=UTC)), "time_ahead", "time"),
        (event(time=datetime.min.replace(tzinfo=UTC)), "time_too_old", "time"),
        (event(data={"quantity": -1}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": True}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": "NaN"}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": "sNaN"}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": "Infinity"}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": 10**18}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": 2**63}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": 10**39}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": Decimal("1E-30")}), "bad_quantity", "data.quantity"),
        (event(data={"quantity": Decimal("1E+308")}), "bad_property", "data.quantity"),
        (event(data={"quantity": []}), "bad_property", "data.quantity"),
        (event(data={"quantity": {}}), "bad_property", "data.quantity"),
        (event(data={"model": "a\x00b"}), "bad_property", "data.model"),
        (event(data={"model": "\ud800"}), "bad_property", "data.model"),
        (event(data={"model": ["x"]}), "bad_property", "data.model"),
        (event(data={"model": "x" * 5_000}), "too_large", "data"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_rejected_naming_its_field(one: Event, expected: str, field: str) -> None:
    found = verdict(one)
    assert reason(found) == expected
    assert found is not None
    assert found.field == field
    assert found.detail


@pytest.mark.parametrize(
    "one",
    [
        event(),
        event("x" * 255),
        event("id with spaces, ünïcode"),
        event("01  2345-6789-7abc-8def-0123456789ab"),
        event(time=None),
        event(time=NOW + timedelta(seconds=AHEAD_SECONDS_MAX)),
        event(time=NOW - timedelta(days=35)),
        event(data={}),
        event(data={"quantity": 0}),
        event(data={"quantity": "999999999999999999.999999999"}),
        event(data={"quantity": Decimal("0.1")}),
        event(data={"undeclared": {"deep": [["\x00"]]}, "\ud800": "\ud800"}),
    ],
)
def test_a_right_event_may_count(one: Event) -> None:
    windows = customer(1)
    start = rules.microseconds(datetime(2024, 12, 1, tzinfo=UTC))
    windows.add(intake.Window(windows, 1, start, windows.windows[1][0].start, 1))
    found = prepared(one, customers={"acme": windows})
    assert found.verdicts == [None]
    assert len(found.rows) == 1


@pytest.mark.parametrize(
    "text",
    [
        "4242 4242 4242 4242",
        "4242424242424242",
        "4242-4242-4242-4242",
        "pan=5555555555554444;",
        "card 3782 822463 10005 please",
        "6011111111111117",
        "30569309025904",
        "1 4242 4242 4242 4242",
        "x4242424242424242x",
        "card-4242424242424242",
    ],
)
def test_pan_01_a_card_number_in_a_kept_property_is_refused_and_not_repeated(text: str) -> None:
    found = verdict(event(data={"model": text}))
    assert reason(found) == "card_number"
    assert text not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424241",
        "1700000000006",  # milliseconds since 1970, which pass Luhn's check
        "1734567890123456785",  # nanoseconds, likewise
        "0b2b56f4-446a-4f3c-a716-446655440000",
        "e58ed763-928c-4155-9716-446655440009",
        "gpt-4-0125-preview",
        "0000000000000000",
        "2025-01-15 12:00:00.123456",
    ],
)
def test_what_is_no_card_number_is_not_taken_for_one(text: str) -> None:
    assert verdict(event(data={"model": text})) is None


def test_undeclared_properties_are_dropped_and_declared_ones_kept() -> None:
    one = event(data={"model": "m", "quantity": Decimal("2.50"), "secret": "x", "images": True})
    found = prepared(one)
    values = intake.row_values(one, found.rows[0], now=NOW)
    assert values[5] == '{"model":"m","quantity":"2.5","images":true}'


@given(
    st.text(min_size=1, max_size=80).filter(str.isprintable),
    st.text(min_size=1, max_size=80).filter(str.isprintable),
    st.dictionaries(st.sampled_from(["model", "status"]), st.text("ab\u00e9\u4e2d", max_size=9)),
    st.booleans(),
)
def test_a_row_holds_what_its_event_said(
    event_id: str, source: str, data: dict[str, str], timed: bool
) -> None:
    one = event(event_id, source=source, data=data, time=NOW if timed else None)
    found = prepared(one)
    values = intake.row_values(one, found.rows[0], now=NOW)
    assert values[0] == CUSTOMER
    assert values[1].bytes == rules.event_key(source.encode(), event_id)
    assert values[2:5] == ("ai.request", NOW, NOW)
    assert values[6:] == (source, event_id)


def test_a_rejected_event_leaves_no_row_and_the_others_stand() -> None:
    found = prepared(event("a"), event(""), event("b", type="nope"), event("c"))
    assert [one.reason if one else None for one in found.verdicts] == [
        None, "bad_id", "unknown_type", None,
    ]  # fmt: skip
    assert sorted(row.place for row in found.rows) == [0, 3]


def test_a_missing_value_rejects_only_where_the_filter_selects_the_event() -> None:
    kinds = types(meter("images", value="images", default=None, filters=[EXISTS]))
    assert verdict(event(data={"model": "m"}), kinds=kinds) is None
    strict = types(meter("images", value="images", default=None, filters=[]))
    assert reason(verdict(event(data={"model": "m"}), kinds=strict)) == "bad_quantity"
    skipped = types(
        meter("images", value="images", default=None, filters=[Filter("status", "in", ("ok",))])
    )
    assert verdict(event(data={"status": "failed"}), kinds=skipped) is None


def test_a_type_that_no_meter_selects_is_accepted_and_counts_nothing() -> None:
    found = prepared(event(data={"status": "failed", "quantity": 5}))
    assert found.verdicts == [None]
    assert [row.adds for row in found.rows] == [()]
    assert [row.adds for row in prepared(event(), kinds=types()).rows] == [()]


def test_one_event_may_feed_several_meters() -> None:
    kinds = types(meter(), meter("calls", value=None, meter_id=2))
    found = prepared(
        event(data={"quantity": "2.5"}), kinds=kinds, customers={"acme": customer(1, 2)}
    )
    (questions, *_), (calls, *_) = added = found.rows[0].adds
    assert (questions.meter_id, calls.meter_id) == (1, 2)
    assert [one[2] for one in added] == [2_500_000_000, 10**9]


def test_unknown_customers_and_unopened_windows_are_asked_for_and_not_judged() -> None:
    found = prepared(
        event("a", subject="new"),
        event("b", time=NOW - timedelta(days=20)),
        event("c"),
    )
    assert found.unknown == {"new"}
    assert [(one.customer.customer_id, one.meter.key) for one in found.unopened] == [
        (CUSTOMER, "questions")
    ]
    assert found.verdicts == [None, None, None]


def test_an_event_twice_in_a_batch_is_one_row_and_names_its_first() -> None:
    found = prepared(event("a"), event("b"), event("a", data={"quantity": 2}), event("a"))
    assert len(found.rows) == 2
    assert found.repeats == [(2, 0), (3, 0)]


def test_the_same_id_of_another_source_or_customer_is_another_event() -> None:
    other = intake.Customer(UUID(int=8))
    found = prepared(
        event("a"),
        event("a", source="other"),
        event("a", subject="beta"),
        customers={"acme": customer(1), "beta": other},
    )
    assert found.repeats == []
    assert len(found.rows) == 3


def test_rows_come_in_the_order_of_their_keys_whatever_the_order_of_events() -> None:
    events = [event(f"e{number}") for number in range(200)]
    shuffled = random.Random(5).sample(events, len(events))
    rows = prepared(*events).rows
    assert [row.key for row in rows] == sorted(row.key for row in rows)
    assert [row.data for row in prepared(*shuffled).rows] == [row.data for row in rows]


def test_a_customer_s_newest_copy_of_a_window_replaces_the_older() -> None:
    known = customer(1)
    old = known.windows[1][0]
    known.add(intake.Window(known, 1, old.start, old.end, 2))
    (only,) = known.windows[1]
    assert only.version == 2


def test_a_window_that_is_read_again_unchanged_stays_the_same_object() -> None:
    """A batch that is being prepared in another thread must not meet two copies of one window."""
    known = customer(1)
    old = known.windows[1][0]
    known.add(intake.Window(known, 1, old.start, old.end, old.version))
    assert known.windows[1][0] is old


def test_windows_are_found_by_moment_half_open() -> None:
    known = customer(1)
    only = known.windows[1][0]
    assert known.window(1, only.start) is only
    assert known.window(1, only.end - 1) is only
    assert known.window(1, only.end) is None
    assert known.window(1, only.start - 1) is None
    assert known.window(2, only.start) is None


def test_the_epoch_is_no_special_time() -> None:
    one = event(time=EPOCH + timedelta(days=800))
    found = prepared(one, back=NOW - EPOCH)
    assert found.verdicts == [None]


@given(st.dictionaries(st.sampled_from(["quantity", "model"]), st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.floats(), st.decimals(),
    st.lists(st.integers(), max_size=2),
)))  # fmt: skip
def test_no_property_whatever_breaks_the_loop(data: dict[str, Any]) -> None:
    found = prepared(event("a", data=data), event("b"))
    assert found.verdicts[1] is None
    assert {row.place for row in found.rows} >= {1}
