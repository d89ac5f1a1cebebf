"""Read the times of a trace: how each spelling becomes an exact UTC instant.

Fractions finer than a microsecond are cut, never rounded, so that no row moves into the next
period. A time without a zone is read in the zone that the mapping names.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from convergio.kernel.periods import local, parse_instant

WORDS: Final = ("rfc3339", "unix", "unix_ms", "relative_ms")
Read = Callable[[str], datetime]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,18}))?", re.ASCII)
_FINE: Final = re.compile(r"(?<=\.\d{6})\d+", re.ASCII)
_PLAIN: Final = re.compile(r"%Y-%m-%d([ T])%H:%M:%S(\.%f)?")
_SAMPLE: Final = datetime(2024, 11, 15, 16, 57, 50, tzinfo=UTC)
_MICROSECONDS_SIZE: Final = 26


def reader(format_: str, zone: ZoneInfo, origin: datetime | None) -> Read:
    """Return the function that reads one time; it raises ValueError or OverflowError."""
    if format_ == "rfc3339":
        return parse_instant
    if format_ == "unix":
        return lambda text: _after(_EPOCH, text, digits=6)
    if format_ in {"unix_ms", "relative_ms"}:
        start = (origin or _EPOCH).astimezone(UTC)
        return lambda text: _after(start, text, digits=3)
    plain = _PLAIN.fullmatch(format_)
    return _iso(plain, zone) if plain else _patterned(format_, zone)


def is_format(format_: str) -> bool:
    """Say whether the format is a known word, or a strptime pattern that gives a whole date."""
    if format_ in WORDS:
        return True
    try:
        read = datetime.strptime(_SAMPLE.strftime(format_), format_)  # noqa: DTZ007 - date only
    except (ValueError, re.error):
        return False
    return read.date() == _SAMPLE.date()


def _after(start: datetime, text: str, *, digits: int) -> datetime:
    """Return the instant so many units after the start; a unit is 10 ** `digits` microseconds."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise ValueError
    part = (found[3] or "")[:digits].ljust(digits, "0")
    count = int(found[2]) * 10**digits + int(part)
    return start + timedelta(microseconds=-count if found[1] else count)


def _iso(plain: re.Match[str], zone: ZoneInfo) -> Read:
    """Return a reader of ISO spelling, several times as fast as strptime and as strict."""
    fraction = r"\.[0-9]+" if plain[2] else ""
    shape = re.compile(rf"\d{{4}}-\d\d-\d\d{plain[1]}\d\d:\d\d:\d\d{fraction}", re.ASCII)

    def read(text: str) -> datetime:
        if shape.fullmatch(text) is None:
            raise ValueError
        cut = text[:_MICROSECONDS_SIZE].ljust(_MICROSECONDS_SIZE, "0") if fraction else text
        return _in_zone(datetime.fromisoformat(cut), zone)

    return read


def _patterned(format_: str, zone: ZoneInfo) -> Read:
    def read(text: str) -> datetime:
        cut = _FINE.sub("", text) if "%f" in format_ else text
        return _in_zone(datetime.strptime(cut, format_), zone)  # noqa: DTZ007 - zoned at once

    return read


def _in_zone(found: datetime, zone: ZoneInfo) -> datetime:
    if found.tzinfo is not None:
        return found.astimezone(UTC)
    return found.replace(tzinfo=UTC) if zone.key == "UTC" else local(found, zone)
