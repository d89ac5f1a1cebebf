"""One small business over HTTP, each operation of the API once: what the examples are held to."""

from datetime import timedelta
from typing import Any

import httpx

from convergio.billing import actions as billing
from convergio.catalog.actions import EXAMPLE
from convergio.infra.clock import VirtualClock
from tests.fakes.api import Api, event

Told = dict[str, tuple[Any, httpx.Response]]
MORE = """
  - key: priority
    name: Priority support
    add_on: true
    prices:
      - key: priority_fee
        name: Priority support
        interval: month
        charge: {model: flat, amount: "5.00"}
"""


class Story:
    """Calls operations and keeps what was sent and told."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.told: Told = {}

    def call(
        self,
        name: str,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - any JSON
    ) -> Any:  # noqa: ANN401 - any JSON
        """Call one operation, which must succeed, and return its answer."""
        found = self.api.send(method, path, body)
        assert found.is_success, f"{name}: {found.status_code} {found.text}"
        sent = body.decode() if isinstance(body, bytes) else body
        self.told[name] = (sent, found)
        kind = found.headers.get("content-type", "")
        return found.json() if kind.startswith("application/json") else None

    def bill(self) -> None:
        """Run the billing of now."""
        product = self.api.product
        billing.run(
            product.database,
            as_of=self.api.now,
            now=self.api.now,
            seller=product.settings.seller,
            keyring=product.keyring,
            grace=product.grace * 0,
        )

    def forward(self, **much: float) -> None:
        """Let time pass."""
        clock = self.api.product.clock
        assert isinstance(clock, VirtualClock)
        clock.advance_to(self.api.now + timedelta(**much))


def tell(api: Api) -> Told:
    """Live the story and return what was sent and told."""
    story = Story(api)
    for part in (_catalog, _customers, _subscriptions, _agreed, _usage, _invoices, _ends):
        part(story)
    return story.told


def _customers(story: Story) -> None:
    call = story.call
    whole = {
        "key": "acme", "currency": "usd", "name": "Acme Ltd", "email": "billing@acme.example",
        "street": "1 Sample Street", "postal_code": "00100", "city": "Rome", "country": "IT",
        "tax_id": "IT00743110157",
    }  # fmt: skip
    call("create_customer", "POST", "/v1/customers", whole)
    call(
        "update_customer",
        "PATCH",
        "/v1/customers/acme",
        {"city": "Milan", "purchase_order": "PO 7"},
    )
    call("show_customer", "GET", "/v1/customers/acme")
    call("list_customers", "GET", "/v1/customers?limit=1")
    seen = {"verified": True, "evidence": "VIES, consultation WAPIAAAAX1"}
    call("check_tax_id", "POST", "/v1/customers/acme/tax-id-check", seen)
    card = {"kind": "card", "country": "IT", "note": "issuer of the card"}
    call("locate_customer", "POST", "/v1/customers/acme/location-evidence", card)
    call("list_location_evidence", "GET", "/v1/customers/acme/location-evidence")
    call("show_terms", "GET", "/v1/customers/acme/terms")
    terms = {"collection": "send_invoice", "net_days": 30}
    call("set_terms", "PUT", "/v1/customers/acme/terms", terms)


def _agreed(story: Story) -> None:
    call = story.call
    offer = {"code": "SPRING", "percent": "10", "duration": "repeating", "periods": 3}
    call("create_coupon", "POST", "/v1/coupons", offer)
    call("list_coupons", "GET", "/v1/coupons")
    redeemed = {"customer": "acme", "code": "SPRING"}
    call("redeem_coupon", "POST", "/v1/coupon-redemptions", redeemed)
    call("list_redemptions", "GET", "/v1/coupon-redemptions?customer=acme")
    call("archive_coupon", "POST", "/v1/coupons/SPRING/archive")
    add = {"customer": "acme", "add_on": "priority", "quantity": 1}
    call("preview_add_on", "POST", "/v1/subscriptions/add-on/preview", add)
    call("set_add_on", "POST", "/v1/subscriptions/add-on", add)
    once = {"customer": "acme", "description": "Migration", "amount": "50.00"}
    call("preview_charge", "POST", "/v1/charges/preview", once)
    call("create_charge", "POST", "/v1/charges", once)
    seats = {"team_seats": {"charge": {"model": "seat", "unit": "5.00"}}}
    agreed = {"customer": "acme", "steps": [{"prices": seats}]}
    call("preview_prices", "POST", "/v1/subscriptions/prices/preview", agreed)
    call("agree_prices", "POST", "/v1/subscriptions/prices", agreed)
    where = "/v1/customers/acme/credit-grants"
    grant = {"key": "welcome", "category": "promotional", "meter": "questions", "quantity": "100"}
    made = call("create_grant", "POST", where, grant)
    call("list_grants", "GET", where)
    call("void_grant", "POST", f"{where}/{made['id']}/void")


def _subscriptions(story: Story) -> None:
    call, whose = story.call, {"customer": "acme"}
    look = {"customer": "acme", "verb": "subscribe", "plan": "pro"}
    call("preview_change", "POST", "/v1/subscriptions/preview", look)
    made = call("subscribe", "POST", "/v1/subscriptions", {"customer": "acme", "plan": "pro"})
    call("list_subscriptions", "GET", "/v1/subscriptions?customer=acme&limit=1")
    call("show_subscription", "GET", f"/v1/customers/acme/subscriptions/{made['id']}")
    call("list_drafts", "GET", "/v1/invoices/drafts")
    story.bill()
    story.forward(days=1)
    bigger = {"customer": "acme", "plan": "team", "seats": 3}
    call("change", "POST", "/v1/subscriptions/change", bigger)
    story.api.post("/v1/subscriptions/change", {"customer": "acme", "seats": 2})
    call("drop_change", "POST", "/v1/subscriptions/drop-change", whose)
    call("pause", "POST", "/v1/subscriptions/pause", whose)
    call("resume", "POST", "/v1/subscriptions/resume", whose)


def _usage(story: Story) -> None:
    call, ask = story.call, {"customer": "acme", "meter": "questions", "quantity": "20"}
    sent = [event("acme", "1", data={"quantity": "2"}), event("acme", "1", data={"quantity": "2"})]
    call("count_events", "POST", "/v1/events", sent)
    call("usage", "GET", "/v1/usage?meter=questions&by=day&customer=acme")
    held = [call("authorize", "POST", "/v1/authorize", ask)["reservation"] for _ in range(2)]
    call(
        "commit", "POST", f"/v1/reservations/{held[0]}/commit", {"customer": "acme", "actual": "12"}
    )
    call("release", "POST", f"/v1/reservations/{held[1]}/release", {"customer": "acme"})
    call("set_spend_cap", "PUT", "/v1/customers/acme/spend-cap", {"amount": "25.00"})
    call("quota", "GET", "/v1/quota?customer=acme&meter=questions")
    want = {"customer": "acme", "meter": "questions", "wanted": "50"}
    lease = call("acquire", "POST", "/v1/leases", want)["lease"]
    used = {"customer": "acme", "used": "3", "sequence": 1, "wanted": "50"}
    call("renew", "POST", f"/v1/leases/{lease}/renew", used)
    call("list_leases", "GET", "/v1/customers/acme/leases")
    call("settle", "POST", f"/v1/leases/{lease}/settle", {"customer": "acme", "used": "4"})
    lost = story.api.post("/v1/leases", want).json()["lease"]
    story.forward(minutes=5)
    call("declare_lost", "POST", f"/v1/leases/{lost}/declare-lost", {"customer": "acme"})


def _invoices(story: Story) -> None:
    call = story.call
    story.bill()
    found = call("list_invoices", "GET", "/v1/invoices?customer=acme&status=open")["invoices"]
    first, last = f"/v1/invoices/{found[0]['number']}", f"/v1/invoices/{found[-1]['number']}"
    call("show_invoice", "GET", first)
    call("invoice_pdf", "GET", f"{first}/pdf")
    call("explain", "GET", f"{first}/lines/1/explain")
    call("preview", "GET", "/v1/invoices/preview?customer=acme")
    note = call("credit", "POST", f"{last}/credit", {"reason": "delay", "amount": "2.00"})
    call("list_credit_notes", "GET", "/v1/credit-notes?customer=acme&limit=1")
    call("show_credit_note", "GET", f"/v1/credit-notes/{note['number']}")
    call("credit_note_pdf", "GET", f"/v1/credit-notes/{note['number']}/pdf")
    paid = {
        "customer": "acme", "amount": "1.00", "reference": "TRN 2025-01-16/77",
        "received_on": "2025-01-15",
    }  # fmt: skip
    call("record_receipt", "POST", "/v1/receipts", paid)
    call("list_receipts", "GET", "/v1/receipts?customer=acme")
    call("billing_history", "GET", "/v1/customers/acme/billing-history")
    call("void", "POST", f"/v1/invoices/{story.api.billed()}/void", {"how": "waive"})


def _ends(story: Story) -> None:
    call = story.call
    call("cancel", "POST", "/v1/subscriptions/cancel", {"customer": "acme"})
    call("reactivate", "POST", "/v1/subscriptions/reactivate", {"customer": "acme"})
    number = story.api.billed()
    call("uncollectible", "POST", f"/v1/invoices/{number}/uncollectible")


def _catalog(story: Story) -> None:
    call = story.call
    file = EXAMPLE.read_bytes() + MORE.encode()
    call("plan_catalog", "POST", "/v1/catalog/plan", file)
    call("apply_catalog", "POST", "/v1/catalog/apply", file)
    call("show_catalog", "GET", "/v1/catalog")


def shape(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value as the names that it holds: fields of objects, in lists the first's."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None
