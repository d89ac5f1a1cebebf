"""What is agreed beside the catalog, over HTTP: add-ons, one-off charges, a customer's prices.

Each has a preview beside it, with the same body: the same function, billed and undone.
"""

from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import msgspec
from litestar import post
from litestar.params import JSONBody

from convergio.api.once import once
from convergio.api.requests import Anyone, Text, needs, principal_of, product_of
from convergio.api.security import unbound
from convergio.billing import explaining
from convergio.catalog.model import Price
from convergio.customers import actions as customers
from convergio.customers.model import Customer
from convergio.identity.model import Scope
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.payments import actions as payments
from convergio.subscriptions import adding, changes, negotiating
from convergio.subscriptions.model import Subscription, When


class AddOnBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of an add-on; 0 takes it away, now with credit or at the period's end without."""

    customer: Text
    add_on: Text
    quantity: int = 1
    when: When = When.NOW


class ChargeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount to ask for once, and what the invoice calls it: the next one, or one now."""

    customer: Text
    description: Text
    amount: Text
    tax_category: Text = "standard"
    when: When = When.PERIOD_END


class AgreementBody(negotiating.AgreementFile, frozen=True, kw_only=True):
    """A customer's own prices, from now on or in steps that build on each other."""

    customer: Text


Body_contra = TypeVar("Body_contra", AddOnBody, ChargeBody, AgreementBody, contravariant=True)


@post(
    "/v1/subscriptions/add-on",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def set_add_on(tx: Tx, request: Anyone, data: JSONBody[AddOnBody]) -> dict[str, Any]:
    """Take so many of an add-on beside the plan."""
    live = _taken(tx, request, data, now=_now(request))
    return changes.value(live, changes.pending(tx, live)) | {"add_ons": adding.add_ons(tx, live)}


@post(
    "/v1/subscriptions/add-on/preview",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_READ),
    sync_to_thread=True,
)
def preview_add_on(request: Anyone, data: JSONBody[AddOnBody]) -> dict[str, Any]:
    """Return what taking an add-on, or giving it back, would bill; nothing is kept."""
    return _looked_at(request, data, _taken)


@post("/v1/charges", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def create_charge(tx: Tx, request: Anyone, data: JSONBody[ChargeBody]) -> dict[str, Any]:
    """Ask a customer for an amount once, on the next invoice or on one of its own now."""
    customer, price, at = _charged(tx, request, data, now=_now(request))
    return {
        "id": typeid("price", price.price_id),
        "customer": typeid("cus", customer.customer_id),
        "description": price.name,
        "amount": Money.parse(data.amount, customer.currency).text(),
        "currency": price.currency,
        "due_at": instant_text(at),
    }


@post(
    "/v1/charges/preview",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_READ),
    sync_to_thread=True,
)
def preview_charge(request: Anyone, data: JSONBody[ChargeBody]) -> dict[str, Any]:
    """Return what asking for an amount once would bill, and when; nothing is kept."""
    return _looked_at(request, data, _charged)


@post("/v1/subscriptions/prices", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def agree_prices(tx: Tx, request: Anyone, data: JSONBody[AgreementBody]) -> dict[str, Any]:
    """Agree on prices with one customer, from now on or in steps (a ramp)."""
    made = _agreed(tx, request, data, now=_now(request))
    return {"prices": [{"id": typeid("price", p.price_id), "key": p.key} for p in made]}


@post(
    "/v1/subscriptions/prices/preview",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_READ),
    sync_to_thread=True,
)
def preview_prices(request: Anyone, data: JSONBody[AgreementBody]) -> dict[str, Any]:
    """Return what agreed prices would bill now and at the next boundary; nothing is kept."""
    return _looked_at(request, data, _agreed)


AGREEMENT_ROUTES: Final = (
    set_add_on,
    preview_add_on,
    create_charge,
    preview_charge,
    agree_prices,
    preview_prices,
)


class _Act(Protocol[Body_contra]):
    """What a route does, at an instant, so that its preview can look at the very same one."""

    def __call__(self, tx: Tx, request: Anyone, data: Body_contra, *, now: datetime) -> object: ...


def _now(request: Anyone) -> datetime:
    return product_of(request).clock.now()


def _looked_at(request: Anyone, data: Body_contra, act: _Act[Body_contra]) -> dict[str, Any]:
    """Do what the route beside it does, bill it, undo it, and return what that came to."""
    unbound(principal_of(request))
    product, now = product_of(request), _now(request)

    def look(tx: Tx) -> explaining.Consequence:
        customer_id = customers.find(tx, data.customer).customer_id
        return explaining.consequence(
            tx,
            customer_id=customer_id,
            act=explaining.of_live(customer_id, lambda tx: act(tx, request, data, now=now)),
            now=now,
            can_pay=payments.payable,
            keyring=product.keyring,
        )

    return explaining.consequence_value(product.database.insist(look))


def _taken(tx: Tx, request: Anyone, data: AddOnBody, *, now: datetime) -> Subscription:
    unbound(principal_of(request))
    return adding.set_add_on(
        tx,
        customer_id=customers.find(tx, data.customer).customer_id,
        key=data.add_on,
        quantity=data.quantity,
        when=data.when,
        now=now,
        can_pay=payments.payable,
    )


def _charged(
    tx: Tx, request: Anyone, data: ChargeBody, *, now: datetime
) -> tuple[Customer, Price, datetime]:
    unbound(principal_of(request))
    customer = customers.find(tx, data.customer)
    price, at = adding.charge_once(
        tx,
        customer_id=customer.customer_id,
        description=data.description,
        amount=Money.parse(data.amount, customer.currency),
        tax_category=data.tax_category,
        when=data.when,
        now=now,
        can_pay=payments.payable,
    )
    return customer, price, at


def _agreed(tx: Tx, request: Anyone, data: AgreementBody, *, now: datetime) -> list[Price]:
    unbound(principal_of(request))
    return negotiating.agree(
        tx,
        customer_id=customers.find(tx, data.customer).customer_id,
        steps_=negotiating.steps_of(data),
        now=now,
        can_pay=payments.payable,
    )
