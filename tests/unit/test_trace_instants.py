"""Times of a trace: every spelling gives its exact instant, or none."""

from datetime import UTC, datetime

import pytest

from convergio.kernel.errors import Invalid
from convergio.kernel.periods import zone
from convergio.simulation import instants

PLAIN = "%Y-%m-%d %H:%M:%S"
FINE = "%Y-%m-%d %H:%M:%S.%f"


def read(text: str, format_: str, name: str = "UTC", origin: datetime | None = None) -> datetime:
    return instants.reader(format_, zone(name), origin)(text)


@pytest.mark.parametrize(
    ("text", "format_", "expected"),
    [
        ("2024-11-15 16:57:50", PLAIN, "2024-11-15T16:57:50+00:00"),
        ("2024-11-15T16:57:50", "%Y-%m-%dT%H:%M:%S", "2024-11-15T16:57:50+00:00"),
        ("2023-11-16 18:15:46.6805909", FINE, "2023-11-16T18:15:46.680590+00:00"),
        ("2023-11-16 23:59:59.999999999", FINE, "2023-11-16T23:59:59.999999+00:00"),
        ("2023-11-16 18:15:46.5", FINE, "2023-11-16T18:15:46.500000+00:00"),
        ("17/May/2015:10:05:03 +0200", "%d/%b/%Y:%H:%M:%S %z", "2015-05-17T08:05:03+00:00"),
        ("16.11.2023 18:15:46.1234567", "%d.%m.%Y %H:%M:%S.%f", "2023-11-16T18:15:46.123456+00:00"),
        ("2024-11-15", "%Y-%m-%d", "2024-11-15T00:00:00+00:00"),
        ("2024-11-15T16:57:50.1234567+01:00", "rfc3339", "2024-11-15T15:57:50.123456+00:00"),
        ("1082040961", "unix", "2004-04-15T14:56:01+00:00"),
        ("1082040961.1234567", "unix", "2004-04-15T14:56:01.123456+00:00"),
        ("-1.5", "unix", "1969-12-31T23:59:58.500000+00:00"),
        ("1082040961123", "unix_ms", "2004-04-15T14:56:01.123000+00:00"),
        ("1082040961123.4567", "unix_ms", "2004-04-15T14:56:01.123456+00:00"),
    ],
)
def test_each_spelling_gives_its_instant(text: str, format_: str, expected: str) -> None:
    assert instants.is_format(format_)
    assert read(text, format_).isoformat() == expected


def test_relative_times_count_from_their_origin() -> None:
    origin = datetime(2024, 7, 1, tzinfo=UTC)
    assert read("3536999", "relative_ms", origin=origin).isoformat() == (
        "2024-07-01T00:58:56.999000+00:00"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-07-01 12:00:00", "2024-07-01T10:00:00+00:00"),
        ("2024-03-31 02:30:00", "2024-03-31T01:30:00+00:00"),
        ("2024-10-27 02:30:00", "2024-10-27T00:30:00+00:00"),
    ],
)
def test_a_local_time_in_a_gap_moves_forward_and_in_a_fold_is_the_first(
    text: str, expected: str
) -> None:
    assert read(text, PLAIN, "Europe/Rome").isoformat() == expected


@pytest.mark.parametrize(
    ("text", "format_"),
    [
        ("2024-11-15T16:57:50", PLAIN),
        ("2024-W46-5 16:57:50", PLAIN),
        ("2024-11-15 16:57+01", PLAIN),
        ("2024-11-15 24:00:00", PLAIN),
        ("2024-02-30 00:00:00", PLAIN),
        ("2024-11-15 16:57:50.1", PLAIN),
        ("2024-11-15 16:57:50", FINE),
        ("2024-11-15 16:57:50.", FINE),
        ("٢٠٢٤-11-15 16:57:50", PLAIN),
        (" 2024-11-15 16:57:50", PLAIN),
        ("1e9", "unix"),
        ("nan", "unix"),
        ("", "unix"),
        ("999999999999999999", "unix"),
        ("999999999999999999", "unix_ms"),
        ("0001-01-01T00:00:00+14:00", "rfc3339"),
        ("0001-01-01 00:00:00 +1400", "%Y-%m-%d %H:%M:%S %z"),
        ("2024-11-15T16:57:50", "rfc3339"),
    ],
)
def test_anything_else_is_refused(text: str, format_: str) -> None:
    with pytest.raises((ValueError, OverflowError, Invalid)):
        read(text, format_)


@pytest.mark.parametrize("format_", ["", "iso", "%H:%M:%S", "%Q", "%Y-%m", "%m-%d", "seconds", "%"])
def test_a_format_must_give_a_whole_date(format_: str) -> None:
    assert not instants.is_format(format_)
