"""What a caller is told when an ask, or a node's report, does not fit what is there."""

from convergio.entitlements.model import Lease
from convergio.kernel.errors import Conflict, Invalid, NotFound
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


def other_ask() -> Conflict:
    """Say that this id was used for another meter or quantity."""
    detail = "this id was used to ask for something else; give each authorization its own"
    return Conflict(detail, code="other_body", field="id")


def ask_is_over() -> Conflict:
    """Say that what this id held was given back, or that its time is over."""
    detail = "what this id held was released or has expired; ask again with a new id"
    return Conflict(detail, code="ask_is_over", field="id")


def not_countable(meter_key: str) -> Invalid:
    """Say that this quantity could never be committed: each event of the meter counts as one."""
    detail = f"the meter '{meter_key}' counts one an event; ask for 1, once for each event"
    return Invalid(detail, code="bad_quantity", field="quantity")


def not_reservable(meter_key: str) -> Invalid:
    """Say that nothing can be held of a meter that counts distinct values."""
    detail = f"the meter '{meter_key}' counts distinct values, and an ask has none; track events"
    return Invalid(detail, code="not_reservable", field="meter")


class HasRepeats(Exception):
    """A reservation with this id was made meanwhile; the transaction is lost."""


def unknown_grant() -> NotFound:
    """Say that no grant of this customer has the id."""
    detail = "there is no such credit grant of this customer"
    return NotFound(detail, code="unknown_grant", field="grant")


def other_grant() -> Conflict:
    """Say that the key names a grant with other terms."""
    detail = "this key names another grant of this customer; give each grant a key of its own"
    return Conflict(detail, code="other_grant", field="key")


def bad_grant(field: str, detail: str) -> Invalid:
    """Say what of a grant cannot be."""
    return Invalid(detail, code="bad_grant", field=field)


def not_grantable(meter_key: str, aggregation: str) -> Invalid:
    """Say that units of a meter cannot be prepaid."""
    detail = f"'{meter_key}' is a {aggregation}, whose units are not used up; grant money instead"
    return Invalid(detail, code="not_grantable", field="meter")
