"""Charges are owed, lines are billed, and the difference of the two is the next invoice.

A `ChargeKey` names one thing that can be owed: an item, in a period, of a kind, for a group of
dimensions. It is rated and rounded as one, and what invoices hold of it is the sum of its lines,
so billing twice bills nothing (RULES 1). A finalised invoice never changes but for its payments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from convergio.billing.sellers import NOTHING_ISSUED, Issued
from convergio.discounts.model import Draw
from convergio.kernel.money import Money
from convergio.rating import taxing
from convergio.rating.taxing import STANDARD, ZERO, GroupKey, Treatment
from convergio.taxes.model import NOTHING_KEPT, Kept


class Kind(StrEnum):
    """A fee for a period, owed when it begins, or usage in it, owed when it ends."""

    FIXED = "fixed"
    USAGE = "usage"


class Status(StrEnum):
    """What became of a finalised invoice."""

    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    UNCOLLECTIBLE = "uncollectible"


class Bearing(NamedTuple):
    """What a line bears beside its amount: what is taken off it before tax, and its tax.

    `discount` has the sign of the amount. `draws` say what took it off, or, where a line takes back
    from another, to what that one's discount returns. `country` is whose tax it is.
    """

    discount: int = 0
    category: str = STANDARD
    rate: Decimal = ZERO
    treatment: Treatment = Treatment.NONE
    inclusive: bool = False
    reason: str | None = None
    draws: tuple[Draw, ...] = ()
    country: str | None = None

    @property
    def group(self) -> GroupKey:
        """The lines that its tax is computed with."""
        return GroupKey(self.category, self.rate, self.treatment, self.inclusive)


TaxRow = taxing.TaxRow
PLAIN: Final = Bearing()


class ChargeKey(NamedTuple):
    """What one owed amount is for; `dimensions` is empty where a price has none."""

    item_id: UUID
    period_start: datetime
    kind: Kind
    dimensions: str


class Charge(NamedTuple):
    """What is owed for a key, from `due_at` on. `steps` is the arithmetic, as JSON.

    `amended_at` and `why`: an end within the period that took a part of it back.
    """

    key: ChargeKey
    subscription_id: UUID
    price_id: UUID
    period_end: datetime
    due_at: datetime
    quantity: Decimal
    amount: Money
    name: str
    time_zone: str
    steps: str
    amended_at: datetime | None = None
    why: str | None = None


class Billed(NamedTuple):
    """What the lines of a key add up to."""

    amount: int
    quantity: Decimal
    period_end: datetime


class LineId(NamedTuple):
    """A stored line: its invoice and its number there."""

    invoice_id: UUID
    line_number: int


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is kept: a difference of a key, and why; `due_at`: when its charge fell due."""

    subscription_id: UUID
    key: ChargeKey
    period_end: datetime
    price_id: UUID
    reason: str
    description: str
    quantity: Decimal
    amount: Money
    detail: str
    origin: LineId | None = None
    bearing: Bearing = PLAIN
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """An invoice before it has an id and a number.

    `total` is what is to be paid: less every discount, with the tax. Without a tax file `taxes` is
    empty; `is_plain` says that no line bears anything. `kept`: its rate of exchange and place.
    """

    customer_id: UUID
    boundary_at: datetime
    lines: tuple[Line, ...]
    total: Money
    taxes: tuple[TaxRow, ...] = ()
    is_plain: bool = True
    kept: Kept = NOTHING_KEPT

    @property
    def sums(self) -> tuple[int, int, int]:
        """The sum of the lines before discount, the discount, and the tax, in minor units."""
        if self.is_plain:
            return self.total.minor, 0, 0
        subtotal = sum(line.amount.minor for line in self.lines)
        discount = sum(line.bearing.discount for line in self.lines)
        return subtotal, discount, sum(row.tax for row in self.taxes)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why nothing was invoiced to a customer in a run."""

    customer_id: UUID
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Invoice:
    """A finalised invoice. Only `status` and what settles it ever change.

    `subtotal` is the sum of its lines before discount, `total` what is to be paid, tax included.
    `credited` is what credit notes took off what was due, `from_balance` what the customer's
    credit balance paid at once, `excess` what of `paid` was more than was due.
    """

    customer_id: UUID
    invoice_id: UUID
    boundary_at: datetime
    series: str
    year: int
    number: int
    status: Status
    currency: str
    total: int
    paid: int
    issued_on: date
    due_on: date
    finalized_at: datetime
    sealed_buyer: bytes = field(repr=False)
    credited: int = 0
    from_balance: int = 0
    excess: int = 0
    subtotal: int = 0
    discount: int = 0
    tax: int = 0

    @property
    def number_text(self) -> str:
        """The number as the document shows it: `CVG-2025-000123`."""
        return f"{self.series}-{self.year}-{self.number:06d}"

    @property
    def due(self) -> Money:
        """What is still to be paid: less what was paid, credited and taken from the balance."""
        settled = self.paid - self.excess + self.credited + self.from_balance
        return Money(self.total - settled, self.currency)


@dataclass(frozen=True, slots=True)
class Amounts:
    """What an invoice comes to and what is paid of it, in minor units."""

    customer_id: UUID
    invoice_id: UUID
    currency: str
    total: int
    paid: int


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """A stored line; `detail` holds the steps of the arithmetic."""

    line_number: int
    subscription_id: UUID
    item_id: UUID
    period_start: datetime
    kind: str
    dimensions: str
    period_end: datetime
    price_id: UUID
    reason: str
    description: str
    quantity: Decimal
    amount: int
    currency: str
    detail: Mapping[str, Any]
    origin_invoice_id: UUID | None = None
    origin_line: int | None = None
    discount: int = 0
    tax_category: str = STANDARD
    tax_rate: Decimal = ZERO
    tax_treatment: Treatment = Treatment.NONE
    tax_inclusive: bool = False

    @property
    def net(self) -> int:
        """What is left of the amount after the discount; with the tax where it is inside."""
        return self.amount - self.discount


class Buyer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who bought, as known when the invoice was issued. Sealed under the retention key."""

    key: str
    locale: str = "en"
    country: str | None = None
    name: str | None = None
    email: str | None = None
    address: str | None = None
    tax_id: str | None = None
    street: str | None = None
    postal_code: str | None = None
    city: str | None = None
    region: str | None = None
    sdi_code: str | None = None
    pec: str | None = None
    purchase_order: str | None = None
    by_transfer: bool = False

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "Buyer(***)"


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """An invoice as it reads: its lines, who bought, and the zone in which its days are shown."""

    invoice: Invoice
    lines: tuple[InvoiceLine, ...]
    buyer: Buyer
    time_zone: str
    taxes: tuple[TaxRow, ...] = ()
    kept: Kept = NOTHING_KEPT
    issued: Issued = NOTHING_ISSUED


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run; `closed` is the last boundary that it could bill, None while it is not finished."""

    as_of: datetime
    started_at: datetime
    closed: datetime | None


class CreditKind(StrEnum):
    """A correction lowers what is billed, so owed - billed sees it; a concession never does."""

    CORRECTION = "correction"
    CONCESSION = "concession"


class CollectionMethod(StrEnum):
    """Who moves: the card on file is charged, or the customer transfers the money."""

    CHARGE_AUTOMATICALLY = "charge_automatically"
    SEND_INVOICE = "send_invoice"


class Terms(NamedTuple):
    """How a customer pays, and within how many days; None: within the seller's usual ones."""

    collection: CollectionMethod
    net_days: int | None


