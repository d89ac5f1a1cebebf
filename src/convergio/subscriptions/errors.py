"""What the caller of subscriptions can be told, each with the mend."""

from datetime import datetime
from uuid import UUID

from convergio.kernel.errors import Conflict, Invalid, NotFound
from convergio.kernel.periods import instant_text
from convergio.subscriptions.model import Status


def unknown_plan(plan_key: str) -> NotFound:
    """Say that no plan of that key is for sale."""
    detail = f"there is no plan '{plan_key[:60]}'; see `convergio catalog` for the plans"
    return NotFound(detail, code="unknown_plan", field="plan")


def already_subscribed(customer_id: UUID) -> Conflict:
    """Say that the customer's one live subscription is to be changed or canceled first."""
    detail = f"customer {customer_id} has a live subscription; cancel it first"
    return Conflict(detail, code="already_subscribed", field="customer")


def not_subscribed(customer_id: UUID) -> NotFound:
    """Say that nothing live is there to change."""
    detail = f"customer {customer_id} has no live subscription; create one first"
    return NotFound(detail, code="not_subscribed", field="customer")


def cannot_become(status: Status, target: Status) -> Conflict:
    """Say that the transition table has no such step."""
    detail = f"a subscription that is {status} cannot become {target}; see the transition table"
    return Conflict(detail, code="bad_transition", field="status")


def already_ending(at: datetime) -> Conflict:
    """Say that an end is on record."""
    detail = f"the subscription already ends at {instant_text(at)}; cancel now or leave it"
    return Conflict(detail, code="already_ending")


def bad_start(detail: str) -> Invalid:
    """Say that the start lies where no subscription can begin."""
    return Invalid(detail, code="bad_start", field="start")


def bad_seats(detail: str) -> Invalid:
    """Say that the number of seats does not fit the plan."""
    return Invalid(detail, code="bad_seats", field="seats")


def bad_plan(detail: str) -> Invalid:
    """Say that the plan cannot be sold to this customer, or to anyone."""
    return Invalid(detail, code="bad_plan", field="plan")
