"""Who may, and how many of several asks fit."""

from decimal import Decimal

from convergio.entitlements.model import ACCESS, Access, QuotaState, Reason
from convergio.kernel.quantity import add_up, subtract
from convergio.metering.model import WindowRow


def access(status: str | None) -> Access:
    """Return what a customer with this subscription status may do; None: no live subscription."""
    return Access.NONE if status is None else ACCESS.get(status, Access.NONE)


def refusal(found: Access) -> Reason | None:
    """Return why this access refuses a request, or None when it does not."""
    if found is Access.NONE:
        return Reason.NO_SUBSCRIPTION
    return Reason.SUSPENDED if found is Access.SUSPENDED else None


def state(window: WindowRow, found: Access) -> QuotaState:
    """Return the quota as its owner sees it."""
    limit = window.quota_limit
    held = add_up((window.used, window.reserved))
    left = None if limit is None else max(Decimal(0), subtract(limit, held))
    return QuotaState(
        limit=limit,
        included=window.included,
        used=window.used,
        reserved=window.reserved,
        remaining=left,
        resets_at=window.end_at,
        access=found,
    )
