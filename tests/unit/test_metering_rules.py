"""Quantities in billionths, windows that segments cut, and what fits under a limit."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convergio.catalog.model import Filter
from convergio.kernel.periods import Interval
from convergio.metering import rules
from convergio.metering.model import DEFAULT_SEGMENT, Limit, Schedule, Segment, WindowRow
from convergio.metering.schedule import window_at, with_segment
from tests.fakes.instants import instants
from tests.fakes.meters import CUSTOMER, FINISHED, NOW, meter, schedule

INSTANTS = instants(1972, 2200)
ZONES = st.sampled_from(
    ["UTC", "Europe/Rome", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu"]
)


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    starts = sorted(draw(st.lists(INSTANTS, max_size=4, unique=True)))
    return [DEFAULT_SEGMENT] + [
        Segment(
            anchor=draw(INSTANTS),
            time_zone=draw(ZONES),
            interval=draw(st.sampled_from(Interval)),
            starts_at=start,
            limits=draw(
                st.sampled_from(
                    [{}, {"questions": Limit()}, {"questions": Limit(interval=Interval.DAY)}]
                )
            ),
        )
        for start in starts
    ]


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**9 - 1))
def test_billionths_keep_every_digit_of_a_decimal_text(whole: int, part: int) -> None:
    text = f"{whole}.{part:09d}"
    found = rules.nanos(text)
    assert found == whole * 10**9 + part
    assert rules.nanos_decimal(found) == Decimal(text)
    assert rules.nanos(rules.nanos_text(found)) == found


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (-0, 0),
        (7, 7 * 10**9),
        (10**18 - 1, (10**18 - 1) * 10**9),
        ("0", 0),
        ("0.000000001", 1),
        ("999999999999999999.999999999", 10**27 - 1),
        (Decimal("2.50"), 2_500_000_000),
        (Decimal("1E+2"), 100 * 10**9),
    ],
)
def test_a_quantity_is_read(value: object, expected: int) -> None:
    assert rules.nanos(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        -1, 10**18, 2**63, 10**39, True, False, None, 1.5, [], {}, b"1",
        "", "-1", "-0", "+1", "01", "1.", ".5", "1e5", "1E5", " 1", "1 ", "1\n", "1_0", "0x1",
        "NaN", "sNaN", "Infinity", "1,5", "0.0000000001", "1000000000000000000", "\u0661", "1" * 40,
        Decimal(-1), Decimal("-0.0"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"),
        Decimal("1E-10"), Decimal("1E-30"), Decimal("1E+18"), Decimal("1E+308"),
    ],
)  # fmt: skip
def test_qty_what_is_no_quantity_is_refused_and_never_guessed(value: object) -> None:
    assert rules.nanos(value) is None


@given(INSTANTS)
def test_microseconds_are_exact_both_ways(moment: datetime) -> None:
    assert rules.instant(rules.microseconds(moment)) == moment


@given(segments(), INSTANTS)
def test_a_window_holds_its_moment_and_crosses_no_segment(
    found: list[Segment], moment: datetime
) -> None:
    laid = schedule(*found)
    window = window_at(laid, "questions", moment)
    assert window.contains(moment)
    starts = [one.starts_at for one in found if one.starts_at is not None]
    assert not [start for start in starts if window.start < start < window.end]


@given(segments(), INSTANTS)
def test_windows_tile_time_and_every_moment_of_one_finds_the_same(
    found: list[Segment], moment: datetime
) -> None:
    laid = schedule(*found)
    window = window_at(laid, "questions", moment)
    tick = timedelta(microseconds=1)
    assert window_at(laid, "questions", window.start) == window
    assert window_at(laid, "questions", window.end - tick) == window
    assert window_at(laid, "questions", window.end).start == window.end
    assert window_at(laid, "questions", window.start - tick).end == window.start


def test_a_meter_s_own_interval_wins_over_its_segment_s() -> None:
    laid = schedule(
        Segment(
            anchor=datetime(2025, 1, 1, tzinfo=UTC),
            limits={"images": Limit(interval=Interval.DAY)},
        )
    )
    assert window_at(laid, "questions", NOW).seconds == 31 * 86_400
    assert window_at(laid, "images", NOW).seconds == 86_400


def in_force(laid: Schedule, moment: datetime) -> Segment:
    begun = [one for one in laid.segments if one.starts_at is None or one.starts_at <= moment]
    return begun[-1]


@given(segments(), st.one_of(st.none(), INSTANTS))
def test_a_new_segment_replaces_everything_from_its_start_on(
    found: list[Segment], start: datetime | None
) -> None:
    new = Segment(anchor=NOW, time_zone="Europe/Rome", interval=Interval.DAY, starts_at=start)
    laid = with_segment(schedule(*found), new)
    assert laid.version == 2
    assert laid.segments[-1] == new
    for moment in (NOW, datetime(1980, 1, 1, tzinfo=UTC), datetime(2190, 1, 1, tzinfo=UTC)):
        if start is None or moment >= start:
            assert in_force(laid, moment) == new
        else:
            assert in_force(laid, moment) == in_force(schedule(*found), moment)


def window(limit: str | None, used: str = "0", reserved: str = "0") -> WindowRow:
    return WindowRow(
        customer_id=CUSTOMER,
        meter_id=1,
        start_at=NOW,
        end_at=NOW + timedelta(days=1),
        version=1,
        used=Decimal(used),
        reserved=Decimal(reserved),
        quota_limit=None if limit is None else Decimal(limit),
        included=None,
    )


AMOUNTS = st.decimals(0, 20, places=3)


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.lists(AMOUNTS, max_size=8))
def test_what_fits_never_passes_the_limit_and_nothing_that_fits_is_refused(
    limit: Decimal, used: Decimal, reserved: Decimal, asks: list[Decimal]
) -> None:
    row = window(str(limit), str(used), str(reserved))
    answers = rules.fitting(row, asks)
    held = used + reserved
    for quantity, fits in zip(asks, answers, strict=True):
        assert fits == (held + quantity <= limit)
        held += quantity if fits else 0
    assert not any(answers) or held <= limit


def test_without_a_limit_everything_fits() -> None:
    assert rules.fitting(window(None, "5"), [Decimal(10**18)] * 3) == [True] * 3


@pytest.mark.parametrize(
    "filters",
    [
        (),
        (FINISHED,),
        (Filter("status", "in", ("ok", "succeed")),),
        (Filter("images", "exists", ("true",)),),
        (Filter("images", "exists", ("false",)),),
        (Filter("quantity", "exists", ("true",)),),
        (Filter("status", "in", ("ok",)), Filter("status", "exists", ("true",))),
        (Filter("status", "exists", ("true",)), Filter("status", "in", ("ok",))),
        (Filter("status", "in", ("failed", "ok")), Filter("status", "not_in", ("failed",))),
    ],
)
@pytest.mark.parametrize("quantity", ["1", "0.5", "0", "999999999999999999.999999999"])
def test_a_committed_reservation_has_an_event_that_its_meter_counts(
    filters: tuple[Filter, ...], quantity: str
) -> None:
    counted = meter(filters=filters)
    data = rules.event_data(counted, Decimal(quantity))
    assert data is not None
    found = rules.compile_meter(counted).measure(data)
    assert found is not None
    assert rules.nanos_decimal(found) == Decimal(quantity)


def test_no_event_is_made_up_for_what_its_meter_cannot_count() -> None:
    counting = meter(value=None)
    assert rules.event_data(counting, Decimal(1)) is not None
    assert rules.event_data(counting, Decimal(2)) is None
    assert rules.event_data(meter(), Decimal(10**18)) is None
    never = (Filter("status", "in", ("failed",)), Filter("status", "not_in", ("failed",)))
    assert rules.event_data(meter(filters=never), Decimal(1)) is None
