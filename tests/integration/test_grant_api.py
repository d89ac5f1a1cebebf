"""Credit grants over HTTP and on the command line: who may, what they say, what they are worth."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from convergio.cli import grant as command
from convergio.cli.opening import opened
from convergio.customers import actions as customers
from convergio.identity.model import Scope
from convergio.infra.postgres import Embedded
from tests.fakes.api import Api, running

PACK: dict[str, Any] = {
    "key": "pack", "category": "purchased", "meter": "questions", "quantity": "20",
}  # fmt: skip


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One product for the whole module; every test makes its own customers."""
    with running(server, template, tmp_path_factory.mktemp("home")) as served:
        yield served


def _remaining(api: Api, name: str) -> tuple[str, str]:
    quota = api.get(f"/v1/quota?customer={name}&meter=questions").json()
    return quota["remaining"], quota["credit"]


def test_a_grant_widens_the_quota_at_once_and_a_void_narrows_it(api: Api) -> None:
    name, _ = api.customer("free")
    path = f"/v1/customers/{name}/credit-grants"
    made = api.post(path, PACK)
    assert made.status_code == 201
    value = made.json()
    assert (value["quantity"], value["drawn"], value["remaining"]) == ("20", "0", "20")
    assert (value["state"], value["priority"], value["expires_at"]) == ("active", 100, None)
    assert _remaining(api, name) == ("70", "20")
    body = {"customer": name, "meter": "questions", "quantity": "60"}
    assert api.post("/v1/authorize", body).status_code == 200
    assert _remaining(api, name) == ("10", "20")  # reserved is not drawn yet
    voided = api.post(f"{path}/{value['id']}/void", {}).json()
    assert (voided["state"], voided["remaining"]) == ("voided", "0")
    assert _remaining(api, name) == ("0", "0")
    listed = api.get(path).json()
    assert [one["id"] for one in listed["grants"]] == [value["id"]]
    assert listed["next"] is None


def test_the_same_key_is_the_same_grant_and_with_other_terms_a_conflict(api: Api) -> None:
    name, _ = api.customer("free")
    path = f"/v1/customers/{name}/credit-grants"
    first, again = api.post(path, PACK).json(), api.post(path, PACK).json()
    assert first["id"] == again["id"]
    other = api.post(path, PACK | {"quantity": "21"})
    assert (other.status_code, other.json()["code"]) == (409, "other_grant")
    assert _remaining(api, name) == ("70", "20")


def test_a_grant_in_money_is_kept_and_moves_no_quota(api: Api) -> None:
    name, _ = api.customer("free")
    body = {"key": "gift", "category": "promotional", "amount": "25.00"}
    value = api.post(f"/v1/customers/{name}/credit-grants", body).json()
    assert (value["amount"], value["currency"], value["remaining"]) == ("25.00", "usd", "25.00")
    assert _remaining(api, name) == ("50", "0")


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"quantity": "0"}, 422, "quantity"),
        ({"quantity": "-1"}, 422, "quantity"),
        ({"quantity": "1000000000000000000"}, 422, "quantity"),
        ({"quantity": None}, 422, "quantity"),
        ({"meter": None}, 422, "meter"),
        ({"meter": "nothing"}, 422, "meter"),
        ({"amount": "5.00"}, 422, "meter"),
        ({"category": "given"}, 422, "category"),
        ({"priority": -1}, 422, "priority"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"starts_at": "1900-01-01T00:00:00Z"}, 422, "starts_at"),
        ({"expires_at": "8000-01-01T00:00:00Z"}, 422, "expires_at"),
        ({"key": "\u202e"}, 422, "key"),
        ({"more": 1}, 422, "more"),
    ],
)
def test_a_wrong_grant_names_its_field_and_leaves_nothing(
    api: Api, change: dict[str, Any], status: int, field: str
) -> None:
    name, _ = api.customer("free")
    path = f"/v1/customers/{name}/credit-grants"
    found = api.post(path, PACK | change)
    assert (found.status_code, found.json()["field"]) == (status, field)
    assert api.get(path).json()["grants"] == []


def test_only_the_seller_grants_and_a_customer_reads_its_own_alone(api: Api) -> None:
    own, own_id = api.customer("free")
    other, _ = api.customer("free")
    made = api.post(f"/v1/customers/{own}/credit-grants", PACK).json()
    reader = api.key(Scope.QUOTA_READ, customer_id=own_id)
    bound = api.key(Scope.ADMIN, customer_id=own_id)
    writer = api.key(Scope.QUOTA_WRITE, Scope.CUSTOMERS_WRITE)
    path = f"/v1/customers/{own}/credit-grants"
    for key in (reader, bound, writer):
        assert api.post(path, PACK | {"key": "more"}, key=key).status_code == 403
        assert api.post(f"{path}/{made['id']}/void", {}, key=key).status_code == 403
    assert [one["id"] for one in api.get(path, key=reader).json()["grants"]] == [made["id"]]
    assert api.get(f"/v1/customers/{other}/credit-grants", key=reader).status_code == 404
    # another customer's grant is none of this one
    wrong = api.post(f"/v1/customers/{other}/credit-grants/{made['id']}/void", {})
    assert (wrong.status_code, wrong.json()["code"]) == (404, "unknown_grant")
    assert _remaining(api, own) == ("70", "20")


def test_a_meter_whose_units_are_not_used_up_cannot_be_prepaid(api: Api) -> None:
    source = api.product.database
    name, _ = api.customer("free")
    with source.transaction() as tx:
        tx.raw.execute(b"UPDATE meter SET aggregation = 'max' WHERE meter_key = 'images'")
    try:
        found = api.post(f"/v1/customers/{name}/credit-grants", PACK | {"meter": "images"})
        assert (found.status_code, found.json()["code"]) == (422, "not_grantable")
    finally:
        with source.transaction() as tx:
            tx.raw.execute(b"UPDATE meter SET aggregation = 'sum' WHERE meter_key = 'images'")


def test_the_command_line_grants_lists_and_voids(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path))
    with opened() as product:
        now = product.clock.now() - timedelta(minutes=5)
        with product.database.transaction() as tx:
            customers.create(tx, product.keyring, key="acme", now=now)

    def run(*words: str) -> Any:  # noqa: ANN401 - any JSON
        found = CliRunner().invoke(command.app, [*words, "--json"], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout.splitlines()[-1])

    terms = ("--meter", "questions", "--quantity", "7.5", "--category", "purchased")
    made = run("add", "acme", "pack", *terms)
    assert (made["remaining"], made["state"]) == ("7.5", "active")
    money = run("add", "acme", "gift", "--amount", "5.00", "--category", "promotional")
    assert money["remaining"] == "5.00"
    assert [one["key"] for one in run("list", "acme")] == ["pack", "gift"]
    assert run("void", "acme", made["id"])["state"] == "voided"
    assert [one["remaining"] for one in run("list", "acme")] == ["0", "5.00"]
