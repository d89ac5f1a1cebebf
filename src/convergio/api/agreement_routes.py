"""What is agreed beside the catalog, over HTTP: add-ons, one-off charges, a customer's prices."""

from typing import Any, Final

import msgspec
from litestar import post
from litestar.params import JSONBody

from convergio.api.once import once
from convergio.api.requests import Anyone, Text, needs, principal_of, product_of
from convergio.api.security import unbound
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra.db import Tx
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.subscriptions import adding, changes, negotiating
from convergio.subscriptions.model import When


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


@post(
    "/v1/subscriptions/add-on",
    status_code=200,
    opt=needs(Scope.SUBSCRIPTIONS_WRITE),
    sync_to_thread=True,
)
@once
def set_add_on(tx: Tx, request: Anyone, data: JSONBody[AddOnBody]) -> dict[str, Any]:
    """Take so many of an add-on beside the plan."""
    unbound(principal_of(request))
    live = adding.set_add_on(
        tx,
        customer_id=customers.find(tx, data.customer).customer_id,
        key=data.add_on,
        quantity=data.quantity,
        when=data.when,
        now=product_of(request).clock.now(),
    )
    return changes.value(live, changes.pending(tx, live)) | {"add_ons": adding.add_ons(tx, live)}


@post("/v1/charges", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def create_charge(tx: Tx, request: Anyone, data: JSONBody[ChargeBody]) -> dict[str, Any]:
    """Ask a customer for an amount once, on the next invoice or on one of its own now."""
    unbound(principal_of(request))
    customer = customers.find(tx, data.customer)
    amount = Money.parse(data.amount, customer.currency)
    price, at = adding.charge_once(
        tx,
        customer_id=customer.customer_id,
        description=data.description,
        amount=amount,
        tax_category=data.tax_category,
        when=data.when,
        now=product_of(request).clock.now(),
    )
    return {
        "id": typeid("price", price.price_id),
        "customer": typeid("cus", customer.customer_id),
        "description": price.name,
        "amount": amount.text(),
        "currency": amount.currency,
        "due_at": instant_text(at),
    }


@post("/v1/subscriptions/prices", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def agree_prices(tx: Tx, request: Anyone, data: JSONBody[AgreementBody]) -> dict[str, Any]:
    """Agree on prices with one customer, from now on or in steps (a ramp)."""
    unbound(principal_of(request))
    made = negotiating.agree(
        tx,
        customer_id=customers.find(tx, data.customer).customer_id,
        steps_=negotiating.steps_of(data),
        now=product_of(request).clock.now(),
    )
    return {"prices": [{"id": typeid("price", p.price_id), "key": p.key} for p in made]}


AGREEMENT_ROUTES: Final = (set_add_on, create_charge, agree_prices)
