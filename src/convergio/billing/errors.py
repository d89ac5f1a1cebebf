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


def too_far(days: int) -> Invalid:
    """Say that a preview of so many periods costs too much."""
    detail = f"write an instant within {days} days from now"
    return Invalid(detail, code="too_costly", field="at")


def not_open(number: str, status: str) -> Conflict:
    """Say that an invoice takes no payment any more."""
    return Conflict(f"invoice {number} is {status}; it takes no payment", code="not_open")


def other_currency(number: str, currency: str) -> Conflict:
    """Say that a payment is in another currency than the invoice."""
    detail = f"invoice {number} is in {currency}; pay it in {currency}"
    return Conflict(detail, code="other_currency")


def void_already(number: str) -> Conflict:
    """Say that nothing is left of a void invoice."""
    return Conflict(f"invoice {number} is void; nothing of it is left", code="void")


def cannot_void(number: str, status: str) -> Conflict:
    """Say which invoices can be voided."""
    detail = f"invoice {number} is {status} or partly paid; write a credit note instead"
    return Conflict(detail, code="cannot_void")


def beyond_credit(number: str, left: str) -> Conflict:
    """Say that more is asked for than is left to credit."""
    detail = f"{left} is left to credit of invoice {number} or its line; ask for at most that"
    return Conflict(detail, code="beyond_credit", field="amount")


def bad_reason(size_max: int) -> Invalid:
    """Say that a credit note gives a reason."""
    detail = f"write why, in 1 to {size_max} printable characters"
    return Invalid(detail, code="bad_reason", field="reason")


def unknown_line(number: str) -> NotFound:
    """Say that an invoice has no such line."""
    detail = f"invoice {number} has no such line; see `convergio invoice`"
    return NotFound(detail, code="unknown_line", field="line")


def too_many_lines(count: int, limit: int) -> Conflict:
    """Say that a subscription got more lines in a day than any real change makes."""
    detail = (
        f"{count} lines in a day amend one subscription, at most {limit}: something may go round; "
        f"look at `convergio preview`, and where it is right, run `convergio bill --lines-max "
        f"{count}`"
    )
    return Conflict(detail, code="too_many_lines")


def unreadable_buyer(why: str) -> Conflict:
    """Say that the buyer cannot be named on a document."""
    return Conflict(f"the buyer cannot be read: {why}", code="unreadable_buyer")


def unknown_note() -> NotFound:
    """Say that there is no such credit note."""
    detail = "there is no such credit note; see `convergio invoice credits`"
    return NotFound(detail, code="unknown_credit_note", field="credit_note")


def bad_note_number(text: str) -> Invalid:
    """Say how a credit note's number reads."""
    detail = f"'{text[:40]}' is not its number; write one such as CVG-CN-2025-000004"
    return Invalid(detail, code="bad_number", field="credit_note")


def bad_net_days(most: int) -> Invalid:
    """Refuse a term that no invoice has."""
    return Invalid(f"write 0 to {most} days", code="bad_net_days", field="net_days")


def nothing_paid(number: str) -> Conflict:
    """Say that what is asked for was given away already."""
    detail = f"that part of invoice {number} was discounted to zero; there is nothing to give back"
    return Conflict(detail, code="nothing_paid", field="amount")


def no_subscription() -> Conflict:
    """Say that a coupon needs periods to count for."""
    detail = "the customer has no subscription; subscribe first, then redeem the code"
    return Conflict(detail, code="no_subscription")


def sliced_credit(name: str, by: str) -> Conflict:
    """Say that prepaid units cannot pay for what has a price for each value."""
    detail = (
        f"'{name}' is priced by {by}, so prepaid units of it have no one price;"
        " void the grant and grant money instead"
    )
    return Conflict(detail, code="sliced_credit", field="grant")


def netted_elsewhere(number: str) -> Conflict:
    """Say that a void would forget what a later invoice took back of this one."""
    detail = (
        f"a part of {number} was taken back on a later invoice, so it is still due here;"
        " let it be paid, or credit what is left of it"
    )
    return Conflict(detail, code="cannot_void", field="how")
