"""What the tax file says, and what is kept of a check of a customer's tax number.

The file is the whole truth: applying it replaces what was stored, and documents that are issued
keep the rates that they were issued with. Days are half-open, like every period of the house: a
rate is in force from the day `from` on and no longer on the day `to`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, Protocol
from uuid import UUID

import msgspec

from convergio.rating.taxing import TaxBook, TaxRow

Country = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\Z")]
Region = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,20}\Z")]
Category = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\Z")]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{3}\Z")]
EvidenceCount = Annotated[int, msgspec.Meta(ge=1, le=2)]
Day = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}\Z")]
EVER: Final = date(1900, 1, 1)
MENDS: Final[Mapping[str, str]] = {
    "": "write seller, registrations and rates",
    "seller": "write the ISO 3166-1 code of the country where the seller is established, as IT",
    "one_stop_shop": "write true or false",
    "currency": "write the ISO 4217 code in which you account for tax, such as eur",
    "fatturapa": "write true or false",
    "location_evidence": "write 1 or 2",
    "registrations": "write a list such as [{country: IT}]",
    "rates": 'write a list such as [{country: IT, percent: "22"}]',
    "country": "write an ISO 3166-1 code such as IT",
    "region": "write a code of the country's own, such as CA: letters, digits and -",
    "category": "write lower-case letters, digits, _ and -, at most 64 characters",
    "percent": "write a percentage such as 22 or 8.875",
    "exempt": "write true or false",
    "from": "write the first day, such as 2025-01-01",
    "to": "write the first day on which it is no longer in force, such as 2026-01-01",
}


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the file; a field that is not known is refused."""


class RegistrationLine(_Line, frozen=True, kw_only=True):
    """Where the seller is registered; without a region, in the whole country."""

    country: Country
    region: Region | None = None
    since: Day | None = msgspec.field(name="from", default=None)
    to: Day | None = None


class RateLine(_Line, frozen=True, kw_only=True):
    """A rate of a country or region for a category; an exempt one has a reason and no percent."""

    country: Country
    region: Region | None = None
    category: Category = "standard"
    percent: str | None = None
    exempt: bool = False
    reason: str | None = None
    since: Day | None = msgspec.field(name="from", default=None)
    to: Day | None = None


class TaxFile(_Line, frozen=True, kw_only=True):
    """The whole file."""

    seller: Country
    one_stop_shop: bool = False
    currency: Currency | None = None
    fatturapa: bool = False
    location_evidence: EvidenceCount = 1
    registrations: Annotated[tuple[RegistrationLine, ...], msgspec.Meta(max_length=1000)] = ()
    rates: Annotated[tuple[RateLine, ...], msgspec.Meta(max_length=10_000)] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored book and its version, which grows with every file that changed something.

    `currency` is the one that the seller accounts for tax in, None: the one of each document.
    `fatturapa`: Italian e-invoices are issued, which hold no negative line.
    """

    version: int
    book: TaxBook
    currency: str | None = None
    fatturapa: bool = False

    def states(self, currency: str) -> bool:
        """Say whether the tax of a document in a currency is stated in the seller's own too."""
        return self.currency is not None and self.currency != currency

    def credits_apart(self, currency: str) -> bool:
        """Say whether what is taken back is never netted, but always a credit note.

        FatturaPA knows no negative line; and what is converted at its own invoice's rate cannot
        stand on another invoice.
        """
        return self.fatturapa or self.states(currency)


class Checked(NamedTuple):
    """What a checker found: why a number cannot be one, or nothing against it."""

    is_valid: bool
    finding: str


class TaxNumberChecker(Protocol):
    """Checks a tax number: offline its form, or a register's answer fetched beforehand."""

    name: str

    def check(self, country: str, number: str) -> Checked:
        """Say whether a number of a country can be, or is, a real one."""
        ...


@dataclass(frozen=True, slots=True)
class NumberCheck:
    """A check that was made of a customer's number; `evidence` is what somebody looked at."""

    customer_id: UUID
    check_id: UUID
    country: str
    checker: str
    is_valid: bool
    evidence: str
    checked_at: datetime


class DocumentTax(NamedTuple):
    """The tax of one group of an invoice's or credit note's lines."""

    customer_id: UUID
    document_id: UUID
    row: TaxRow


class ReferenceRate(NamedTuple):
    """How many units of a currency one euro was on a day."""

    currency: str
    day: date
    rate: Decimal


class Exchange(NamedTuple):
    """How a document becomes the seller's currency; rates are units of each currency for a euro."""

    currency: str
    day: date
    foreign_rate: Decimal
    home_rate: Decimal
    source: str


class Placed(NamedTuple):
    """Where an invoice was taxed, None: nowhere; and what said where the customer is."""

    country: str | None
    evidence: tuple[tuple[str, str], ...] = ()


class Kept(NamedTuple):
    """What an invoice keeps beside its taxes: how they were converted, and where it was taxed.

    A credit note has what its invoice has.
    """

    exchange: Exchange | None = None
    place: Placed | None = None


NOTHING_KEPT: Final = Kept()


class EvidenceKind(StrEnum):
    """What says where a customer is, beside the account (Regulation 282/2011, article 24f)."""

    CARD = "card"
    IP = "ip"
    BANK = "bank"
    SIM = "sim"
    LANDLINE = "landline"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the seller saw of where a customer is; the last of its kind."""

    customer_id: UUID
    kind: EvidenceKind
    country: str
    note: str | None
    seen_at: datetime
