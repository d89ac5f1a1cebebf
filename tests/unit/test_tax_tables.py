"""The tax file holds the public tables of VAT rates, past and present, without an overlap."""

import csv
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from convergio.kernel.quantity import quantity_text
from convergio.rating.taxing import Place, Taxed
from convergio.taxes import rules
from convergio.taxes.model import RateLine, RegistrationLine, TaxFile

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "ref"
HISTORY = FOLDER / "kdeldycke_vat_rates.csv"
TODAY = FOLDER / "ibericode_vat-rates.json"
NAMES = {"EL": "GR", "UK": "GB"}
pytestmark = pytest.mark.skipif(not HISTORY.exists(), reason=f"{HISTORY} is not on this machine")


def history() -> Iterator[RateLine]:
    """Yield the dated standard rates of countries; territories within them are left out."""
    with HISTORY.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            codes = {NAMES.get(code, code) for code in row["territory_codes"].split()}
            for code in sorted(code for code in codes if len(code) == 2 and code.isalpha()):
                yield RateLine(
                    country=code,
                    percent=quantity_text(Decimal(row["rate"]) * 100),
                    since=row["start_date"] or None,
                    to=row["stop_date"] or None,
                )


def today() -> Iterator[RateLine]:
    """Yield the rates of every category, in force from a day on."""
    for code, periods in json.loads(TODAY.read_bytes())["items"].items():
        dated = sorted(periods, key=lambda one: one["effective_from"])
        days = [one["effective_from"].replace("0000", "1900", 1) for one in dated]
        for place, one in enumerate(dated):
            for category, percent in one["rates"].items():
                yield RateLine(
                    country=NAMES.get(code, code),
                    category=category,
                    percent=quantity_text(Decimal(str(percent))),
                    since=days[place],
                    to=days[place + 1] if place + 1 < len(days) else None,
                )


def rate_on(lines: Iterator[RateLine], country: str, day: str, category: str = "standard") -> str:
    book = rules.book_of(
        TaxFile(
            seller=country,
            registrations=(RegistrationLine(country=country),),
            rates=tuple(lines),
        )
    )
    found = book.decide(Place(country), category, date.fromisoformat(day))
    assert isinstance(found, Taxed)
    return quantity_text(found.rate)


@pytest.mark.parametrize(
    ("country", "day", "percent"),
    [
        ("IT", "2013-09-30", "21"),
        ("IT", "2013-10-01", "22"),
        ("ES", "2012-08-31", "18"),
        ("ES", "2012-09-01", "21"),
        ("GR", "2016-06-01", "24"),
    ],
)
def test_the_history_of_standard_rates_answers_for_each_day(
    country: str, day: str, percent: str
) -> None:
    assert rate_on(history(), country, day) == percent


@pytest.mark.parametrize(
    ("country", "category", "percent"),
    [("IT", "standard", "22"), ("FR", "standard", "20"), ("ES", "super_reduced", "4")],
)
def test_the_table_of_today_answers_for_each_category(
    country: str, category: str, percent: str
) -> None:
    assert rate_on(today(), country, "2025-06-30", category) == percent
