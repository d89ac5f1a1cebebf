"""`convergio customer` and `convergio apikey`, as a person and as a program call them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.crypto.errors import MissingKeyEncryptionKey
from convergio.customers.errors import CustomerExists, CustomerNotFound
from convergio.identity.actions import authenticate
from convergio.identity.errors import BadKey, KeyNotFound
from convergio.infra.clock import SystemClock
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid

Call = Callable[..., Result]


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, words)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_a_customer_is_created_shown_and_listed(call: Call) -> None:
    words = ("--name", "Acme Ltd", "--email", "billing@acme.example", "--country", "IT", "--json")
    made = answer(call("customer", "create", "acme", "--currency", "EUR", *words))
    assert made["id"].startswith("cus_")
    assert (made["key"], made["currency"], made["country"]) == ("acme", "eur", "IT")
    assert "Acme" not in str(made)
    for name in ("acme", made["id"]):
        shown = answer(call("customer", "show", name, "--json"))
        assert shown == made | {
            "name": "Acme Ltd",
            "email": "billing@acme.example",
            "address": None,
            "tax_id": None,
        }
    assert answer(call("customer", "list", "--json")) == {"customers": [made], "next": None}
    assert "Acme Ltd" in call("customer", "show", "acme").stdout
    assert "acme" in call("customer", "list").stdout


def test_a_list_goes_on_where_it_ended(call: Call) -> None:
    made = [answer(call("customer", "create", f"k{n}", "--json"))["id"] for n in range(3)]
    first = answer(call("customer", "list", "--limit", "2", "--json"))
    rest = answer(call("customer", "list", "--limit", "2", "--after", first["next"], "--json"))
    assert [one["id"] for one in first["customers"] + rest["customers"]] == made
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("customer", "create", "taken"), CustomerExists),
        (("customer", "create", "bad\x1b[31m"), Invalid),
        (("customer", "create", "new", "--currency", "xxx"), Invalid),
        (("customer", "show", "nobody"), CustomerNotFound),
        (("customer", "list", "--after", "nonsense"), Invalid),
        (("apikey", "create", "x", "--scope", "root"), Invalid),
        (("apikey", "create", "x", "--scope", "usage:read", "--expires", "tomorrow"), Invalid),
        (("apikey", "create", "x", "--scope", "usage:read", "--customer", "no"), CustomerNotFound),
        (("apikey", "revoke", "key_00000000000000000000000000"), KeyNotFound),
        (("apikey", "revoke", "nonsense"), Invalid),
    ],
)
def test_a_wrong_word_is_one_error_and_changes_nothing(
    call: Call, words: tuple[str, ...], error: type[Exception]
) -> None:
    call("customer", "create", "taken")
    result = call(*words)
    assert isinstance(result.exception, error)
    assert len(answer(call("customer", "list", "--json"))["customers"]) == 1
    assert answer(call("apikey", "list", "--json"))["keys"] == []


def test_key_02_a_key_is_printed_once_and_then_only_by_its_ends(
    call: Call, database: Database
) -> None:
    made = answer(call("apikey", "create", "gateway", "--scope", "usage:write", "--json"))
    with database.transaction() as tx:
        who = authenticate(tx, made["key"], now=SystemClock().now())
    assert who.scopes == {"usage:write"}
    for words in (("apikey", "list"), ("apikey", "list", "--json")):
        assert made["key"] not in call(*words).stdout
        assert made["key"][-4:] in call(*words).stdout
    (listed,) = answer(call("apikey", "list", "--json"))["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}


def test_a_revoked_key_opens_nothing_and_says_so_in_the_list(
    call: Call, database: Database
) -> None:
    answer(call("customer", "create", "acme", "--json"))
    words = ("--scope", "usage:read", "--customer", "acme", "--expires", "2999-01-01T00:00:00Z")
    secret = call("apikey", "create", "portal", *words).stdout.strip()
    (listed,) = answer(call("apikey", "list", "--json"))["keys"]
    assert (listed["status"], listed["expires_at"]) == ("active", "2999-01-01T00:00:00Z")
    assert listed["customer"].startswith("cus_")
    assert answer(call("apikey", "revoke", listed["id"], "--json"))["status"] == "revoked"
    with database.transaction() as tx, pytest.raises(BadKey):
        authenticate(tx, secret, now=SystemClock().now())


def test_a_lost_key_file_is_found_before_a_new_one_hides_it(call: Call, tmp_path: Path) -> None:
    answer(call("customer", "create", "acme", "--name", "Acme", "--json"))
    (kek,) = [path for path in (tmp_path / "home").iterdir() if path.is_file()]
    kek.unlink()
    result = call("customer", "show", "acme")
    assert isinstance(result.exception, MissingKeyEncryptionKey)


@pytest.mark.parametrize("command", ["customer", "apikey"])
def test_help_shows_an_example(call: Call, command: str) -> None:
    assert "Example: convergio" in call(command, "--help").stdout
    assert "Example: convergio" in call(command, "create", "--help").stdout
    assert "Example: convergio" in call(command, "list", "--help").stdout
