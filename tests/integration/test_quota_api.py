"""Quotas over HTTP and on the command line: statuses, reasons, leases, spend caps."""

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convergio.cli import quota as command
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra.clock import VirtualClock
from convergio.infra.postgres import Embedded
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions.model import Status
from convergio_client.lease import Lease
from convergio_client.protocol import Call, Reply
from tests.fakes.api import Api, running


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One product for the whole module; every test makes its own customers."""
    with running(server, template, tmp_path_factory.mktemp("home")) as served:
        yield served


def ask(api: Api, customer: str, quantity: str) -> tuple[int, str | None, str | None]:
    body = {"customer": customer, "meter": "questions", "quantity": quantity}
    found = api.post("/v1/authorize", body)
    return found.status_code, found.json().get("reason"), found.headers.get("retry-after")


def test_each_denial_has_its_status_its_reason_and_when_to_come_back(api: Api) -> None:
    free, _ = api.customer("free")
    month = str(31 * 86_400)
    assert ask(api, free, "51") == (429, "limit_reached", month)
    assert ask(api, free, "50") == (200, None, None)
    assert ask(api, free, "1") == (429, "limit_reached", "1")
    body = {"customer": free, "meter": "questions", "quantity": "1"}
    told = api.post("/v1/authorize", body).json()
    assert (told["allowed"], told["code"]) == (False, "limit_reached")
    assert (
        told["resets_at"]
        == api.get(f"/v1/quota?customer={free}&meter=questions").json()["resets_at"]
    )
    nothing, _ = api.customer()
    assert ask(api, nothing, "1") == (403, "no_subscription", None)
    paused, paused_id = api.customer("pro")
    with api.product.database.transaction() as tx:
        subscriptions.set_status(tx, customer_id=paused_id, status=Status.PAUSED, now=api.now)
    assert ask(api, paused, "1") == (403, "suspended", None)
    capped, _ = api.customer("pro")
    assert api.send("PUT", f"/v1/customers/{capped}/spend-cap", {"amount": "1.00"}).json() == {
        "customer": capped,
        "spend_cap": {"amount": "1.00", "currency": "usd"},
    }
    assert ask(api, capped, "601") == (402, "spend_cap", month)
    assert ask(api, capped, "600") == (200, None, None)


def test_a_quota_says_all_that_a_page_needs(api: Api) -> None:
    name, _ = api.customer("pro")
    api.send("PUT", f"/v1/customers/{name}/spend-cap", {"amount": "1.00"})
    ask(api, name, "600")
    found = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    assert found.pop("resets_at").endswith("Z")
    assert found == {
        "customer": name,
        "meter": "questions",
        "limit": None,
        "included": "500",
        "used": "0",
        "reserved": "600",
        "remaining": None,
        "overage": "0",
        "credit": "0",
        "access": "full",
        "reason": "spend_cap",
        "spend_cap": {"amount": "1.00", "currency": "usd"},
        "spend": {"amount": "1.00", "currency": "usd"},
    }


def test_a_lease_is_acquired_renewed_and_settled(api: Api) -> None:
    name, _ = api.customer("free")
    made = api.post("/v1/leases", {"customer": name, "meter": "questions", "wanted": "100"})
    lease = made.json()
    assert made.status_code == 201
    assert (lease["granted"], lease["remaining"], lease["used"]) == ("5", "5", "0")
    assert (lease["state"], lease["sequence"], lease["expires_in_ms"]) == ("open", 0, 60_000)
    path = f"/v1/leases/{lease['lease']}"
    report = {"customer": name, "used": "2", "sequence": 1, "wanted": "4"}
    renewed = api.post(f"{path}/renew", report).json()
    assert (renewed["granted"], renewed["remaining"], renewed["used"]) == ("6", "4", "2")
    assert api.post(f"{path}/renew", report).json() == renewed
    assert api.get(f"/v1/customers/{name}/leases").json()["leases"] == [renewed]
    settled = api.post(f"{path}/settle", {"customer": name, "used": "3"}).json()
    assert (settled["state"], settled["remaining"], settled["used"]) == ("settled", "0", "3")
    quota = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    assert (quota["used"], quota["reserved"], quota["remaining"]) == ("3", "0", "47")
    assert api.get(f"/v1/customers/{name}/leases").json() == {"leases": [], "next": None}


def test_a_lease_is_denied_as_a_request_is(api: Api) -> None:
    name, _ = api.customer("free")
    ask(api, name, "50")
    found = api.post("/v1/leases", {"customer": name, "meter": "questions", "wanted": "1"})
    assert (found.status_code, found.json()["reason"]) == (429, "limit_reached")
    assert int(found.headers["retry-after"]) >= 1
    assert found.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"wanted": "0"}, 422, "wanted"),
        ({"wanted": "-1"}, 422, "wanted"),
        ({"wanted": "1000000000000000000"}, 422, "wanted"),
        ({"wanted": 5}, 422, "wanted"),
        ({"wanted": "1", "lease": "rsv_1"}, 422, "id"),
        ({"wanted": "1", "more": "1"}, 422, "more"),
    ],
)
def test_a_wrong_lease_request_names_its_field(
    api: Api, body: dict[str, object], status: int, field: str
) -> None:
    name, _ = api.customer("free")
    found = api.post("/v1/leases", {"customer": name, "meter": "questions", **body})
    assert (found.status_code, found.json()["field"]) == (status, field)


def test_a_bound_key_leases_for_its_own_customer_only(api: Api) -> None:
    own, own_id = api.customer("free")
    other, _ = api.customer("free")
    key = api.key(Scope.QUOTA_WRITE, Scope.QUOTA_READ, customer_id=own_id)
    body = {"customer": other, "meter": "questions", "wanted": "1"}
    assert api.post("/v1/leases", body, key=key).status_code == 404
    assert api.get(f"/v1/customers/{other}/leases", key=key).status_code == 404
    lease = api.post("/v1/leases", body).json()["lease"]
    for verb, more in (("renew", {"used": "1", "sequence": 1}), ("settle", {"used": "1"})):
        path = f"/v1/leases/{lease}/{verb}"
        assert api.post(path, {"customer": other, **more}, key=key).status_code == 404
        assert api.post(path, {"customer": own, **more}, key=key).status_code == 404
    lost = api.post(f"/v1/leases/{lease}/declare-lost", {"customer": own}, key=key)
    assert lost.status_code == 403
    cap = api.send("PUT", f"/v1/customers/{own}/spend-cap", {"amount": None}, key=key)
    assert cap.status_code == 403


def test_the_clients_lease_decides_in_process_and_settles(api: Api) -> None:
    name, _ = api.customer("free")

    def send(call: Call) -> Reply:
        found = api.post(call.path, call.body)
        return Reply(found.status_code, found.content)

    lease = Lease(send, name, "questions", wanted=1)
    assert [lease.take(), lease.take()] == [True, False]
    lease.done()
    assert lease.close()
    quota = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    assert (quota["used"], quota["reserved"]) == ("1", "0")


def test_an_operator_finds_and_gives_up_a_dead_nodes_lease(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = api.customer("free")
    body = {"customer": name, "meter": "questions", "wanted": "5"}
    lease = api.post("/v1/leases", body).json()["lease"]
    path = f"/v1/leases/{lease}/declare-lost"
    early = api.post(path, {"customer": name})
    assert (early.status_code, early.json()["code"]) == (409, "lease_live")
    assert api.get(f"/v1/customers/{name}/leases?expired=true").json()["leases"] == []
    clock = api.product.clock
    assert isinstance(clock, VirtualClock)
    clock.advance_to(api.now + timedelta(minutes=2))
    late = api.get(f"/v1/customers/{name}/leases?expired=true").json()["leases"]
    assert [(one["lease"], one["expires_in_ms"]) for one in late] == [(lease, 0)]
    assert api.post(path, {"customer": name}).json()["state"] == "lost"
    quota = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    assert quota["remaining"] == "50"


def test_the_command_line_shows_caps_and_gives_up(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path))
    with opened() as product:
        now = product.clock.now() - timedelta(minutes=5)
        with product.database.transaction() as tx:
            customer = customers.create(tx, product.keyring, key="acme", now=now)
            subscriptions.create(
                tx, customer_id=customer.customer_id, plan_key="free", start=now, now=now
            )
        product.gate.leases.acquire("acme", "questions", Decimal(5), now=now)

    def run(*words: str) -> object:
        found = CliRunner().invoke(command.app, [*words, "--json"], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout.splitlines()[-1])

    shown = run("show", "acme", "--meter", "questions")
    assert isinstance(shown, dict)
    assert (shown["reserved"], shown["remaining"], shown["reason"]) == ("5", "45", None)
    assert run("cap", "acme", "25.00") == {"customer": "acme", "spend_cap": "25.00 usd"}
    assert run("cap", "acme", "none") == {"customer": "acme", "spend_cap": None}
    listed = run("leases", "--expired", "--customer", "acme")
    assert isinstance(listed, list)
    assert [(one["customer"], one["held"]) for one in listed] == [("acme", "5")]
    lost = run("lost", "acme", listed[0]["lease"])
    assert isinstance(lost, dict)
    assert (lost["state"], lost["held"]) == ("lost", "0")
    assert run("leases") == []
