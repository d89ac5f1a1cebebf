"""Coupons, tax and checked numbers over HTTP and as commands."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.identity.model import Scope
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, running

Call = Callable[..., Result]
TAXES = '{seller: IT, registrations: [{country: IT}], rates: [{country: IT, percent: "22"}]}'


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


def new_code() -> str:
    return f"C-{uuid4().hex[:12].upper()}"


def test_a_coupon_is_offered_redeemed_and_archived(api: Api) -> None:
    code = new_code()
    made = body(api.post("/v1/coupons", {"code": code, "percent": "12.5"}), 201)
    assert (made["percent"], made["redeemed"], made["archived"]) == ("12.5", 0, False)
    customer, _ = api.customer("pro")
    found = body(api.post("/v1/coupon-redemptions", {"customer": customer, "code": code}), 201)
    assert (found["code"], found["interval"]) == (code, "month")
    listed = body(api.get(f"/v1/coupon-redemptions?customer={customer}"))
    assert listed == {"redemptions": [found]}
    assert body(api.post(f"/v1/coupons/{code}/archive", {}))["archived"] is True
    every = body(api.get("/v1/coupons?limit=100"))["coupons"]
    assert [one["redeemed"] for one in every if one["code"] == code] == [1]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"percent": "0"}, "percent"),
        ({"percent": "10", "amount": "1.00", "currency": "usd"}, "percent"),
        ({"amount": "1.00"}, "currency"),
        ({"percent": "10", "periods": 2}, "periods"),
        ({"percent": "10", "plans": ["nothing"]}, "plans"),
    ],
)
def test_a_coupon_that_makes_no_sense_is_refused(
    api: Api, wrong: dict[str, object], field: str
) -> None:
    found = api.post("/v1/coupons", {"code": new_code()} | wrong)
    assert (found.status_code, found.json()["field"]) == (422, field)


def test_codes_cannot_be_told_apart_by_trying(api: Api) -> None:
    code = new_code()
    body(api.post("/v1/coupons", {"code": code, "percent": "5", "plans": ["team"]}), 201)
    customer, _ = api.customer("pro")
    wanted = [{"customer": customer, "code": one} for one in (code, new_code(), "no such")]
    found = [api.post("/v1/coupon-redemptions", one) for one in wanted]
    assert {(one.status_code, one.json()["code"], one.json()["detail"]) for one in found} == {
        (409, "not_redeemable", found[0].json()["detail"])
    }


def test_a_key_of_one_customer_redeems_for_it_alone_and_offers_nothing(api: Api) -> None:
    code = new_code()
    body(api.post("/v1/coupons", {"code": code, "percent": "5"}), 201)
    (mine, my_id), (other, _) = api.customer("pro"), api.customer("pro")
    key = api.key(Scope.SUBSCRIPTIONS_WRITE, Scope.CATALOG_WRITE, customer_id=my_id)
    offer = {"code": new_code(), "percent": "100"}
    assert api.post("/v1/coupons", offer, key=key).status_code == 403
    theirs = {"customer": other, "code": code}
    assert api.post("/v1/coupon-redemptions", theirs, key=key).status_code in {403, 404}
    ours = {"customer": mine, "code": code}
    assert api.post("/v1/coupon-redemptions", ours, key=key).status_code == 201
    reader = api.key(Scope.SUBSCRIPTIONS_READ)
    assert api.post("/v1/coupon-redemptions", ours, key=reader).status_code == 403


def test_a_number_is_verified_with_evidence_and_only_where_it_can_be_one(api: Api) -> None:
    made = {"key": f"c-{uuid4().hex[:8]}", "country": "IT", "tax_id": "IT00743110158"}
    body(api.post("/v1/customers", made), 201)
    path = f"/v1/customers/{made['key']}/tax-id-check"
    assert api.post(path, {"verified": True}).status_code == 422
    told = {"verified": True, "evidence": "VIES"}
    assert body(api.post(path, told))["tax_id_verified_at"] is None
    right = {"tax_id": "IT00743110157"}
    assert api.send("PATCH", f"/v1/customers/{made['key']}", right).status_code == 200
    assert body(api.post(path, told))["tax_id_verified_at"] is not None
    assert body(api.post(path, {"verified": False}))["tax_id_verified_at"] is None


def test_the_commands_tax_discount_and_verify(call: Call, tmp_path: Path) -> None:
    assert isinstance(call("tax", "show").exception, Exception)
    file = tmp_path / "taxes.yaml"
    file.write_text(TAXES)
    tried = answer(call("tax", "apply", str(file), "--dry-run", "--json"))
    assert (tried["changed"], tried["dry_run"]) == (True, True)
    assert answer(call("tax", "apply", str(file), "--json"))["version"] == 1
    assert answer(call("tax", "apply", str(file), "--json"))["changed"] is False
    assert answer(call("tax", "show", "--json"))["rates"][0]["percent"] == "22"
    shown = answer(call("tax", "rate", "it", "--on", "2025-01-31", "--json"))
    assert (shown["treatment"], shown["percent"]) == ("standard", "22")
    assert answer(call("tax", "rate", "FR", "--verified", "--json"))["treatment"] == (
        "reverse_charge"
    )
    words = ["customer", "create", "acme", "--country", "IT", "--tax-id", "IT00743110157"]
    assert call(*words).exit_code == 0
    assert call("subscribe", "acme", "pro").exit_code == 0
    verified = answer(call("tax", "verify", "acme", "--evidence", "VIES", "--json"))
    assert verified["valid"] is True
    assert answer(call("tax", "checks", "acme", "--json"))["checks"] == [verified]
    made = answer(call("coupon", "create", "HALF", "--percent", "50", "--json"))
    assert made["duration"] == "once"
    found = answer(call("coupon", "redeem", "acme", "HALF", "--json"))
    assert answer(call("coupon", "redeemed", "acme", "--json"))["redemptions"] == [found]
    preview = answer(call("preview", "acme", "--json"))["invoices"][0]
    assert (preview["subtotal"], preview["discount"], preview["tax"], preview["total"]) == (
        "6.99",
        "3.50",
        "0.77",
        "4.26",
    )
    text = call("preview", "acme").stdout
    assert "discount" in text
    assert "tax 22% on 3.49" in text
    billed = answer(call("bill", "--as-of", "2030-01-01T00:00:00Z", "--json"))
    assert billed["problems"] == []
    number = answer(call("invoice", "list", "--json"))["invoices"][0]["number"]
    told = call("explain", f"{number}/1").stdout
    assert "taxed as standard: standard 22%" in told
    checked = answer(call("verify", "--json"))
    assert checked["ok"] is True, checked
    assert answer(call("coupon", "archive", "HALF", "--json"))["archived"] is True
    assert answer(call("coupon", "list", "--json"))["coupons"][0]["redeemed"] == 1


def test_a_tax_file_for_another_country_than_the_settings_is_refused(
    call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "taxes.yaml"
    file.write_text(TAXES.replace("IT", "DE"))
    found = call("tax", "apply", str(file))
    assert "CONVERGIO_SELLER_COUNTRY" in str(found.exception)
