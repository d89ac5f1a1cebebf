"""Who issued a document, as they were on that day, and what tells its series apart in file names.

One idea: a version of the seller's settings is named by a digest of its content, so whoever issues
knows its id without asking, and the same seller is one row for ever.

A Sistema di Interscambio takes a name of a file once. Five signs of it are ours: a block of ten
million numbers for each series and year. The first series of a year has the block that follows from
the year; any other takes one from the end, and keeps it.
"""

import hashlib
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.infra.settings import Seller
from convergio.kernel.errors import Fault

BLOCKS: Final = 91  # ... of ten million are what five signs of 62 have room for
NUMBERS_A_BLOCK: Final = 10_000_000
_FIRST_YEAR: Final = 2020
_ID_BYTES: Final = 16


class Issued(NamedTuple):
    """What an issue keeps beside a document.

    `seller` is None for one from before it was kept, `block` where none was left.
    """

    seller: Seller | None = None
    block: int | None = None


NOTHING_ISSUED: Final = Issued()


class Version(NamedTuple):
    """A seller's settings as they are kept, as JSON."""

    version_id: UUID
    text: str


def version_of(seller: Seller) -> Version:
    """Return a seller as it is kept: the same content has the same id."""
    content = msgspec.json.encode(seller, order="sorted")
    digest = hashlib.sha256(content).digest()
    return Version(UUID(bytes=digest[:_ID_BYTES]), content.decode())


def read(text: str | None, block: int | None) -> Issued:
    """Return what was kept at an issue. Raises: Fault for a seller that cannot be read."""
    try:
        return Issued(None if text is None else msgspec.json.decode(text, type=Seller), block)
    except msgspec.ValidationError as error:
        detail = f"the seller of a document cannot be read: {error}"
        raise Fault(detail) from error


def block_of(year: int, *, is_note: bool) -> int:
    """Return the block of the first series of a year; beyond the blocks for other centuries."""
    return (year - _FIRST_YEAR) * 2 + is_note
