"""Money that came by bank transfer, and how a customer pays, over HTTP."""

from datetime import date
from typing import Annotated, Any, Final

import msgspec
from litestar import get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api.once import once
from convergio.api.requests import Anyone, PageSize, Text, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.billing import actions as billing
from convergio.billing import terms
from convergio.billing.errors import unknown_invoice
from convergio.billing.model import CollectionMethod, Terms
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra.db import Tx
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.money import Money
from convergio.payments import receiving
from convergio.payments.model import ReceiptMethod

NetDays = Annotated[int, msgspec.Meta(ge=0, le=terms.NET_DAYS_MAX)]


class ReceiptBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bank statement says; without an invoice the oldest open ones are paid."""

    customer: Text
    amount: Text
    reference: Text
    received_on: date
    invoice: Text | None = None
    method: ReceiptMethod = ReceiptMethod.BANK_TRANSFER


class TermsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a customer pays, and within how many days; null: within the seller's usual ones."""

    collection: CollectionMethod
    net_days: NetDays | None = None


@post("/v1/receipts", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def record_receipt(tx: Tx, request: Anyone, data: JSONBody[ReceiptBody]) -> dict[str, Any]:
    """Enter money that arrived outside of a gateway; the same reference twice is one receipt."""
    unbound(principal_of(request))
    customer = customers.find(tx, data.customer)
    invoice = None
    if data.invoice is not None:
        invoice = billing.find_numbered(tx, data.invoice)
        if invoice.customer_id != customer.customer_id:
            raise unknown_invoice()
    found = receiving.record(
        tx,
        customer_id=customer.customer_id,
        amount=Money.parse(data.amount, customer.currency),
        method=data.method,
        reference=data.reference,
        received_on=data.received_on,
        now=product_of(request).clock.now(),
        invoice=invoice,
    )
    return receiving.value(found)


@get("/v1/receipts", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def list_receipts(
    request: Anyone,
    *,
    customer: FromQuery[str],
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a customer's receipts, the oldest entry first, a page at a time."""
    with product_of(request).database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        own(principal_of(request), customer_id)
        last = parse_typeid("rec", after) if after else None
        found = receiving.receipts(tx, customer_id, after=last, limit=limit)
    following = typeid("rec", found[-1].receipt_id) if len(found) == limit else None
    return {"receipts": [receiving.value(one) for one in found], "next": following}


@get("/v1/customers/{customer:str}/terms", opt=needs(Scope.INVOICES_READ), sync_to_thread=True)
def show_terms(request: Anyone, customer: FromPath[str]) -> dict[str, Any]:
    """Return how a customer pays."""
    product = product_of(request)
    with product.database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        own(principal_of(request), customer_id)
        return _value(terms.terms_of(tx, customer_id), product.settings.seller.net_days)


@put("/v1/customers/{customer:str}/terms", opt=needs(Scope.BILLING_RUN), sync_to_thread=True)
@once
def set_terms(
    tx: Tx, request: Anyone, customer: FromPath[str], data: JSONBody[TermsBody]
) -> dict[str, Any]:
    """Agree on how a customer pays; invoices that are out keep their due day."""
    unbound(principal_of(request))
    product = product_of(request)
    found = terms.set_terms(
        tx,
        customers.find(tx, customer).customer_id,
        data.collection,
        data.net_days,
        now=product.clock.now(),
    )
    return _value(found, product.settings.seller.net_days)


def _value(found: Terms, usual: int) -> dict[str, Any]:
    return {
        "collection": found.collection.value,
        "net_days": usual if found.net_days is None else found.net_days,
        "agreed": found.net_days is not None,
    }


RECEIPT_ROUTES: Final = (record_receipt, list_receipts, show_terms, set_terms)
