"""The one place of the client that reads the clock, and the ids that begin with its time."""

import os
from datetime import UTC, datetime
from uuid import UUID


def now() -> datetime:
    """Return the present, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the client is an edge of its caller's process


def new_id(instant: datetime) -> UUID:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    milliseconds = int(instant.timestamp() * 1000) & ((1 << 48) - 1)
    random = int.from_bytes(os.urandom(10), "big")
    high = milliseconds << 16 | 0x7000 | (random >> 68 & 0xFFF)
    return UUID(int=high << 64 | 0b10 << 62 | random & ((1 << 62) - 1))


def text(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
