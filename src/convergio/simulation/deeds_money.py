"""What is done about coupons, credit and tax in a script, as calls of the product's own actions.

Steps of nobody's are the seller's: a coupon is offered, the tax file is applied. As in `deeds.py`,
what is returned is the fact that the oracle is told.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from convergio.billing import redeeming
from convergio.billing.actions import Issuer
from convergio.customers import actions as customers
from convergio.discounts import actions as discounts
from convergio.discounts.model import Duration, Terms
from convergio.entitlements import grants
from convergio.entitlements.model import Category, GrantTerms
from convergio.infra.db import Tx
from convergio.kernel.errors import NotFound
from convergio.kernel.money import Money
from convergio.payments import actions as payments
from convergio.simulation.script import Step
from convergio.taxes import actions as taxes
from convergio.taxes.numbers import OfflineChecker

_ADDRESS: Final = {"street": "1 Sim Road", "postal_code": "00144", "city": "Simville"}
_PAGE: Final = 1_000
Deed = Callable[[Tx, Step, UUID, Issuer], Step]


def _coupon(tx: Tx, step: Step, _: UUID, by: Issuer) -> Step:
    words = step.words
    terms = Terms(
        code=words["code"],
        name=words["code"],
        percent=Decimal(words["percent"]) if "percent" in words else None,
        amount=int(words["amount"]) if "amount" in words else None,
        currency=words.get("currency"),
        duration=Duration(words["duration"]),
        periods=int(words["periods"]) if "periods" in words else None,
        plans=(words["plan"],) if "plan" in words else (),
        prices=(words["price"],) if "price" in words else (),
        redeem_by=datetime.fromisoformat(words["by"]) if "by" in words else None,
        limit_in_all=int(words["limit"]) if "limit" in words else None,
        limit_customer=int(words.get("each", "1")),
    )
    discounts.create(tx, terms, now=by.as_of)
    return step


def _archive(tx: Tx, step: Step, _: UUID, by: Issuer) -> Step:
    discounts.archive(tx, step.words["code"], now=by.as_of)
    return step


def _redeem(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    redeeming.redeem(
        tx,
        customer_id=customer_id,
        code=step.words["code"],
        now=by.as_of,
        can_pay=payments.payable,
    )
    return step


def _grant(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    words = step.words
    starts = words.get("starts", by.as_of.isoformat())
    amount = None
    if "amount" in words:
        amount = Money(int(words["amount"]), customers.get(tx, customer_id).currency).text()
    terms = GrantTerms(
        key=words["key"],
        category=Category(words.get("category", "promotional")),
        meter_key=words.get("meter"),
        quantity=Decimal(words["quantity"]) if "quantity" in words else None,
        amount=amount,
        priority=int(words.get("priority", "100")),
        starts_at=datetime.fromisoformat(starts),
        expires_at=datetime.fromisoformat(words["expires"]) if "expires" in words else None,
    )
    grants.create(tx, step.who, terms, now=by.as_of)
    return replace(step, words={**words, "starts": starts})


def _void_grant(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    found = grants.page(tx, customer_id, now=by.as_of, size=_PAGE)
    named = [one.grant for one in found if one.grant.key == step.words["key"]]
    if not named:
        raise NotFound("there is no grant of this key", code="unknown_grant")
    grants.void(tx, step.who, named[0].grant_id, now=by.as_of)
    return step


def _tax(tx: Tx, step: Step, _: UUID, by: Issuer) -> Step:
    words = step.words
    file: dict[str, Any] = {
        "seller": words["seller"],
        "one_stop_shop": "true" if words.get("oss") == "yes" else "false",
        "registrations": [_entry(text, rated=False) for text in words["registrations"].split(",")],
        "rates": [_entry(text, rated=True) for text in words["rates"].split(",")],
    }
    if words.get("fatturapa") == "yes":
        file["fatturapa"] = "true"
    taxes.apply(tx, msgspec.json.encode(file), now=by.as_of)
    return step


def _entry(text: str, *, rated: bool) -> dict[str, Any]:
    """Read `country[/region]:category:percent:from:to`, of which all but the first may be empty."""
    where, category, percent, since, until = text.split(":")
    country, _, region = where.partition("/")
    entry: dict[str, Any] = {"country": country, "region": region, "from": since, "to": until}
    if rated:
        entry["category"] = category
        more = {"exempt": "true", "reason": "Art. 10"} if percent == "exempt" else {}
        entry |= more or {"percent": percent}
    return {name: value for name, value in entry.items() if value}


def _place(tx: Tx, step: Step, customer_id: UUID, by: Issuer) -> Step:
    """Say where a customer is, and what its tax number is, if it has one that is verified."""
    words, address = step.words, _ADDRESS if step.words.get("country") else {}
    customers.update(
        tx,
        by.keyring,
        customer_id,
        now=by.as_of,
        country=words.get("country") or None,
        region=words.get("region") or None,
        tax_exempt=words.get("exempt") or None,
        tax_id=words.get("number") or None,
        street=address.get("street"),
        postal_code=address.get("postal_code"),
        city=address.get("city"),
    )
    said = ""
    if words.get("number") and words.get("checked") == "yes":
        check = taxes.verify_number(
            tx,
            by.keyring,
            OfflineChecker(),
            customer_id=customer_id,
            evidence="the register said so",
            now=by.as_of,
        )
        said = "real" if check.is_valid else "wrong"
    names = ("country", "region", "exempt", "number")
    return replace(step, words={name: words.get(name, "") for name in names} | {"said": said})


OF_THE_SELLER: Final[Mapping[str, Deed]] = {"coupon": _coupon, "archive": _archive, "tax": _tax}
OF_A_CUSTOMER: Final[Mapping[str, Deed]] = {
    "redeem": _redeem,
    "grant": _grant,
    "void_grant": _void_grant,
    "place": _place,
}
