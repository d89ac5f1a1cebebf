"""Subscriptions over HTTP: put a customer on a plan, change it, end it; and look before each.

A preview does the very change in a savepoint and undoes it: what it shows is what would happen.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api import paging
from convergio.api.once import once
from convergio.api.requests import Anyone, PageSize, Text, Word, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.billing import explaining
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra import ids
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import parse_instant
from convergio.payments import actions as payments
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Status, Subscription, Trial, TrialPolicy, When

Act = Callable[[Tx], Subscription]


class SubscriptionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer and the plan to put them on, from `start` (now when left out).

    With `trial_days` the paid periods begin after them; `without_method` says what follows where
    there is no payment method then: activate, pause or fall_back (to `fallback_plan`). With
    `by_calendar` the periods are the calendar's own, and the first is charged for its part.
    """

    customer: Text
    plan: Text
    start: str | None = None
    time_zone: str = "UTC"
    seats: int = 1
    trial_days: int | None = None
    without_method: TrialPolicy = TrialPolicy.ACTIVATE
    fallback_plan: Text | None = None
    by_calendar: bool = False


class ChangeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another plan or number of seats; without `when`, more takes effect now and less later."""

    customer: Text
    plan: Text | None = None
    seats: int | None = None
    when: When | None = None


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose subscription to cancel, and when."""

    customer: Text
    at_period_end: bool = True
    credit: bool = False


class WhoseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose subscription."""

    customer: Text


class Verb(StrEnum):
    """What can be done to a subscription, and so be looked at before it is done."""

    SUBSCRIBE = "subscribe"
    CHANGE = "change"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    REACTIVATE = "reactivate"
    DROP_CHANGE = "drop-change"


class PreviewBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that could be done, with the fields that the verb itself takes."""

    customer: Text
    verb: Verb
    plan: Text | None = None
    seats: int | None = None
    when: When | None = None
    start: str | None = None
    time_zone: str = "UTC"
    by_calendar: bool = False
    trial_days: int | None = None
    without_method: TrialPolicy = TrialPolicy.ACTIVATE
    fallback_plan: Text | None = None
    at_period_end: bool = True
    credit: bool = False


_PLAIN: Final = {
    Verb.PAUSE: changes.pause,
    Verb.RESUME: changes.resume,
    Verb.REACTIVATE: changes.reactivate,
    Verb.DROP_CHANGE: changes.drop_change,
}


