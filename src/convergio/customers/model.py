"""What a customer is. Personal data are a value of their own, so that few can come across them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, TypedDict
from uuid import UUID

# Why the seller charges a customer no tax, whatever they buy.
TaxExempt = Literal["exempt", "reverse_charge"]


@dataclass(frozen=True, slots=True)
class Customer:
    """An account: its id here, and the key by which the seller's own system knows it.

    `tax_id_verified_at` is when somebody last saw that the tax id is real and theirs; an id that
    nobody checked changes no tax (RULES 13).
    """

    customer_id: UUID
    customer_key: str
    currency: str
    country: str | None
    locale: str
    created_at: datetime
    updated_at: datetime
    tax_exempt: TaxExempt | None = None
    tax_exempt_reason: str | None = None
    tax_id_verified_at: datetime | None = None


class TaxNumber(NamedTuple):
    """A number, in the country whose it is taken to be: what a check of it looks at."""

    country: str | None
    number: str | None


class Details(TypedDict, total=False):
    """What is known of a customer beside key and currency, each field by its name."""

    name: str | None
    email: str | None
    address: str | None
    tax_id: str | None
    street: str | None
    postal_code: str | None
    city: str | None
    region: str | None
    sdi_code: str | None
    pec: str | None
    purchase_order: str | None
    country: str | None
    locale: str
    tax_exempt: str | None
    tax_exempt_reason: str | None


@dataclass(frozen=True, slots=True)
class Personal:
    """A customer's personal data in the clear. Never log it; the repr shows nothing.

    `address` is free text; `street`, `postal_code`, `city` and `region` are what e-invoices ask
    for, and win where both are there. `sdi_code` and `pec` route an Italian e-invoice.
    """

    name: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    address: str | None = field(default=None, repr=False)
    tax_id: str | None = field(default=None, repr=False)
    street: str | None = field(default=None, repr=False)
    postal_code: str | None = field(default=None, repr=False)
    city: str | None = field(default=None, repr=False)
    region: str | None = field(default=None, repr=False)
    sdi_code: str | None = field(default=None, repr=False)
    pec: str | None = field(default=None, repr=False)
    purchase_order: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SealedPersonal:
    """The same, as it is kept: the address and the routing each as one sealed JSON object."""

    sealed_name: bytes | None = field(default=None, repr=False)
    sealed_email: bytes | None = field(default=None, repr=False)
    sealed_address: bytes | None = field(default=None, repr=False)
    sealed_tax_id: bytes | None = field(default=None, repr=False)
    email_index: bytes | None = field(default=None, repr=False)
    sealed_postal: bytes | None = field(default=None, repr=False)
    sealed_routing: bytes | None = field(default=None, repr=False)