class Voiding(StrEnum):
    """What becomes of a void invoice's lines: billed again, or never (RULES 2)."""

    REISSUE = "reissue"
    WAIVE = "waive"


@dataclass(frozen=True, slots=True)
class Creditable:
    """A stored line and what is left to credit of it; below zero for one that took back.

    `discount_left` is the part of `remaining` that the customer never paid.
    """

    customer_id: UUID
    invoice_id: UUID
    line_number: int
    item_id: UUID
    period_start: datetime
    kind: str
    dimensions: str
    description: str
    currency: str
    remaining: int
    discount_left: int = 0
    tax_category: str = STANDARD
    tax_rate: Decimal = ZERO
    tax_treatment: str = Treatment.NONE
    tax_inclusive: bool = False

    @property
    def key(self) -> ChargeKey:
        """The charge that the line is of."""
        return ChargeKey(self.item_id, self.period_start, Kind(self.kind), self.dimensions)


@dataclass(frozen=True, slots=True)
class CreditLine:
    """What is given back of one line; below zero where that line itself had taken back."""

    invoice_line: int
    kind: Kind
    description: str
    quantity: Decimal
    amount: Money
    bearing: Bearing = PLAIN


@dataclass(frozen=True, slots=True)
class CreditDraft:
    """A credit note of one invoice before it has an id and a number; `total` is with the tax."""

    customer_id: UUID
    invoice_id: UUID
    kind: CreditKind
    reason: str
    lines: tuple[CreditLine, ...]
    total: Money
    taxes: tuple[TaxRow, ...] = ()

    @property
    def sums(self) -> tuple[int, int, int]:
        """The sum of the lines before discount, the discount, and the tax, in minor units."""
        subtotal = sum(line.amount.minor for line in self.lines)
        discount = sum(line.bearing.discount for line in self.lines)
        return subtotal, discount, sum(row.tax for row in self.taxes)


