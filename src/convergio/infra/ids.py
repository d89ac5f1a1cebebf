"""UUIDv7 inside, TypeIDs outside: `cus_01j...` says what it names and sorts by time.

An id is never a secret (SECURITY-NOTES 1.1, 11.5.1). The text form follows the TypeID
specification 0.3: a prefix, an underscore, 26 characters of Crockford's base 32 in lower case.
"""

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from convergio.kernel.errors import Invalid

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_TEXT_SIZE: Final = 26
_BITS: Final = 128
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_RANDOM_MAX: Final = (1 << 74) - 1
_STEP_MAX: Final = (1 << 40) - 1


class _Last:
    """The last id that this process made: its millisecond, and its 74 bits beside it."""

    lock = threading.Lock()
    milliseconds = -1
    random = 0


def new_id(now: datetime) -> UUID:
    """Return a UUIDv7 (RFC 9562) whose time is `now` and whose other 74 bits are random.

    Of one process and millisecond the later id is the larger (method 2 of its section 6.2), so
    what is made together, such as the items of a plan, keeps its order.
    """
    milliseconds = (now - _EPOCH) // _MILLISECOND
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM_MAX
    with _Last.lock:
        if milliseconds == _Last.milliseconds:
            later = _Last.random + 1 + (random & _STEP_MAX)
            random = later if later <= _RANDOM_MAX else random
        _Last.milliseconds, _Last.random = milliseconds, random
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (random >> 62) << 64
    return UUID(int=value | 0b10 << 62 | (random & ((1 << 62) - 1)))


def new_ids(now: datetime, count: int) -> list[UUID]:
    """Return so many ids as `new_id` does, in ascending order, for a bulk of rows."""
    milliseconds = (now - _EPOCH) // _MILLISECOND
    fixed = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | 0b10 << 62
    random = os.urandom(10 * count)
    low, places = (1 << 62) - 1, range(0, 10 * count, 10)
    values = [int.from_bytes(random[place : place + 10], "big") for place in places]
    ids = sorted(fixed | (one >> 68 & 0xFFF) << 64 | one & low for one in values)
    return [UUID(int=one) for one in ids]


def typeid(prefix: str, value: UUID) -> str:
    """Return the public form of an id."""
    number, letters = value.int, []
    for _ in range(_TEXT_SIZE):
        letters.append(_ALPHABET[number & 31])
        number >>= 5
    return f"{prefix}_{''.join(reversed(letters))}"


def parse_typeid(prefix: str, text: str) -> UUID:
    """Read a public id. Raises: Invalid when it is not one with this prefix."""
    number = -1
    if text.startswith(f"{prefix}_") and len(text) == len(prefix) + 1 + _TEXT_SIZE:
        number = 0
        for letter in text[len(prefix) + 1 :]:
            value = _VALUES.get(letter, -1)
            number = -1 if value < 0 or number < 0 else number << 5 | value
    if number < 0 or number.bit_length() > _BITS:
        detail = f"'{text[:60]}' is not an id; it starts with {prefix}_ and has 26 characters more"
        raise Invalid(detail, code="bad_id", field="id")
    return UUID(int=number)
