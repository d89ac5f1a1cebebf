"""The demo's summary as a person sees it: everything is in it, on one page."""

import io
from typing import Any

import pytest
from rich.console import Console

from convergio.cli.demo import overview, show


def books(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of a JSON value
    return {
        "seed": 7,
        "from": "2026-01-01",
        "until": "2026-04-01",
        "seconds": 25.5,
        "customers": {
            "signed_up": 300,
            "plans": {"free": 134, "pro": 106, "team": 29, "enterprise": 9},
            "canceled": 22,
            "upgraded": 15,
        },
        "events": {"accepted": 153_580, "duplicate": 4_996, "conflict": 20, "rejected": 47},
        "quota": {
            "allowed": 1_677,
            "denied": {"limit_reached": 284, "suspended": 33},
            "committed": 1_590,
            "released": 50,
            "expired": 37,
        },
        "invoices": {"issued": 336, "paid": 329, "open": 7},
        "payments": {"succeeded": 329, "declined": 79, "requires_action": 11, "unknown": 15},
        "currency": "usd",
        "billed": "18001.38",
        "collected": "17952.45",
        "fees": "618.82",
        "receivable": "48.93",
        "checks": {"usage totals = events": 0, "payments = transfers = invoices": 0},
        "reconciles": True,
        "differences": [],
        "problems": [],
        "documents": {"en": "invoices/DEMO-2026-000158.pdf", "it": "invoices/DEMO-2026-000112.pdf"},
        **changed,
    }


def rendered(width: int) -> str:
    output = io.StringIO()
    Console(file=output, width=width).print(overview(books()))
    return output.getvalue()


@pytest.mark.parametrize("width", [100, 120])
def test_the_overview_fits_the_terminal_with_every_figure(width: int) -> None:
    text = rendered(width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for figure in ("134", "106", "22", "153,580", "4,996", "47", "1,677", "284", "33", "336"):
        assert figure in text.split()
    for amount in ("$18,001.38", "$17,952.45", "$618.82", "$48.93"):
        assert amount in text
    assert "Denied: limit reached" in text


def test_the_summary_says_that_the_books_reconcile_and_where_the_invoices_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(books())
    text = capsys.readouterr().out
    assert "ok  usage totals = events" in text
    assert "FAIL" not in text
    assert "en  invoices/DEMO-2026-000158.pdf" in text
    assert "it  invoices/DEMO-2026-000112.pdf" in text


def test_a_difference_is_shown_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"usage totals = events": 1, "payments = transfers = invoices": 0}
    show(books(checks=wrong, differences=["usage of x: expected 1, found 2"], reconciles=False))
    text = capsys.readouterr().out
    assert "FAIL 1  usage totals = events" in text
    assert "usage of x: expected 1, found 2" in text
    assert "ok  payments = transfers = invoices" in text
