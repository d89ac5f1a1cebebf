"""Changes, previews, explanations and credit over HTTP and as commands."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from convergio.billing import actions as billing
from convergio.cli.main import app
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.postgres import Embedded
from convergio.kernel.errors import Conflict, Invalid
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


def bill(api: Api) -> None:
    billing.run(
        api.product.database,
        as_of=api.now,
        now=api.now,
        seller=api.product.settings.seller,
        keyring=api.product.keyring,
        grace=api.product.grace * 0,
    )


def forward(api: Api) -> None:
    """Let a day pass."""
    clock = api.product.clock
    assert isinstance(clock, VirtualClock)
    clock.advance_to(api.now + timedelta(days=1))


def test_a_change_is_previewed_made_and_shown(api: Api) -> None:
    name, _ = api.customer("pro")
    bill(api)
    forward(api)
    looked = body(api.get(f"/v1/invoices/preview?customer={name}&plan=team&seats=2"))
    assert [len(one["lines"]) for one in looked["invoices"]] == [2]
    changed = body(
        api.post("/v1/subscriptions/change", {"customer": name, "plan": "team", "seats": 2})
    )
    assert (changed["plan"], changed["pending_change"]) == ("team", None)
    body(api.post("/v1/subscriptions/change", {"customer": name, "seats": 1}))
    shown = body(api.get(f"/v1/subscriptions?customer={name}"))["subscriptions"]
    assert [one["pending_change"]["seats"] for one in shown] == [1]
    body(api.post("/v1/subscriptions/drop-change", {"customer": name}))
    assert body(api.post("/v1/subscriptions/pause", {"customer": name}))["status"] == "paused"
    assert body(api.post("/v1/subscriptions/resume", {"customer": name}))["status"] == "active"
    body(api.post("/v1/subscriptions/cancel", {"customer": name}))
    assert body(api.post("/v1/subscriptions/reactivate", {"customer": name}))["cancel_at"] is None
    body(api.post("/v1/subscriptions/dance", {"customer": name}), 404)
    body(api.post("/v1/subscriptions/resume", {"customer": name}), 409)


def test_a_trial_is_taken_over_http(api: Api) -> None:
    name, _ = api.customer()
    made = body(
        api.post(
            "/v1/subscriptions",
            {"customer": name, "plan": "pro", "trial_days": 14, "without_method": "pause"},
        ),
        201,
    )
    assert made["status"] == "trialing"
    assert made["trial_ends_at"] > made["started_at"]


def test_credit_is_given_explained_and_capped(api: Api) -> None:
    name, customer_id = api.customer("pro")
    bill(api)
    with api.product.database.transaction() as tx:
        (invoice,) = billing.page(tx, customer_id=customer_id)
    path = f"/v1/invoices/{invoice.number_text}"
    explained = body(api.get(f"{path}/lines/1/explain"))
    assert (explained["price"]["key"], explained["amount"]) == ("pro_fee", "6.99")
    note = body(api.post(f"{path}/credit", {"reason": "delay", "amount": "2.00"}), 201)
    assert (note["total"], note["applied"], note["to_balance"]) == ("2.00", "2.00", "0.00")
    body(api.post(f"{path}/credit", {"reason": "delay", "lines": {"1": "5.00"}}), 409)
    assert body(api.post(f"{path}/void", {"how": "waive"}))["status"] == "void"
    body(api.post(f"{path}/uncollectible", {}), 409)
    notes = body(api.get(f"/v1/credit-notes?customer={name}"))["credit_notes"]
    assert sorted(one["total"] for one in notes) == ["2.00", "4.99"]


def test_a_key_of_one_customer_sees_no_other(api: Api) -> None:
    name, _ = api.customer("pro")
    _, other = api.customer("pro")
    key = api.key(Scope.INVOICES_READ, Scope.SUBSCRIPTIONS_READ, customer_id=other)
    for path in ("subscriptions", "invoices/preview", "credit-notes"):
        body(api.get(f"/v1/{path}?customer={name}", key=key), 404)


def test_the_same_as_commands(call: Call) -> None:
    answer(call("customer", "create", "acme", "--json"))
    answer(call("subscribe", "acme", "pro", "--start", "2025-01-01T00:00:00Z", "--json"))
    answer(call("bill", "--as-of", "2025-02-02T00:00:00Z", "--json"))
    seen = answer(call("preview", "acme", "--at", "2025-03-01T00:00:00Z", "--json"))
    assert [one["total"] for one in seen["invoices"]] == ["6.99"]
    assert "to pay" in call("preview", "acme", "--at", "2025-03-01T00:00:00Z").stdout
    number = answer(call("invoice", "list", "--json"))["invoices"][0]["number"]
    assert answer(call("explain", f"{number}/1", "--json"))["steps"][0]["amount"] == "6.99"
    words = ("invoice", "credit", number, "--reason", "delay")
    note = answer(call(*words, "--line", "1=1.00", "--json"))
    assert (note["number"][:6], note["total"]) == ("CVG-CN", "1.00")
    assert isinstance(call(*words, "--amount", "9.00").exception, Conflict)
    assert isinstance(call(*words, "--line", "one").exception, Invalid)
    assert len(answer(call("invoice", "credits", "acme", "--json"))["credit_notes"]) == 1
    assert answer(call("invoice", "void", number, "--how", "waive", "--json"))["status"] == "void"
    changed = answer(call("subscription", "change", "acme", "--plan", "free", "--json"))
    assert changed["pending_change"]["plan"] == "free"
    assert "then free" in call("subscription", "show", "acme").stdout
    for verb in ("drop-change", "pause", "resume"):
        answer(call("subscription", verb, "acme", "--json"))
    answer(call("subscription", "cancel", "acme", "--json"))
    answer(call("subscription", "reactivate", "acme", "--json"))
    ended = answer(call("subscription", "cancel", "acme", "--now", "--credit", "--json"))
    assert ended["status"] == "canceled"
    answer(call("bill", "--json"))
    assert answer(call("verify", "--json"))["ok"]
