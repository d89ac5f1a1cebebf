"""What the caller of coupons can be told, each with the mend.

Whoever redeems a code hears one answer for every code that does not work for them, so that codes
cannot be told apart by trying.
"""

from convergio.kernel.errors import Conflict, Invalid, NotFound


def not_redeemable() -> Conflict:
    """Say that a code does not work, and nothing about why."""
    detail = "this code cannot be redeemed; check it, or ask the seller for another one"
    return Conflict(detail, code="not_redeemable", field="code")


def unknown_coupon() -> NotFound:
    """Say that there is no such coupon."""
    detail = "there is no such coupon; see `convergio coupon list`"
    return NotFound(detail, code="unknown_coupon", field="code")


def coupon_exists(code: str) -> Conflict:
    """Say that a code is taken."""
    return Conflict(f"there is a coupon {code}; choose another code", code="coupon_exists")


def bad_code() -> Invalid:
    """Say how a code reads."""
    detail = "write 3 to 40 capital letters, digits, - and _, such as WELCOME-20"
    return Invalid(detail, code="bad_code", field="code")


def percent_or_amount(field: str = "percent") -> Invalid:
    """Say that a coupon takes off either."""
    detail = "write a percentage above 0 and at most 100, or an amount above zero and its currency"
    return Invalid(detail, code="percent_or_amount", field=field)


def bad_periods() -> Invalid:
    """Say when a coupon has a number of periods."""
    detail = "write for how many periods a repeating coupon counts, and only for that, 1 to 1200"
    return Invalid(detail, code="bad_periods", field="periods")


def bad_limit(field: str) -> Invalid:
    """Say what a limit is."""
    return Invalid("write a whole number from 1 on", code="bad_limit", field=field)


def unknown_name(what: str, name: str) -> Invalid:
    """Say that the catalog sells no such thing."""
    detail = f"the catalog has no {what} '{name}'; see `convergio catalog show`"
    return Invalid(detail, code=f"unknown_{what}", field=f"{what}s")
