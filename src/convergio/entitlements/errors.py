"""What a node is told when its report does not fit its lease."""

from convergio.entitlements.model import Lease
from convergio.kernel.errors import Conflict, NotFound
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import quantity_text


def unknown_lease() -> NotFound:
    """Say that no lease of this customer has the id."""
    detail = "there is no such lease of this customer"
    return NotFound(detail, code="unknown_lease", field="lease")


def bad_sequence(lease: Lease) -> Conflict:
    """Say that a report with this number or a later one was counted already."""
    detail = (
        f"report {lease.sequence} with {quantity_text(lease.used)} used was counted; "
        f"number the next one {lease.sequence + 1} or higher"
    )
    return Conflict(detail, code="bad_sequence", field="sequence")


def below_reported(lease: Lease) -> Conflict:
    """Say that usage is a sum since the lease was made, so it never falls."""
    detail = f"{quantity_text(lease.used)} was reported before; send the sum since the lease began"
    return Conflict(detail, code="below_reported", field="used")


def settled_already(lease: Lease) -> Conflict:
    """Say that a settled lease takes no more."""
    detail = (
        f"it was settled with {quantity_text(lease.used)} used; track what is missing as an event"
    )
    return Conflict(detail, code="settled", field="used")


def not_expired(lease: Lease) -> Conflict:
    """Say that the lease's node may still be deciding on it."""
    detail = f"its node may use it until {instant_text(lease.expires_at)}; declare it lost then"
    return Conflict(detail, code="lease_live", field="lease")


def other_lease() -> Conflict:
    """Say that the id belongs to a lease of another meter."""
    detail = "this id is a lease of another meter; make a new id for each lease"
    return Conflict(detail, code="other_lease", field="lease")
