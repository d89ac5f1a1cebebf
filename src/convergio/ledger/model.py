"""A transfer moves an amount from one account to another, so the books balance by construction.

`debit_account` grows and `credit_account` shrinks by `amount`, which is above zero. A mistake is
mended by a transfer the other way; no transfer is ever changed or deleted. Accounts are kept per
customer: the house's balance of an account is the sum over customers.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from convergio.kernel.money import Money


class Account(StrEnum):
    """What a side of a transfer can be; a new account is a new line here."""

    RECEIVABLE = "receivable"
    DEFERRED_REVENUE = "deferred_revenue"
    USAGE_REVENUE = "usage_revenue"
    GATEWAY_CLEARING = "gateway_clearing"
    GATEWAY_FEES = "gateway_fees"
    BANK = "bank"
    CUSTOMER_CREDIT = "customer_credit"
    WRITE_OFF = "write_off"
    TAX_PAYABLE = "tax_payable"


class Kind(StrEnum):
    """Why money moved."""

    INVOICE = "invoice"
    PAYMENT = "payment"
    FEE = "fee"
    CREDIT_NOTE = "credit_note"
    BALANCE = "balance"
    EXCESS = "excess"
    WRITE_OFF = "write_off"


class Transfer(NamedTuple):
    """One movement; `source_id` is the invoice or payment attempt that caused it."""

    customer_id: UUID
    transfer_id: UUID
    kind: Kind
    source_id: UUID
    debit_account: Account
    credit_account: Account
    amount: Money
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Posted:
    """What the transfers of one source add up to in one pair of accounts."""

    customer_id: UUID
    source_id: UUID
    debit_account: str
    credit_account: str
    currency: str
    amount: int
