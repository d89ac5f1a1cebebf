"""What is done beside the plan is seen before it is done, over HTTP and as a command."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from convergio.billing import actions as billing
from convergio.catalog import actions as catalog
from convergio.cli.main import app
from convergio.infra.clock import VirtualClock
from convergio.infra.db import Database
from convergio.infra.postgres import Embedded
from convergio.payments import actions as payments
from tests.fakes.api import Api, running

TABLES = ("subscription_item", "subscription_change", "price", "invoice", "credit_note")
ADD_ON = b"""
  - key: extra
    name: Extra
    add_on: true
    prices: [{key: extra_fee, name: Extra, charge: {model: seat, unit: 4.00}}]
"""


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        with opened.product.database.transaction() as tx:
            catalog.apply(tx, catalog.EXAMPLE.read_bytes() + ADD_ON, now=opened.now)
        yield opened


def body(found: httpx.Response, status: int = 200) -> Any:  # noqa: ANN401 - any JSON value
    assert found.status_code == status, found.text
    return found.json()


def rows(api: Api) -> list[int]:
    return [api.count(table) for table in TABLES]


def bill(api: Api) -> None:
    product, now = api.product, api.now
    billing.run(
        product.database, as_of=now, now=now, seller=product.settings.seller,
        keyring=product.keyring, grace=timedelta(0), can_pay=payments.payable,
    )  # fmt: skip


ASKS = [
    ("/v1/subscriptions/add-on", {"add_on": "extra", "quantity": 3}, 200),
    ("/v1/charges", {"description": "Training", "amount": "12.34", "when": "now"}, 201),
    (
        "/v1/subscriptions/prices",
        {"steps": [{"prices": {"pro_fee": {"charge": {"model": "flat", "amount": "3.00"}}}}]},
        201,
    ),
]


@pytest.mark.parametrize(("path", "fields", "status"), ASKS, ids=lambda one: str(one)[:30])
def test_what_the_preview_shows_is_what_is_then_billed_and_it_keeps_nothing(
    api: Api, path: str, fields: dict[str, Any], status: int
) -> None:
    name, _ = api.customer("pro")
    bill(api)
    clock = api.product.clock
    assert isinstance(clock, VirtualClock)
    clock.advance_to(api.now + timedelta(days=3))
    before = rows(api)
    ask = {"customer": name, **fields}
    looked = body(api.post(f"{path}/preview", ask))
    assert rows(api) == before
    body(api.post(path, ask), status)
    now = body(api.get(f"/v1/invoices/preview?customer={name}&at={api.now:%Y-%m-%dT%H:%M:%SZ}"))
    assert looked["now"] == now
    bill(api)
    history = body(api.get(f"/v1/customers/{name}/billing-history"))["entries"][1:]
    told = [one["total"] for one in (*now["invoices"], *now["credit_notes"])]
    assert sorted(told) == sorted(one["amount"] for one in history)
    assert told


@pytest.mark.parametrize(("path", "fields", "_status"), ASKS, ids=lambda one: str(one)[:30])
def test_the_preview_refuses_what_its_verb_refuses(
    api: Api, path: str, fields: dict[str, Any], _status: int
) -> None:
    name, _ = api.customer()
    ask = {"customer": name, **fields}
    looked, done = api.post(f"{path}/preview", ask), api.post(path, ask)
    assert looked.status_code == done.status_code == 404
    assert looked.json()["code"] == done.json()["code"]


Call = Callable[..., Any]


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))

    def called(*words: str) -> Any:  # noqa: ANN401 - any JSON value
        result: Result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exception is None, result.exception
        return json.loads(result.stdout.splitlines()[-1])

    return called


def test_every_command_that_changes_a_subscription_can_be_looked_at(
    call: Call, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "agreed.yaml"
    file.write_text("steps: [{prices: {pro_fee: {charge: {model: flat, amount: 3.00}}}}]")
    offer = tmp_path / "catalog.yaml"
    offer.write_bytes(catalog.EXAMPLE.read_bytes() + ADD_ON)
    call("catalog", "apply", str(offer))
    call("customer", "create", "acme")

    def count() -> list[tuple[int, ...]]:
        with database.transaction() as tx:
            return [
                tx.value(f"SELECT count(*) FROM {table}")  # noqa: S608 - names of ours
                for table in (*TABLES, "subscription", "outbox_event")
            ]

    def looked(*words: str) -> dict[str, Any]:
        before = count()
        value: dict[str, Any] = call(*words, "--preview")
        assert count() == before, words
        assert {"subscription", "now", "next"} == value.keys(), words
        return value

    assert looked("subscribe", "acme", "pro")["now"]["invoices"][0]["total"] == "6.99"
    call("subscribe", "acme", "pro")
    assert looked("subscription", "change", "acme", "--plan", "team", "--when", "now")
    assert looked("subscription", "add-on", "acme", "extra", "--quantity", "2")
    one_off = looked("subscription", "charge", "acme", "12.34", "--for", "Training", "--now")
    assert "12.34" in str(one_off["now"])
    assert looked("subscription", "agree", "acme", str(file))
    assert looked("subscription", "pause", "acme")["subscription"]["status"] == "paused"
    assert looked("subscription", "cancel", "acme", "--now")["subscription"]["status"] == "canceled"
    call("subscription", "change", "acme", "--plan", "free", "--when", "period_end")
    assert looked("subscription", "drop-change", "acme")["subscription"]["pending_change"] is None
    call("subscription", "drop-change", "acme")
    call("subscription", "cancel", "acme")
    assert looked("subscription", "reactivate", "acme")["subscription"]["cancel_at"] is None
    call("subscription", "reactivate", "acme")
    call("subscription", "pause", "acme")
    assert looked("subscription", "resume", "acme")["subscription"]["status"] == "active"


def test_lists_of_commands_go_on_where_a_page_ended(call: Call) -> None:
    for name in ("a", "b", "c"):
        call("customer", "create", name)
        call("subscribe", name, "pro", "--start", "2026-01-01T00:00:00Z")
    call("bill", "--as-of", "2026-03-01T12:00:00Z")
    seen: list[str] = []
    page = call("subscription", "list", "--limit", "2")
    while page["subscriptions"]:
        seen += [one["id"] for one in page["subscriptions"]]
        if page["next"] is None:
            break
        page = call("subscription", "list", "--limit", "2", "--after", page["next"])
    assert len(set(seen)) == len(seen) == 3
    assert len(call("subscription", "list", "--customer", "b")["subscriptions"]) == 1
    first = call("customer", "history", "a", "--limit", "2")
    rest = call("customer", "history", "a", "--limit", "2", "--after", first["next"])
    whole = call("customer", "history", "a")["entries"]
    assert first["entries"] + rest["entries"] == whole[:4]
    numbers = [one["number"] for one in whole]
    for number in numbers:
        call("invoice", "credit", number, "--reason", "sorry", "--amount", "1.00")
    notes = call("invoice", "credits", "--limit", "2")
    more = call("invoice", "credits", "--limit", "2", "--after", notes["next"])
    every = call("invoice", "credits", "a")["credit_notes"]
    assert notes["credit_notes"] + more["credit_notes"] == every[:4]
    of = call("invoice", "credits", "--invoice", numbers[0])["credit_notes"]
    assert len(of) == 1
    assert of[0] in every


@pytest.mark.parametrize(("path", "fields", "status"), ASKS, ids=lambda one: str(one)[:30])
def test_a_trial_that_is_over_is_decided_first_and_not_left_to_the_next_run(
    api: Api, path: str, fields: dict[str, Any], status: int
) -> None:
    name, _ = api.customer()
    trial = {"customer": name, "plan": "team", "trial_days": 3, "without_method": "fall_back"}
    body(api.post("/v1/subscriptions", trial | {"fallback_plan": "pro"}), 201)
    clock = api.product.clock
    assert isinstance(clock, VirtualClock)
    clock.advance_to(api.now + timedelta(days=4))
    ask = {"customer": name, **fields}
    assert body(api.post(f"{path}/preview", ask))["subscription"]["plan"] == "pro"
    body(api.post(path, ask), status)
    assert body(api.get(f"/v1/subscriptions?customer={name}"))["subscriptions"][-1]["plan"] == "pro"
