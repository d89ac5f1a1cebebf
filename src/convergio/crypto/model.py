"""What a key and a sealed field are. Secrets never show in a repr, so never in a log line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

# Data keys of this owner belong to the installation as a whole: the root of the blind indexes.
INSTALLATION: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """A key that only wraps data keys; it lives in the environment or in a file of its own."""

    kek_id: str
    fingerprint: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A wrapped data key as a row. The owner is a customer, or None for the retention key."""

    customer_id: UUID | None
    key_version: int
    kek_id: str
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataKeys:
    """The unwrapped keys of one owner, and when they were read."""

    newest: int
    secrets: Mapping[int, bytes] = field(repr=False)
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed field lives. A field that is moved to another place does not open."""

    owner: UUID | None
    table: str
    column: str
    row: UUID | str


@dataclass(frozen=True, slots=True)
class PersonalColumn:
    """One line of the data map: a column with personal data, how it is kept and why."""

    table: str
    column: str
    sealed_under: Literal["customer", "retention"] | None
    purpose: str
