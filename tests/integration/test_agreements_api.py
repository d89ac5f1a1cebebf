"""Add-ons, charges, negotiated prices, receipts, terms and drafts over HTTP and as commands."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.identity.model import Scope
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, running

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, words)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def body(found: httpx.Response, status: int = 200) -> Any:  # noqa: ANN401 - any JSON value
    assert found.status_code == status, found.text
    return found.json()


def test_a_receipt_over_http_pays_and_the_same_reference_is_one(api: Api) -> None:
    number = api.billed()
    who = body(api.get(f"/v1/invoices/{number}"))["customer"]
    wanted = {
        "customer": who, "amount": "5.00", "reference": "TRF 1", "received_on": "2025-01-10",
        "invoice": number,
    }  # fmt: skip
    made = body(api.post("/v1/receipts", wanted), 201)
    assert body(api.post("/v1/receipts", wanted), 201) == made
    assert body(api.get(f"/v1/invoices/{number}"))["due"] == "1.99"
    listed = body(api.get(f"/v1/receipts?customer={who}"))
    assert listed == {"receipts": [made], "next": None}
    changed = api.post("/v1/receipts", wanted | {"amount": "6.00"})
    assert (changed.status_code, changed.json()["code"]) == (409, "other_receipt")


def test_a_receipt_for_an_invoice_of_another_customer_is_not_found(api: Api) -> None:
    number, (other, _) = api.billed(), api.customer("pro")
    wanted = {
        "customer": other, "amount": "5.00", "reference": "TRF 1", "received_on": "2025-01-10",
        "invoice": number,
    }  # fmt: skip
    assert api.post("/v1/receipts", wanted).status_code == 404


def test_terms_are_agreed_and_shown(api: Api) -> None:
    who, _ = api.customer("pro")
    usual = {"collection": "charge_automatically", "net_days": 14, "agreed": False}
    assert body(api.get(f"/v1/customers/{who}/terms")) == usual
    wanted = {"collection": "send_invoice", "net_days": 30}
    assert body(api.send("PUT", f"/v1/customers/{who}/terms", wanted))["agreed"] is True
    assert body(api.get(f"/v1/customers/{who}/terms"))["net_days"] == 30
    wrong = api.send("PUT", f"/v1/customers/{who}/terms", wanted | {"net_days": 900})
    assert wrong.status_code == 422


def test_a_one_off_charge_is_a_draft_at_once(api: Api) -> None:
    who, _ = api.customer("pro")
    wanted = {"customer": who, "description": "Onboarding", "amount": "250.00", "when": "now"}
    made = body(api.post("/v1/charges", wanted), 201)
    assert (made["amount"], made["currency"]) == ("250.00", "usd")
    drafts, after = [], ""
    while True:
        page = body(api.get(f"/v1/invoices/drafts?limit=2{after}"))
        drafts += page["drafts"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    (mine,) = [one for one in drafts if one["customer"] == made["customer"]]
    assert (mine["status"], mine["total"]) == ("draft", "256.99")
    assert {line["description"] for line in mine["lines"]} >= {"Onboarding"}
    shown = body(api.get(f"/v1/invoices/preview?customer={who}"))
    assert any(one["total"] == "256.99" for one in shown["invoices"])


def test_agreed_prices_over_http(api: Api) -> None:
    who, _ = api.customer("pro")
    steps = [
        {"prices": {"pro_fee": {"charge": {"model": "flat", "amount": "0"}}}},
        {"at": "2027-01-01T00:00:00Z",
         "prices": {"pro_fee": {"charge": {"model": "flat", "amount": "5"}}}},
    ]  # fmt: skip
    made = body(api.post("/v1/subscriptions/prices", {"customer": who, "steps": steps}), 201)
    assert [one["key"].split("@")[0] for one in made["prices"]] == ["pro_fee", "pro_fee"]
    wrong = api.post("/v1/subscriptions/prices", {"customer": who, "steps": [{"prices": {}}]})
    assert wrong.status_code == 422
    unit = {"model": "unit", "unit": "1"}
    of_a_value = {"pro_questions": {"charge": unit, "charges": {"a\0": unit}}}
    asked = {"customer": who, "steps": [{"prices": of_a_value}]}
    assert body(api.post("/v1/subscriptions/prices", asked), 422)["code"] != "missing_dimension"


@pytest.mark.parametrize(
    "path", ["/v1/receipts", "/v1/charges", "/v1/subscriptions/prices", "/v1/subscriptions/add-on"]
)
def test_a_key_of_one_customer_or_for_reading_may_not_agree_on_anything(
    api: Api, path: str
) -> None:
    who, customer_id = api.customer("pro")
    reader = api.key(Scope.INVOICES_READ)
    bound = api.key(Scope.BILLING_RUN, Scope.SUBSCRIPTIONS_WRITE, customer_id=customer_id)
    bodies: dict[str, dict[str, Any]] = {
        "/v1/receipts": {"amount": "1.00", "reference": "x", "received_on": "2025-01-10"},
        "/v1/charges": {"amount": "1.00", "description": "x"},
        "/v1/subscriptions/prices": {
            "steps": [{"prices": {"pro_fee": {"charge": {"model": "flat", "amount": "1"}}}}]
        },
        "/v1/subscriptions/add-on": {"add_on": "x"},
    }
    wanted = bodies[path] | {"customer": who}
    for key in (reader, bound):
        assert api.post(path, wanted, key=key).status_code == 403


def test_the_commands_agree_charge_and_enter(call: Call, tmp_path: Path) -> None:
    assert call("customer", "create", "acme").exit_code == 0
    assert call("subscribe", "acme", "pro").exit_code == 0
    file = tmp_path / "agreement.yaml"
    file.write_text("steps:\n  - prices:\n      pro_fee: {charge: {model: flat, amount: 3}}\n")
    assert len(answer(call("subscription", "agree", "acme", str(file), "--json"))["prices"]) == 1
    file.write_text("steps:\n  - prices:\n      pro_fee: {charge: {model: flat, amount: x}}\n")
    refused = call("subscription", "agree", "acme", str(file))
    assert "steps[0].prices" in str(refused.exception)
    charged = answer(call("subscription", "charge", "acme", "250.00", "--for", "Setup", "--json"))
    assert charged["amount"] == "250.00"
    drafts = answer(call("invoice", "drafts", "--json"))["drafts"]
    assert [one["total"] for one in drafts] == ["3.00"]  # the charge waits for the next invoice
    later = answer(call("preview", "acme", "--json"))
    assert any(one["total"] == "253.00" for one in later["invoices"])
    assert answer(call("payment", "terms", "acme", "--send-invoice", "--json"))["net_days"] is None
    words = ["payment", "record", "acme", "100.00", "--reference", "TRF", "--on", "2025-01-10"]
    assert answer(call(*words, "--json"))["amount"] == "100.00"
    assert len(answer(call("payment", "list", "acme", "--json"))["receipts"]) == 1