@dataclass(frozen=True, slots=True)
class CreditNote:
    """A finalised credit note; it never changes.

    `applied` went to what was due of its invoice, the rest to the customer's credit balance.
    """

    customer_id: UUID
    credit_note_id: UUID
    invoice_id: UUID
    series: str
    year: int
    number: int
    kind: CreditKind
    reason: str
    currency: str
    total: int
    applied: int
    issued_on: date
    finalized_at: datetime
    sealed_buyer: bytes = field(repr=False)
    subtotal: int = 0
    discount: int = 0
    tax: int = 0
    issued: Issued = NOTHING_ISSUED

    @property
    def number_text(self) -> str:
        """The number as the document shows it: `CVG-CN-2025-000004`."""
        return f"{self.series}-{self.year}-{self.number:06d}"


@dataclass(frozen=True, slots=True)
class CreditNoteLine:
    """A stored line of a credit note."""

    line_number: int
    invoice_id: UUID
    invoice_line: int
    description: str
    quantity: Decimal
    amount: int
    discount: int = 0


@dataclass(frozen=True, slots=True)
class CreditNoteView:
    """A credit note as it reads: its lines, the invoice that they take from, and who bought."""

    note: CreditNote
    lines: tuple[CreditNoteLine, ...]
    invoice: Invoice
    invoice_lines: tuple[InvoiceLine, ...]
    buyer: Buyer
    time_zone: str
    taxes: tuple[TaxRow, ...] = ()
    kept: Kept = NOTHING_KEPT


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A customer whom the run leaves out until the reason is gone."""

    customer_id: UUID
    code: str
    reason: str
    parked_at: datetime


@dataclass(frozen=True, slots=True)
class Numbers:
    """A run of consecutive numbers of a series and year, and the day they are issued on."""

    series: str
    year: int
    first: int
    issued_on: date


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """An invoice or credit note in a customer's history; `status` is a note's kind."""

    at: datetime
    entry_id: UUID
    what: str
    series: str
    year: int
    number: int
    status: str
    currency: str
    total: int
    invoice_id: UUID


class PastLine(NamedTuple):
    """How much of a charge a document billed, or took back, and when that was written.

    `boundary_at` is the invoice's, None for a credit note; `by_hand`: no run wrote it.
    """

    customer_id: UUID
    at: datetime
    boundary_at: datetime | None
    item_id: UUID
    period_start: datetime
    kind: str
    dimensions: str
    quantity: Decimal
    reason: str
    by_hand: bool

    @property
    def key(self) -> ChargeKey:
        """The charge that it is of."""
        return ChargeKey(self.item_id, self.period_start, Kind(self.kind), self.dimensions)
