"""Customers over HTTP: make, read, change and list them, and what went between them and us.

Personal fields are sealed before they are stored, and only `GET /v1/customers/{customer}` shows
them; a list and the answer to a change never do.
"""

from typing import Any, Final

import msgspec
from litestar import get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from convergio.api import paging
from convergio.api.requests import Anyone, PageSize, Text, needs, principal_of, product_of
from convergio.api.security import own, unbound
from convergio.customers import actions as customers
from convergio.customers.model import Customer, Details
from convergio.identity.model import Scope
from convergio.infra import ids
from convergio.infra.db import Tx
from convergio.kernel.errors import Invalid
from convergio.kernel.periods import instant_text
from convergio.payments import history
from convergio.taxes import actions as taxes
from convergio.taxes.model import Evidence, EvidenceKind
from convergio.taxes.numbers import OfflineChecker
from convergio.taxes.rules import evidence_value

Field = str | msgspec.UnsetType | None


class CustomerDetails(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of a customer; what is left out stays as it is, and null forgets it."""

    name: Field = msgspec.UNSET
    email: Field = msgspec.UNSET
    address: Field = msgspec.UNSET
    street: Field = msgspec.UNSET
    postal_code: Field = msgspec.UNSET
    city: Field = msgspec.UNSET
    region: Field = msgspec.UNSET
    country: Field = msgspec.UNSET
    locale: str | msgspec.UnsetType = msgspec.UNSET
    tax_id: Field = msgspec.UNSET
    tax_exempt: Field = msgspec.UNSET
    tax_exempt_reason: Field = msgspec.UNSET
    sdi_code: Field = msgspec.UNSET
    pec: Field = msgspec.UNSET
    purchase_order: Field = msgspec.UNSET


class CustomerBody(CustomerDetails, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new customer: the key by which your own systems know them, and what else is known."""

    key: Text
    currency: str = "usd"


class TaxIdBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the tax id was found to be real and the customer's own, and what was looked at."""

    verified: bool
    evidence: Text | None = None


class EvidenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What says where the customer is, such as their card, and what was looked at."""

    kind: EvidenceKind
    country: Text
    note: Text | None = None


@post("/v1/customers", opt=needs(Scope.CUSTOMERS_WRITE), sync_to_thread=True)
def create_customer(request: Anyone, data: JSONBody[CustomerBody]) -> dict[str, Any]:
    """Make a customer; a key that exists already is refused, so a retry makes no second one."""
    product = product_of(request)
    unbound(principal_of(request))
    found = product.database.insist(
        lambda tx: customers.create(
            tx,
            product.keyring,
            key=data.key,
            currency=data.currency,
            now=product.clock.now(),
            **_details(data),
        )
    )
    return _account(found)


@get("/v1/customers", opt=needs(Scope.CUSTOMERS_READ), sync_to_thread=True)
def list_customers(
    request: Anyone,
    email: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a page of customers in the order of their making, or those with an e-mail address."""
    product = product_of(request)
    unbound(principal_of(request))
    with product.database.transaction() as tx:
        if email is not None:
            found = customers.find_by_email(tx, product.keyring, email, size_max=limit)
            return {"customers": [_account(one) for one in found], "next": None}
        found = customers.page(tx, after=paging.one(after), size_max=limit)
    following = paging.following(found, limit, lambda last: last.customer_id)
    return {"customers": [_account(one) for one in found], "next": following}


@get("/v1/customers/{customer:str}", opt=needs(Scope.CUSTOMERS_READ), sync_to_thread=True)
def show_customer(request: Anyone, customer: FromPath[str]) -> dict[str, Any]:
    """Return a customer with their personal fields."""
    product = product_of(request)
    with product.database.transaction() as tx:
        found = customers.find(tx, customer)
        own(principal_of(request), found.customer_id)
        personal = customers.personal(tx, product.keyring, found.customer_id)
    fields = {name: getattr(personal, name) for name in personal.__slots__}
    return _account(found) | fields


@patch("/v1/customers/{customer:str}", opt=needs(Scope.CUSTOMERS_WRITE), sync_to_thread=True)
def update_customer(
    request: Anyone, customer: FromPath[str], data: JSONBody[CustomerDetails]
) -> dict[str, Any]:
    """Change what is known of a customer; issued invoices keep what they say."""
    product = product_of(request)
    details = _details(data)
    if not details:
        raise Invalid("name at least one field to change", code="nothing_to_change")
    principal = principal_of(request)

    def change(tx: Tx) -> Customer:
        found = customers.find(tx, customer)
        own(principal, found.customer_id)
        if principal.customer_id and details.keys() & {"tax_exempt", "tax_exempt_reason"}:
            unbound(principal)  # who pays tax is the seller's to say
        return customers.update(
            tx, product.keyring, found.customer_id, now=product.clock.now(), **details
        )

    return _account(product.database.insist(change))


@post(
    "/v1/customers/{customer:str}/tax-id-check",
    status_code=200,
    opt=needs(Scope.CUSTOMERS_WRITE),
    sync_to_thread=True,
)
def check_tax_id(
    request: Anyone, customer: FromPath[str], data: JSONBody[TaxIdBody]
) -> dict[str, Any]:
    """Keep that somebody saw the tax id to be real and theirs, with evidence, or that it is not.

    A number that cannot be one of the customer's country stays unverified.
    """
    unbound(principal_of(request))
    product = product_of(request)
    now = product.clock.now()

    def check(tx: Tx) -> Customer:
        who = customers.find(tx, customer).customer_id
        if data.verified:
            taxes.verify_number(
                tx, product.keyring, OfflineChecker(), customer_id=who,
                evidence=data.evidence or "", now=now,
            )  # fmt: skip
        else:
            customers.set_tax_id_verified(tx, product.keyring, who, verified=False, now=now)
        return customers.get(tx, who)

    return _account(product.database.insist(check))


@post(
    "/v1/customers/{customer:str}/location-evidence",
    status_code=200,
    opt=needs(Scope.CUSTOMERS_WRITE),
    sync_to_thread=True,
)
def locate_customer(
    request: Anyone, customer: FromPath[str], data: JSONBody[EvidenceBody]
) -> dict[str, Any]:
    """Keep what says where a customer is, beside the account; the last of a kind counts.

    What contradicts the account keeps its invoices waiting until it is settled.
    """
    unbound(principal_of(request))
    product = product_of(request)

    def locate(tx: Tx) -> Evidence:
        return taxes.locate(
            tx,
            customer_id=customers.find(tx, customer).customer_id,
            kind=data.kind,
            country=data.country,
            note=data.note,
            now=product.clock.now(),
        )

    return evidence_value(product.database.insist(locate))


@get(
    "/v1/customers/{customer:str}/location-evidence",
    opt=needs(Scope.CUSTOMERS_READ),
    sync_to_thread=True,
)
def list_location_evidence(request: Anyone, customer: FromPath[str]) -> dict[str, Any]:
    """Return what says where a customer is: the account's country, and what was seen beside it."""
    with product_of(request).database.transaction() as tx:
        account = customers.find(tx, customer)
        own(principal_of(request), account.customer_id)
        found = taxes.evidence_of(tx, [account.customer_id]).get(account.customer_id, [])
    return {"country": account.country, "evidence": [evidence_value(one) for one in found]}


@get(
    "/v1/customers/{customer:str}/billing-history",
    opt=needs(Scope.INVOICES_READ),
    sync_to_thread=True,
)
def billing_history(
    request: Anyone,
    customer: FromPath[str],
    after: FromQuery[str | None] = None,
    limit: PageSize = 50,
) -> dict[str, Any]:
    """Return a customer's invoices, payments and credit notes in the order in which they came."""
    with product_of(request).database.transaction() as tx:
        customer_id = customers.find(tx, customer).customer_id
        own(principal_of(request), customer_id)
        found = history.page(tx, customer_id, after=paging.moment(after), limit=limit)
    following = paging.following(found, limit, lambda last: (last.at, last.entry_id))
    return {"entries": [history.value(one) for one in found], "next": following}


CUSTOMER_ROUTES: Final = (
    create_customer,
    list_customers,
    show_customer,
    update_customer,
    check_tax_id,
    locate_customer,
    list_location_evidence,
    billing_history,
)


def _details(data: CustomerDetails) -> Details:
    """Return the fields that the body names, null or not."""
    return msgspec.convert(
        {name: getattr(data, name) for name in CustomerDetails.__struct_fields__
         if getattr(data, name) is not msgspec.UNSET},
        Details,
    )  # fmt: skip


def _account(found: Customer) -> dict[str, Any]:
    """Return what is no personal data."""
    verified = found.tax_id_verified_at
    return {
        "id": ids.typeid("cus", found.customer_id),
        "key": found.customer_key,
        "currency": found.currency,
        "country": found.country,
        "locale": found.locale,
        "tax_exempt": found.tax_exempt,
        "tax_exempt_reason": found.tax_exempt_reason,
        "tax_id_verified_at": None if verified is None else instant_text(verified),
        "created_at": instant_text(found.created_at),
    }
