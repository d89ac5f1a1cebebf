"""The management API: catalog, customers, subscriptions and their previews, lists by the page."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from convergio.billing import actions as billing
from convergio.catalog.actions import EXAMPLE
from convergio.cli.main import app
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, running

BASIC = """
  - key: basic
    name: Basic
    prices:
      - {key: basic_fee, name: Basic, interval: month, charge: {model: flat, amount: "5.00"}}
"""
Row = dict[str, Any]


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(server, template, tmp_path_factory.mktemp("home")) as opened:
        yield opened


def body(found: httpx.Response, status: int = 200) -> Any:  # noqa: ANN401 - any JSON value
    assert found.status_code == status, found.text
    return found.json()


def bill(api: Api) -> None:
    product = api.product
    billing.run(
        product.database,
        as_of=api.now,
        now=api.now,
        seller=product.settings.seller,
        keyring=product.keyring,
        grace=product.grace * 0,
    )


def forward(api: Api, **much: float) -> None:
    clock = api.product.clock
    assert isinstance(clock, VirtualClock)
    clock.advance_to(api.now + timedelta(**much))


def paged(api: Api, path: str, name: str) -> tuple[list[Row], int]:
    """Read a list two rows at a time; return the rows and how many pages they took."""
    rows: list[Row] = []
    pages, after = 0, None
    while True:
        more = f"{'&' if '?' in path else '?'}limit=2" + (f"&after={after}" if after else "")
        found = body(api.get(path + more))
        rows += found[name]
        pages, after = pages + 1, found["next"]
        if after is None:
            return rows, pages


def test_the_catalog_is_shown_planned_and_applied_from_one_file(api: Api) -> None:
    file = EXAMPLE.read_bytes() + BASIC.encode()
    before = body(api.get("/v1/catalog"))
    planned = body(api.post("/v1/catalog/plan", file))
    assert (planned["changed"], body(api.get("/v1/catalog"))) == (True, before)
    applied = body(api.post("/v1/catalog/apply", file))
    assert applied == planned
    after = body(api.get("/v1/catalog"))
    assert {one["key"] for one in after["plans"]} - {one["key"] for one in before["plans"]} == {
        "basic"
    }
    again = body(api.post("/v1/catalog/apply", file))
    assert (again["changed"], again["version"]) == (False, applied["version"])
    refused = body(api.post("/v1/catalog/apply", b"plans: [{key: x, nme: y}]"), 422)
    assert refused["field"].startswith("plans")
    body(api.post("/v1/catalog/plan", b"a: &a [*a]"), 422)
    assert body(api.get("/v1/catalog")) == after


def test_a_customer_is_made_read_changed_and_found(api: Api) -> None:
    key = "mgmt-acme"
    made = body(api.post("/v1/customers", {"key": key, "name": "Acme", "purchase_order": "7"}), 201)
    assert "name" not in made  # only reading one customer shows personal fields
    body(api.post("/v1/customers", {"key": key}), 409)
    changed = {"email": "mgmt@acme.example", "purchase_order": None, "locale": "it"}
    assert body(api.send("PATCH", f"/v1/customers/{key}", changed))["locale"] == "it"
    shown = body(api.get(f"/v1/customers/{made['id']}"))
    fields = [shown[name] for name in ("name", "email", "purchase_order", "locale")]
    assert fields == ["Acme", "mgmt@acme.example", None, "it"]
    found = body(api.get("/v1/customers?email=MGMT@acme.example"))["customers"]
    assert [one["key"] for one in found] == [key]
    assert body(api.send("PATCH", f"/v1/customers/{key}", {}), 422)["code"] == "nothing_to_change"
    assert body(api.send("PATCH", f"/v1/customers/{key}", {"key": "other"}), 422)["field"] == "key"
    assert body(api.get(f"/v1/customers/{key}")) == shown


def test_who_pays_tax_is_not_for_a_customer_to_say(api: Api) -> None:
    name, customer_id = api.customer()
    key = api.key(Scope.CUSTOMERS_WRITE, Scope.CUSTOMERS_READ, customer_id=customer_id)
    path = f"/v1/customers/{name}"
    exempt = {"tax_exempt": "exempt", "tax_exempt_reason": "charity"}
    body(api.send("PATCH", path, exempt, key=key), 403)
    body(api.post(f"{path}/tax-id-check", {"verified": True}, key=key), 403)
    assert body(api.get(path, key=key))["tax_exempt"] is None
    body(api.send("PATCH", path, {"name": "Acme"}, key=key))


def test_a_trial_is_not_for_a_customer_to_give_to_themselves(api: Api) -> None:
    name, customer_id = api.customer()
    key = api.key(Scope.SUBSCRIPTIONS_WRITE, Scope.SUBSCRIPTIONS_READ, customer_id=customer_id)
    wanted: dict[str, Any] = {"customer": name, "plan": "pro", "trial_days": 730}
    body(api.post("/v1/subscriptions", wanted, key=key), 403)
    looked = wanted | {"verb": "subscribe"}
    body(api.post("/v1/subscriptions/preview", looked, key=key), 403)
    assert body(api.get(f"/v1/subscriptions?customer={name}"))["subscriptions"] == []
    body(api.post("/v1/subscriptions", {"customer": name, "plan": "pro"}, key=key), 201)


def test_credit_at_the_end_of_what_is_paid_is_refused_with_its_field(api: Api) -> None:
    name, _ = api.customer("pro")
    wanted: dict[str, Any] = {"customer": name, "at_period_end": True, "credit": True}
    assert body(api.post("/v1/subscriptions/cancel", wanted), 422)["field"] == "credit"
    looked = wanted | {"verb": "cancel"}
    assert body(api.post("/v1/subscriptions/preview", looked), 422)["field"] == "credit"
    (one,) = body(api.get(f"/v1/subscriptions?customer={name}"))["subscriptions"]
    assert one["cancel_at"] is None


def test_every_list_gives_each_row_once_page_by_page(api: Api) -> None:
    names = [api.customer("pro")[0] for _ in range(5)]
    bill(api)
    customers, pages = paged(api, "/v1/customers", "customers")
    assert pages == len(customers) // 2 + 1
    assert len({one["id"] for one in customers}) == len(customers)
    assert {one["key"] for one in customers} >= set(names)
    ours = [one["id"] for one in customers if one["key"] in names]
    for path, name, mark in (
        ("/v1/subscriptions?plan=pro", "subscriptions", "id"),
        ("/v1/invoices?status=open", "invoices", "number"),
    ):
        rows, _ = paged(api, path, name)
        assert len({one[mark] for one in rows}) == len(rows)
        assert {one["customer"] for one in rows} >= set(ours)
    for number in [one["number"] for one in rows if one["customer"] in ours]:
        body(api.post(f"/v1/invoices/{number}/credit", {"reason": "x", "amount": "1.00"}), 201)
    notes, pages = paged(api, "/v1/credit-notes", "credit_notes")
    assert len({one["number"] for one in notes}) == len(notes) >= 5
    assert pages > 2
    one = next(row for row in notes if row["customer"] in ours)
    assert body(api.get(f"/v1/credit-notes/{one['number']}")) == one


@pytest.mark.parametrize(
    "path", ["/v1/customers", "/v1/invoices", "/v1/subscriptions", "/v1/credit-notes"]
)
@pytest.mark.parametrize(
    "cursor", ["x", "%F0%9F%92%A3", "bnVsbA", "WyJhIl0", "IjIwMjUi", "W10", "A" * 5_000]
)
def test_a_cursor_of_one_s_own_making_is_refused(api: Api, path: str, cursor: str) -> None:
    told = body(api.get(f"{path}?after={cursor}"), 422)
    assert (told["code"], told["field"]) == ("bad_cursor", "after")


def test_invoices_are_narrowed_by_status_series_and_day(api: Api) -> None:
    name, _ = api.customer("pro")
    bill(api)
    day = api.now.date().isoformat()
    next_day = (api.now + timedelta(days=1)).date().isoformat()
    where = f"/v1/invoices?customer={name}"
    (invoice,) = body(api.get(where))["invoices"]
    for narrowed, found in {
        "&status=open": True, "&status=paid": False, "&series=CVG": True, "&series=OLD": False,
        f"&issued_from={day}": True, f"&issued_from={next_day}": False,
        f"&issued_to={next_day}": True, f"&issued_to={day}": False,
    }.items():  # fmt: skip
        rows = body(api.get(where + narrowed))["invoices"]
        assert rows == ([invoice] if found else []), narrowed
    assert body(api.get(f"{where}&status=lost"), 422)
    assert body(api.get(f"{where}&series=CVG%00"), 422)
    assert body(api.get("/v1/subscriptions?plan=pro%00"), 422)
    assert body(api.get(f"{where}&issued_from=today"), 422)


def test_the_history_holds_invoices_payments_and_credit_in_their_order(api: Api) -> None:
    name, _ = api.customer("pro")
    bill(api)
    (invoice,) = body(api.get(f"/v1/invoices?customer={name}"))["invoices"]
    forward(api, hours=1)
    credit = {"reason": "delay", "amount": "2.00"}
    note = body(api.post(f"/v1/invoices/{invoice['number']}/credit", credit), 201)
    forward(api, hours=1)
    receipt = {
        "customer": name, "amount": "4.99", "reference": f"R-{name}",
        "received_on": api.now.date().isoformat(),
    }  # fmt: skip
    body(api.post("/v1/receipts", receipt), 201)
    path = f"/v1/customers/{name}/billing-history"
    rows, pages = paged(api, path, "entries")
    assert [(one["type"], one["number"], one["amount"]) for one in rows] == [
        ("invoice", invoice["number"], "6.99"),
        ("credit_note", note["number"], "2.00"),
        ("payment", None, "4.99"),
    ]
    assert pages == 2
    assert rows[0]["state"] == "paid"
    assert rows == body(api.get(path))["entries"]
    _, other = api.customer()
    body(api.get(path, key=api.key(Scope.INVOICES_READ, customer_id=other)), 404)


VERBS: list[tuple[Row, str]] = [
    ({"verb": "change", "plan": "team", "seats": 3, "when": "now"}, "change"),
    ({"verb": "change", "plan": "free"}, "change"),
    ({"verb": "cancel", "at_period_end": False, "credit": True}, "cancel"),
    ({"verb": "cancel"}, "cancel"),
    ({"verb": "pause"}, "pause"),
]


@pytest.mark.parametrize(("wish", "verb"), VERBS, ids=str)
def test_a_preview_shows_what_the_change_then_bills_and_keeps_nothing(
    api: Api, wish: Row, verb: str
) -> None:
    name, _ = api.customer("pro")
    bill(api)
    forward(api, days=3)
    kept = body(api.get(f"/v1/subscriptions?customer={name}"))
    rows = [api.count(table) for table in ("subscription_item", "invoice", "credit_note")]
    looked = body(api.post("/v1/subscriptions/preview", {"customer": name, **wish}))
    assert body(api.get(f"/v1/subscriptions?customer={name}")) == kept
    assert rows == [api.count(table) for table in ("subscription_item", "invoice", "credit_note")]

    done = body(
        api.post(
            f"/v1/subscriptions/{verb}",
            {"customer": name, **{k: v for k, v in wish.items() if k != "verb"}},
        )
    )
    same = ("plan", "status", "cancel_at", "canceled_at")
    assert [looked["subscription"][one] for one in same] == [done[one] for one in same]
    now = body(api.get(f"/v1/invoices/preview?customer={name}&at={api.now:%Y-%m-%dT%H:%M:%SZ}"))
    assert looked["now"] == now
    bill(api)
    history = body(api.get(f"/v1/customers/{name}/billing-history"))["entries"][1:]
    told = [("invoice", one["total"]) for one in looked["now"]["invoices"]]
    told += [("credit_note", one["total"]) for one in looked["now"]["credit_notes"]]
    assert sorted(told) == sorted((one["type"], one["amount"]) for one in history)


def test_a_preview_refuses_what_its_verb_refuses(api: Api) -> None:
    name, _ = api.customer("pro")
    other, _ = api.customer()

    def both(verb: str, **fields: str) -> list[tuple[int, str]]:
        path = "" if verb == "subscribe" else f"/{verb}"
        ask = {"customer": fields.pop("customer", name), **fields}
        looked = api.post("/v1/subscriptions/preview", {**ask, "verb": verb})
        done = api.post(f"/v1/subscriptions{path}", ask)
        return [(one.status_code, one.json()["code"]) for one in (looked, done)]

    calls: list[Callable[[], list[tuple[int, str]]]] = [
        lambda: both("resume"),
        lambda: both("reactivate"),
        lambda: both("drop-change"),
        lambda: both("change", plan="nope"),
        lambda: both("change", plan="pro"),
        lambda: both("pause", customer=other),
        lambda: both("subscribe", plan="pro"),
    ]
    for call in calls:
        looked, done = call()
        assert looked == done
        assert looked[0] >= 400


def test_the_commands_show_the_same(
    server: Embedded,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path_factory.mktemp("home")
    with running(server, template, home) as own:
        monkeypatch.setenv("DATABASE_URL", own.product.database.dsn)
        monkeypatch.setenv("CONVERGIO_HOME", str(home))

        def call(*words: str) -> Any:  # noqa: ANN401 - any JSON value
            result = CliRunner().invoke(app, [*words, "--json"])
            assert result.exception is None, result.exception
            return json.loads(result.stdout.splitlines()[-1])

        name, _ = own.customer("pro")
        bill(own)
        (invoice,) = body(own.get("/v1/invoices"))["invoices"]
        day = own.now.date().isoformat()
        for narrowed, count in ((("--from", day), 1), (("--to", day), 0), (("--series", "X"), 0)):
            assert len(call("invoice", "list", *narrowed)["invoices"]) == count
        history = body(own.get(f"/v1/customers/{name}/billing-history"))["entries"]
        assert call("customer", "history", name)["entries"] == history
        assert [one["number"] for one in history] == [invoice["number"]]
        listed = call("subscription", "list", "--plan", "pro", "--status", "active")
        assert listed["subscriptions"] == body(own.get("/v1/subscriptions"))["subscriptions"]
        assert call("subscription", "list", "--plan", "team")["subscriptions"] == []
        looked = call("preview", name, "--do", "cancel-now", "--credit")
        assert looked["subscription"]["status"] == "canceled"
        assert looked["now"]["invoices"]  # the machine's clock is past the periods of the test
        assert call("preview", name, "--do", "pause")["subscription"]["status"] == "paused"
        assert call("subscription", "show", name)["subscriptions"] == listed["subscriptions"]
