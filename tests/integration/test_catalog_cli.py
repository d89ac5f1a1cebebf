"""`convergio catalog`, as a person and as a program call it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.catalog.actions import EXAMPLE
from convergio.cli.main import app
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid

Call = Callable[..., Result]


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    return lambda *words, stdin=None: CliRunner().invoke(app, ["catalog", *words], input=stdin)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


def stored_plans(database: Database) -> int:
    with database.transaction() as tx:
        return int(tx.value("SELECT count(*) FROM plan"))


def test_plan_shows_what_apply_then_does_and_a_second_apply_does_nothing(
    call: Call, database: Database
) -> None:
    planned = answer(call("plan", str(EXAMPLE), "--json"))
    assert stored_plans(database) == 0
    applied = answer(call("apply", str(EXAMPLE), "--json"))
    assert applied == planned
    assert (applied["version"], applied["changed"]) == (1, True)
    assert stored_plans(database) == 4
    again = answer(call("apply", str(EXAMPLE), "--json"))
    assert (again["version"], again["changed"]) == (1, False)
    assert {entry["state"] for entry in again["entries"]} == {"unchanged"}


def test_a_file_of_ones_own_meets_no_example(call: Call, database: Database) -> None:
    own = "events: [{type: ping}]\nmeters: [{key: questions, name: Q, event: ping, value: n}]\n"
    applied = answer(call("apply", "-", "--json", stdin=own))
    assert [entry["key"] for entry in applied["entries"]] == ["ping", "questions"]
    assert stored_plans(database) == 0


def test_a_person_reads_each_field_before_and_after(call: Call, tmp_path: Path) -> None:
    call("apply", str(EXAMPLE))
    file = tmp_path / "catalog.yaml"
    text = EXAMPLE.read_text().replace("amount: 6.99", "amount: 7.99")
    file.write_text(
        text.replace("description: A fee a seat", "description: |\n      A fee\n      a")
    )
    result = call("plan", str(file))
    assert "~ price pro_fee (changed)\n    charge.amount: 6.99 -> 7.99\n" in result.stdout
    assert "~ plan team (changed)\n    description: " in result.stdout
    assert result.stdout.splitlines()[-1] == "version 2: 2 changed, 13 unchanged"


def test_show_lists_meters_plans_and_prices(call: Call) -> None:
    call("apply", str(EXAMPLE))
    shown = answer(call("show", "--json"))
    assert shown["meters"][0]["key"] == "questions"
    pro = next(plan for plan in shown["plans"] if plan["key"] == "pro")
    fee, questions = pro["prices"]
    assert fee["id"].startswith("price_")
    assert fee["charge"] == {"model": "flat", "amount": "6.99"}
    assert questions["quota"] == {"limit": "500", "hard": False}
    assert "pro_fee v1" in call("show").stdout


def test_show_on_an_empty_database_shows_the_example(call: Call) -> None:
    keys = [plan["key"] for plan in answer(call("show", "--json"))["plans"]]
    assert keys == ["free", "pro", "team", "enterprise"]


def test_a_name_that_looks_like_markup_is_shown_as_it_is(call: Call) -> None:
    file = "plans: [{key: a, name: '[bold]x[/nothing]'}]"
    assert call("apply", "-", stdin=file).exit_code == 0
    assert "[bold]x[/nothing]" in call("show").stdout


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("plans: [{key: a}]", "missing_name", "plans[0].name"),
        ("a: &a [*a]", "alias_refused", "a"),
        ("\tplans: []", "tab_indent", "line 1"),
        ("#" * (1 << 21), "too_large", "file"),
    ],
)
def test_a_wrong_file_is_refused_and_nothing_is_stored(
    call: Call, database: Database, text: str, code: str, field: str
) -> None:
    for command in ("plan", "apply"):
        error = call(command, "-", stdin=text).exception
        assert isinstance(error, Invalid)
        assert (error.code, error.field) == (code, field)
    assert stored_plans(database) == 0


def test_a_meter_that_would_change_is_refused(call: Call) -> None:
    call("apply", str(EXAMPLE))
    text = EXAMPLE.read_text().replace("value: quantity", "value: other")
    error = call("apply", "-", stdin=text).exception
    assert isinstance(error, Conflict)
    assert error.field == "meters[0].value"


def test_a_file_that_is_not_there_is_an_operating_system_error(call: Call) -> None:
    assert isinstance(call("plan", "/nowhere/catalog.yaml").exception, FileNotFoundError)


@pytest.mark.parametrize("words", [("--help",), ("plan", "--help"), ("apply", "--help")])
def test_help_shows_an_example(call: Call, words: tuple[str, ...]) -> None:
    assert "Example: convergio catalog" in call(*words).stdout
