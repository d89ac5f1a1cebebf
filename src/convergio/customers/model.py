"""What a customer is. Personal data are a value of their own, so that few can come across them."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Customer:
    """An account: its id here, and the key by which the seller's own system knows it."""

    customer_id: UUID
    customer_key: str
    currency: str
    country: str | None
    locale: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Personal:
    """A customer's personal data in the clear. Never log it; the repr shows nothing."""

    name: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    address: str | None = field(default=None, repr=False)
    tax_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SealedPersonal:
    """The same, as it is kept."""

    sealed_name: bytes | None = field(default=None, repr=False)
    sealed_email: bytes | None = field(default=None, repr=False)
    sealed_address: bytes | None = field(default=None, repr=False)
    sealed_tax_id: bytes | None = field(default=None, repr=False)
    email_index: bytes | None = field(default=None, repr=False)
