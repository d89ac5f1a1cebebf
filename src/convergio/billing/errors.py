"""What the caller of billing can be told, each with the mend."""

from convergio.kernel.errors import Conflict, Invalid, NotFound


def unknown_invoice() -> NotFound:
    """Say that there is no such invoice."""
    detail = "there is no such invoice; see `convergio invoice list`"
    return NotFound(detail, code="unknown_invoice", field="invoice")


def bad_number(text: str) -> Invalid:
    """Say how an invoice's number reads."""
    detail = f"'{text[:40]}' is not an invoice number; write one such as CVG-2025-000123"
    return Invalid(detail, code="bad_number", field="invoice")


def not_open(number: str, status: str) -> Conflict:
    """Say that an invoice takes no payment any more."""
    return Conflict(f"invoice {number} is {status}; it takes no payment", code="not_open")


def too_much(number: str, due: str) -> Conflict:
    """Say that a payment is larger than what is due."""
    return Conflict(f"invoice {number} has {due} due; apply at most that", code="overpaid")


def other_currency(number: str, currency: str) -> Conflict:
    """Say that a payment is in another currency than the invoice."""
    detail = f"invoice {number} is in {currency}; pay it in {currency}"
    return Conflict(detail, code="other_currency")
