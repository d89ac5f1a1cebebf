"""`convergio subscribe` and `convergio bill`, as a person and as a program call them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.catalog.actions import EXAMPLE
from convergio.cli.main import app
from convergio.kernel.errors import Conflict, Invalid, NotFound, Rejected

Call = Callable[..., Result]


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, words)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def test_a_customer_subscribes_and_is_billed_once(call: Call) -> None:
    answer(call("customer", "create", "acme", "--json"))
    words = ("--start", "2025-01-31T15:00:00Z", "--timezone", "Europe/Rome", "--json")
    made = answer(call("subscribe", "acme", "pro", *words))
    assert made["id"].startswith("sub_")
    assert (made["plan"], made["status"], made["start"], made["time_zone"]) == (
        "pro",
        "active",
        "2025-01-31T15:00:00Z",
        "Europe/Rome",
    )
    dry = call("bill", "--as-of", "2025-03-02T00:00:00Z", "--dry-run", "--json")
    done = call("bill", "--as-of", "2025-03-02T00:00:00Z", "--json")
    line = '{"invoices":2,"total":{"usd":"13.98"},"customers":1,"lines":2,"problems":[]}'
    assert [one.stdout.splitlines()[-1] for one in (dry, done)] == [line, line]
    again = answer(call("bill", "--as-of", "2025-03-02T00:00:00Z", "--json"))
    assert (again["invoices"], again["total"]) == (0, {})
    assert "0 invoices issued" in call("bill", "--as-of", "2025-03-02T00:00:00Z").stdout


@pytest.mark.parametrize(
    ("words", "error", "field"),
    [
        (("acme", "gold"), NotFound, "plan"),
        (("nobody", "pro"), NotFound, None),
        (("acme", "pro", "--start", "yesterday"), Invalid, "--start"),
        (("acme", "pro", "--start", "2999-01-01T00:00:00Z"), Invalid, "start"),
        (("acme", "pro", "--start", "1971-01-01T00:00:00Z"), Invalid, "start"),
        (("acme", "pro", "--timezone", "Mars/Base"), Invalid, "--timezone"),
        (("acme", "pro", "--seats", "2"), Invalid, "seats"),
        (("acme", "team", "--seats", "0"), Invalid, "--seats"),
        (("acme", "team", "--seats", "1e3"), Invalid, "--seats"),
        (("euro", "pro"), Invalid, "plan"),
    ],
)
def test_a_bad_subscription_is_refused_and_makes_nothing(
    call: Call, words: tuple[str, ...], error: type[Rejected], field: str | None
) -> None:
    answer(call("customer", "create", "acme", "--json"))
    answer(call("customer", "create", "euro", "--currency", "eur", "--json"))
    refused = call("subscribe", *words).exception
    assert isinstance(refused, error)
    assert field is None or refused.field == field
    assert answer(call("bill", "--json"))["customers"] == 0


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("subscription", "list", "--plan", "\udcff"), "--plan"),
        (("subscription", "cancel", "acme", "--credit"), "credit"),
        (("preview", "acme", "--do", "cancel-now", "--plan", "team"), "--plan"),
        (("preview", "acme", "--do", "pause", "--seats", "3"), "--seats"),
        (("preview", "acme", "--do", "pause", "--when", "now"), "--when"),
        (("preview", "acme", "--do", "pause", "--at", "2025-01-31T15:00:00Z"), "--at"),
        (("preview", "acme", "--do", "pause", "--credit"), "--credit"),
        (("preview", "acme", "--credit"), "--credit"),
        (("preview", "acme", "--when", "now"), "--when"),
    ],
)
def test_an_option_that_means_nothing_there_is_refused_by_name(
    call: Call, words: tuple[str, ...], field: str
) -> None:
    answer(call("customer", "create", "acme", "--json"))
    answer(call("subscribe", "acme", "pro", "--json"))
    refused = call(*words).exception
    assert isinstance(refused, Invalid)
    assert refused.field == field


@pytest.mark.parametrize("words", [("subscription", "agree", "acme"), ("whatif",)])
def test_a_file_beyond_a_mebibyte_is_refused_before_it_is_read(
    call: Call, tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as made:
        made.truncate(1 << 40)  # a hole: what read all of it would not come back
    more = () if words[0] != "whatif" else (
        "--from", "2025-01-01T00:00:00Z", "--to", "2025-02-01T00:00:00Z",
    )  # fmt: skip
    refused = call(*words, str(file), *more).exception
    assert isinstance(refused, Invalid)
    assert refused.code == "too_large"


def test_a_migration_decides_a_trial_that_is_over_and_names_who_stays(
    call: Call, tmp_path: Path
) -> None:
    answer(call("customer", "create", "acme", "--json"))
    trial = ("--start", "2025-01-31T15:00:00Z", "--trial-days", "3", "--without-method", "pause")
    made = answer(call("subscribe", "acme", "pro", *trial, "--json"))
    file = tmp_path / "catalog.yaml"
    file.write_text(EXAMPLE.read_text().replace("key: pro_fee", "key: pro_fee\n        version: 2"))
    answer(call("catalog", "apply", str(file), "--json"))
    told = answer(call("catalog", "migrate", "pro_fee", "--to", "2", "--json"))
    left = {made["customer"]: "the subscription is paused; resume it first"}
    assert told == {"changing": 0, "left": left}


def test_a_second_live_subscription_is_refused(call: Call) -> None:
    answer(call("customer", "create", "acme", "--json"))
    answer(call("subscribe", "acme", "pro", "--json"))
    assert isinstance(call("subscribe", "acme", "free").exception, Conflict)


def test_a_bad_as_of_names_the_option(call: Call) -> None:
    refused = call("bill", "--as-of", "2025-13-01").exception
    assert isinstance(refused, Invalid)
    assert refused.field == "--as-of"