@get("/v1/subscriptions", opt=needs(Scope.SUBSCRIPTIONS_READ), sync_to_thread=True)
def list_subscriptions(
    request: Anyone,
    *,
    customer: FromQuery[str | None] = None,
    plan: Word = None,
    status: FromQuery[Status | None] = None,
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a page of subscriptions, of one customer, plan or status where given.

    A customer's come in the order of their making, each with the change that waits.
    """
    with product_of(request).database.transaction() as tx:
        who = principal_of(request).customer_id
        if customer is not None:
            who = _customer_id(tx, request, customer)
        found = subscriptions.page(
            tx,
            after=paging.pair(after),
            limit=limit,
            customer_id=who,
            plan_key=plan,
            status=status,
        )
        shown = [_shown(tx, one) for one in found]
    key = paging.following(found, limit, lambda last: (last.customer_id, last.subscription_id))
    return {"subscriptions": shown, "next": key}


@get(
    "/v1/customers/{customer:str}/subscriptions/{subscription:str}",
    opt=needs(Scope.SUBSCRIPTIONS_READ),
    sync_to_thread=True,
)
def show_subscription(
    request: Anyone, customer: FromPath[str], subscription: FromPath[str]
) -> dict[str, Any]:
    """Return one subscription with the change that waits."""
    wanted = ids.parse_typeid("sub", subscription)
    with product_of(request).database.transaction() as tx:
        customer_id = _customer_id(tx, request, customer)
        return _shown(tx, subscriptions.find(tx, customer_id, wanted))


@post("/v1/subscriptions", opt=needs(Scope.SUBSCRIPTIONS_WRITE), sync_to_thread=True)
@once
def subscribe(tx: Tx, request: Anyone, data: JSONBody[SubscriptionBody]) -> dict[str, Any]:
    """Put a customer on a plan at the prices that it sells today."""
    customer_id = _customer_id(tx, request, data.customer)
    now = product_of(request).clock.now()
    _check_trial(request, data)
    return changes.value(_subscribed(tx, customer_id, data, now=now))


@post(
    "/v1/subscriptions/change",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def change(tx: Tx, request: Anyone, data: JSONBody[ChangeBody]) -> dict[str, Any]:
    """Put a customer on another plan or number of seats."""
    now, who = product_of(request).clock.now(), _customer_id(tx, request, data.customer)
    return _shown(tx, _changed(tx, who, data, now=now))


@post(
    "/v1/subscriptions/cancel",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def cancel(tx: Tx, request: Anyone, data: JSONBody[CancelBody]) -> dict[str, Any]:
    """Cancel a customer's live subscription, now or at the end of its period."""
    now, who = product_of(request).clock.now(), _customer_id(tx, request, data.customer)
    return _shown(tx, _canceled(tx, who, data, now=now))


@post(
    "/v1/subscriptions/pause",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def pause(tx: Tx, request: Anyone, data: JSONBody[WhoseBody]) -> dict[str, Any]:
    """Stop a subscription now; the unused part of its fees is credited."""
    return _plain(tx, request, Verb.PAUSE, data)


@post(
    "/v1/subscriptions/resume",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def resume(tx: Tx, request: Anyone, data: JSONBody[WhoseBody]) -> dict[str, Any]:
    """Go on with a paused subscription; the rest of the period is charged."""
    return _plain(tx, request, Verb.RESUME, data)


@post(
    "/v1/subscriptions/reactivate",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def reactivate(tx: Tx, request: Anyone, data: JSONBody[WhoseBody]) -> dict[str, Any]:
    """Take back an end that is still to come."""
    return _plain(tx, request, Verb.REACTIVATE, data)


@post(
    "/v1/subscriptions/drop-change",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def drop_change(tx: Tx, request: Anyone, data: JSONBody[WhoseBody]) -> dict[str, Any]:
    """Take back a change that waits for the end of the period."""
    return _plain(tx, request, Verb.DROP_CHANGE, data)


@post(
    "/v1/subscriptions/preview",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_READ),
    sync_to_thread=True,
)
def preview_change(request: Anyone, data: JSONBody[PreviewBody]) -> dict[str, Any]:
    """Return what a change would credit and charge now and at the next boundary; nothing is kept.

    What the verb would refuse, its preview refuses alike.
    """
    product = product_of(request)
    now = product.clock.now()  # one instant: what takes effect later than it looks is not seen

    def look(tx: Tx) -> explaining.Consequence:
        customer_id = _customer_id(tx, request, data.customer)
        _check_trial(request, data)
        return explaining.consequence(
            tx,
            customer_id=customer_id,
            act=_act(customer_id, data, now=now),
            now=now,
            can_pay=payments.payable,
            keyring=product.keyring,
        )

    return explaining.consequence_value(product.database.insist(look))


SUBSCRIPTION_ROUTES: Final = (
    list_subscriptions,
    show_subscription,
    subscribe,
    change,
    cancel,
    pause,
    resume,
    reactivate,
    drop_change,
    preview_change,
)


def _customer_id(tx: Tx, request: Anyone, customer: str) -> UUID:
    customer_id = customers.find(tx, customer).customer_id
    own(principal_of(request), customer_id)
    return customer_id


def _shown(tx: Tx, one: Subscription) -> dict[str, Any]:
    return changes.value(one, changes.pending(tx, one))


def _plain(tx: Tx, request: Anyone, verb: Verb, data: WhoseBody) -> dict[str, Any]:
    customer_id = _customer_id(tx, request, data.customer)
    now = product_of(request).clock.now()
    return _shown(tx, _PLAIN[verb](tx, customer_id=customer_id, now=now, can_pay=payments.payable))


def _check_trial(request: Anyone, data: SubscriptionBody | PreviewBody) -> None:
    """Refuse a customer's own key that gives itself time for nothing. Raises: Forbidden."""
    if data.trial_days is not None:
        unbound(principal_of(request))


def _subscribed(
    tx: Tx, customer_id: UUID, data: SubscriptionBody | PreviewBody, *, now: datetime
) -> Subscription:
    if data.plan is None:
        raise Invalid("name the plan to subscribe to", code="missing", field="plan")
    trial = None
    if data.trial_days is not None:
        trial = Trial(data.trial_days, data.without_method, data.fallback_plan)
    return subscriptions.create(
        tx,
        customer_id=customer_id,
        plan_key=data.plan,
        start=parse_instant(data.start, field="start") if data.start else now,
        now=now,
        time_zone=data.time_zone,
        seats=1 if data.seats is None else data.seats,
        trial=trial,
        by_calendar=data.by_calendar,
    )


def _changed(
    tx: Tx, customer_id: UUID, data: ChangeBody | PreviewBody, *, now: datetime
) -> Subscription:
    return changes.change(
        tx,
        customer_id=customer_id,
        plan_key=data.plan,
        seats=data.seats,
        when=data.when,
        now=now,
        can_pay=payments.payable,
    )


def _canceled(
    tx: Tx, customer_id: UUID, data: CancelBody | PreviewBody, *, now: datetime
) -> Subscription:
    return subscriptions.cancel(
        tx,
        customer_id=customer_id,
        at_period_end=data.at_period_end,
        credit=data.credit,
        now=now,
        can_pay=payments.payable,
    )


def _act(customer_id: UUID, data: PreviewBody, *, now: datetime) -> Act:
    """Return what the verb of a preview does: the functions that its own route calls."""
    bodied = {Verb.SUBSCRIBE: _subscribed, Verb.CHANGE: _changed, Verb.CANCEL: _canceled}
    if data.verb in bodied:
        work = bodied[data.verb]
        return lambda tx: work(tx, customer_id, data, now=now)
    return partial(_PLAIN[data.verb], customer_id=customer_id, now=now, can_pay=payments.payable)
