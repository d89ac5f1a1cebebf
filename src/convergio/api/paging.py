"""Pages by key: a cursor holds where the page before ended, and means nothing to its holder.

It is the texts of that row's key in base64url. A page that is full has a `next`; sent back as
`after` it goes on behind that row, whatever was added or removed meanwhile.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from convergio.kernel.errors import Invalid

_TEXT_MAX: Final = 1_000
Row = TypeVar("Row")
Pair = tuple[UUID, UUID]
START: Final[Pair] = (UUID(int=0), UUID(int=0))


def following(rows: Sequence[Row], limit: int, key: Callable[[Row], object]) -> str | None:
    """Return the cursor behind a full page; None when there is nothing to go on with."""
    if len(rows) < limit:
        return None
    return urlsafe_b64encode(msgspec.json.encode(key(rows[-1]))).decode().rstrip("=")


def pair(cursor: str | None) -> Pair:
    """Return the two ids of a cursor; without one, the place before every row. Raises: Invalid."""
    return START if cursor is None else _read(cursor, tuple[UUID, UUID])


def one(cursor: str | None) -> UUID | None:
    """Return the id of a cursor, if there is one. Raises: Invalid."""
    return None if cursor is None else _read(cursor, UUID)


def moment(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Return the instant and the id of a cursor, if there is one. Raises: Invalid."""
    found = None if cursor is None else _read(cursor, tuple[datetime, UUID])
    if found is not None and found[0].tzinfo is None:
        raise _bad()
    return found


def _read(cursor: str, kind: type[Row]) -> Row:
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        if len(cursor) > _TEXT_MAX or not cursor.isascii():
            raise _bad()
        return msgspec.json.decode(urlsafe_b64decode(padded), type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise _bad() from None


def _bad() -> Invalid:
    return Invalid("write `next` of the page before", code="bad_cursor", field="after")
