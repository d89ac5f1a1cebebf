"""`convergio invoice` and `convergio collect`, as a person and as a program call them."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convergio.cli.main import app
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.kernel.errors import Invalid, NotFound
from convergio.payments import actions as payments

Call = Callable[..., Result]


@pytest.fixture
def call(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("CONVERGIO_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, words)


def answer(result: Result) -> Any:  # noqa: ANN401 - any JSON value
    assert result.exception is None, result.exception
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def billed(call: Call) -> Call:
    """Two customers with two invoices each."""
    for key, name, locale in (("acme", "Acme Ltd", "en"), ("conti", "Giulia Conti", "it")):
        answer(call("customer", "create", key, "--name", name, "--locale", locale, "--json"))
        answer(call("subscribe", key, "pro", "--start", "2025-01-10T09:00:00Z", "--json"))
    assert answer(call("bill", "--as-of", "2025-03-01T00:00:00Z", "--json"))["invoices"] == 4
    return call


def test_invoices_are_listed_page_by_page_by_customer_and_by_status(billed: Call) -> None:
    every = answer(billed("invoice", "list", "--json"))
    assert [one["status"] for one in every["invoices"]] == ["open"] * 4
    assert every["next"] is None
    one = every["invoices"][0]
    assert (one["total"], one["paid"], one["due"], one["currency"]) == (
        "6.99",
        "0.00",
        "6.99",
        "usd",
    )
    seen: list[Any] = []
    after: tuple[str, ...] = ()
    for _ in range(2):
        page = answer(billed("invoice", "list", "--limit", "2", *after, "--json"))
        seen += page["invoices"]
        after = ("--after", page["next"])
    assert seen == every["invoices"]
    mine = answer(billed("invoice", "list", "--customer", "conti", "--json"))["invoices"]
    assert [one["customer"] for one in mine] == ["conti"] * 2
    assert answer(billed("invoice", "list", "--status", "paid", "--json"))["invoices"] == []
    assert one["number"] in billed("invoice", "list").stdout


def test_a_pdf_is_written_by_number_or_by_id_in_the_buyers_language(
    billed: Call, tmp_path: Path
) -> None:
    one = answer(billed("invoice", "list", "--customer", "conti", "--json"))["invoices"][0]
    named = answer(billed("invoice", "pdf", one["number"], "--json"))
    assert named["path"] == str(tmp_path / "home" / "invoices" / f"{one['number']}.pdf")
    pdf = Path(named["path"]).read_bytes()
    assert pdf.startswith(b"%PDF-")
    out = tmp_path / "mine.pdf"
    shown = billed("invoice", "pdf", one["id"], "--out", str(out))
    assert shown.stdout.splitlines()[-1] == str(out)
    assert out.read_bytes() == pdf
    assert list(tmp_path.glob(".*.part")) == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pdf", "CVG-2025-999999"), NotFound),
        (("pdf", "twelve"), Invalid),
        (("pdf", "inv_x"), Invalid),
        (("pdf", "inv_00000000000000000000000000"), NotFound),
        (("list", "--customer", "nobody"), NotFound),
        (("list", "--after", "nothing"), Invalid),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    call: Call, words: tuple[str, ...], error: type[Exception], tmp_path: Path
) -> None:
    assert isinstance(call("invoice", *words).exception, error)
    assert not (tmp_path / "home" / "invoices").exists()


def test_a_pdf_for_which_there_is_no_place_leaves_nothing_behind(
    billed: Call, tmp_path: Path
) -> None:
    one = answer(billed("invoice", "list", "--json"))["invoices"][0]
    lost = billed("invoice", "pdf", one["number"], "--out", str(tmp_path / "no" / "x.pdf"))
    assert isinstance(lost.exception, OSError)
    assert not (tmp_path / "no").exists()


def test_what_is_due_is_collected_once(billed: Call, database: Database, now: datetime) -> None:
    with database.transaction() as tx:
        acme = customers.find(tx, "acme").customer_id
        payments.add_method(tx, acme, gateway="sandbox", token="tok_ok", now=now)
    done = answer(billed("collect", "--json"))
    assert done["collect"]["succeeded"] == 2
    assert done["collect"]["collected"] == {"usd": "13.98"}
    assert done["collect"]["waiting_for_method"] == 2
    assert done["reconcile"]["succeeded"] == 0
    paid = answer(billed("invoice", "list", "--status", "paid", "--json"))["invoices"]
    assert [one["customer"] for one in paid] == ["acme"] * 2
    assert "0 paid (nothing)" in billed("collect").stdout
    assert answer(billed("verify", "--json"))["ok"]
