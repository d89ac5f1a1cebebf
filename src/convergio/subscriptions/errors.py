"""What the caller of subscriptions can be told, each with the mend."""

from datetime import datetime
from uuid import UUID

from convergio.kernel.errors import Conflict, Invalid, LimitExceeded, NotFound
from convergio.kernel.periods import instant_text
from convergio.subscriptions.model import Status


def unknown_plan(plan_key: str, *, field: str = "plan") -> NotFound:
    """Say that no plan of that key is for sale."""
    detail = f"there is no plan '{plan_key[:60]}'; see `convergio catalog` for the plans"
    return NotFound(detail, code="unknown_plan", field=field)


def already_subscribed(customer_id: UUID) -> Conflict:
    """Say that the customer's one live subscription is to be changed or canceled first."""
    detail = f"customer {customer_id} has a live subscription; cancel it first"
    return Conflict(detail, code="already_subscribed", field="customer")


def unknown_subscription() -> NotFound:
    """Say that the customer has no such subscription."""
    detail = "the customer has no such subscription; list them to see their ids"
    return NotFound(detail, code="unknown_subscription", field="subscription")


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


def overlapping_start(customer_id: UUID, ends_at: datetime) -> Conflict:
    """Say that an earlier subscription of the customer runs beyond the start."""
    detail = (
        f"an earlier subscription of customer {customer_id} runs until {instant_text(ends_at)}; "
        "start then or later"
    )
    return Conflict(detail, code="overlapping_start", field="start")


def bad_seats(detail: str) -> Invalid:
    """Say that the number of seats does not fit the plan."""
    return Invalid(detail, code="bad_seats", field="seats")


def bad_plan(detail: str, *, field: str = "plan") -> Invalid:
    """Say that the plan cannot be sold to this customer, or to anyone."""
    return Invalid(detail, code="bad_plan", field=field)


def bad_trial(detail: str) -> Invalid:
    """Say what does not fit about a trial."""
    return Invalid(detail, code="bad_trial", field="trial")


def not_changeable(status: Status) -> Conflict:
    """Say that a subscription in this status takes no change."""
    mend = "resume it first" if status == Status.PAUSED else "settle what is open first"
    return Conflict(f"the subscription is {status}; {mend}", code="not_changeable")


def nothing_to_change() -> Invalid:
    """Say that the change changes nothing."""
    detail = "the subscription is on this plan with these seats; write what shall be different"
    return Invalid(detail, code="nothing_to_change", field="plan")


def same_number(quantity: int) -> Invalid:
    """Say that a customer has so many of an add-on."""
    detail = f"the customer has {quantity} of this add-on; write the number that it shall be"
    return Invalid(detail, code="nothing_to_change", field="quantity")


def too_many_changes(limit: int) -> LimitExceeded:
    """Say that a subscription was changed too often in a day."""
    detail = f"a subscription changes at most {limit} times a day; try again tomorrow"
    return LimitExceeded(detail, code="too_many_changes")


def not_ending() -> Conflict:
    """Say that no end is on record that could be undone."""
    return Conflict("the subscription does not end; there is nothing to undo", code="not_ending")


def nothing_pending() -> Conflict:
    """Say that no change waits for its instant."""
    return Conflict("no change is scheduled; there is nothing to drop", code="nothing_pending")


def unknown_add_on(key: str) -> NotFound:
    """Say that no add-on of that key is for sale."""
    detail = f"there is no add-on '{key[:60]}'; see `convergio catalog` for what is sold"
    return NotFound(detail, code="unknown_add_on", field="add_on")


def bad_add_on(detail: str) -> Invalid:
    """Say that the add-on cannot be sold to this customer."""
    return Invalid(detail, code="bad_add_on", field="add_on")


def not_an_add_on(key: str) -> Invalid:
    """Say that something is a plan of its own."""
    detail = f"'{key[:60]}' is a plan, not an add-on; subscribe to it, or change to it"
    return Invalid(detail, code="not_an_add_on", field="add_on")


def only_beside_a_plan(key: str, *, field: str = "plan") -> Invalid:
    """Say that an add-on is no plan of its own."""
    detail = f"'{key[:60]}' is an add-on; subscribe to a plan and add it then"
    return Invalid(detail, code="only_an_add_on", field=field)


def bad_quantity(detail: str) -> Invalid:
    """Say that nobody can have so many."""
    return Invalid(detail, code="bad_quantity", field="quantity")


def ramp_agreed() -> Conflict:
    """Say that agreed prices are still to come."""
    detail = "a ramp of prices is agreed; let the change take effect now, or drop the ramp first"
    return Conflict(detail, code="ramp_agreed", field="when")


def bad_ramp(detail: str) -> Invalid:
    """Say what is wrong with steps of prices."""
    return Invalid(detail, code="bad_ramp", field="steps")


def unknown_price(key: str) -> NotFound:
    """Say that a subscription has no such price."""
    detail = f"the subscription has no price '{key[:60]}'; `convergio subscription show` lists them"
    return NotFound(detail, code="unknown_price", field="price")


def bad_amount() -> Invalid:
    """Say that a charge is above zero, and not beyond what an invoice can hold."""
    detail = "write an amount above zero, such as 120.00, of at most 10^15 minor units"
    return Invalid(detail, code="bad_amount", field="amount")


def no_common_anchor() -> Invalid:
    """Say that weeks and months have no boundary in common."""
    detail = "weeks and months have no boundary in common; anchor it at its start"
    return Invalid(detail, code="no_common_anchor", field="anchor")


def calendar_trial() -> Invalid:
    """Say that a trial's end is the anchor."""
    detail = "the paid periods begin where the trial ends; leave out the trial or the calendar"
    return Invalid(detail, code="calendar_trial", field="anchor")


def credit_later() -> Invalid:
    """Say that nothing is left to give back of what is paid for and used to its end."""
    detail = "at the period's end nothing is left to give back; end it now, or leave the credit out"
    return Invalid(detail, code="credit_without_end", field="credit")


def version_not_sold(key: str, version: int) -> Invalid:
    """Say that no plan sells a version of a price."""
    detail = (
        f"no plan sells version {version} of price '{key[:60]}' any more; name one that is sold"
    )
    return Invalid(detail, code="version_not_sold", field="version")


def no_common_boundary() -> Invalid:
    """Say that a price goes from weeks to months, or back, and the periods never meet."""
    detail = "weeks and months have no boundary in common; change the plan, or agree on the price"
    return Invalid(detail, code="no_common_boundary", field="version")


def price_of_add_on() -> Conflict:
    """Say that an older version of a price is that of an add-on."""
    detail = "it is the price of an add-on; take the add-on away and then take it anew"
    return Conflict(detail, code="price_of_add_on", field="price")


def unknown_version(key: str, version: int) -> NotFound:
    """Say that the catalog has no such version of a price."""
    detail = f"price '{key[:60]}' has no version {version}; apply a catalog with it first"
    return NotFound(detail, code="unknown_price", field="price")


def trial_undecided() -> Conflict:
    """Say that a trial is over and nobody has looked yet whether the customer can pay."""
    detail = "its trial has just ended; try again when the next billing run has seen to it"
    return Conflict(detail, code="trial_undecided")


def change_waits() -> Conflict:
    """Say that a change to come is in the way."""
    return Conflict("another change is to come; drop it first", code="change_waits")
