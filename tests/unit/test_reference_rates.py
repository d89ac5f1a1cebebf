"""Reference rates: which day's counts, what a file may say, and how an amount is converted."""

import csv
import gzip
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as some

from convergio.kernel.errors import Invalid
from convergio.kernel.money import exponent
from convergio.rating.taxing import Unknown
from convergio.taxes import reference
from convergio.taxes.model import Exchange, ReferenceRate
from tests.conftest import SHARED

HISTORY = SHARED / "data" / "ref" / "ecb_eurofxref-hist.csv.gz"
EVERY_DAY = b"""Date,USD,JPY,ISK,
2025-03-04,1.0557,156.6,N/A,
2025-03-03,1.0465,157.55,N/A,
"""
ONE_DAY = b"Date, USD, JPY, \n04 March 2025, 1.0557, 156.60, \n"
XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
    xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
<gesmes:subject>Reference rates</gesmes:subject>
<Cube><Cube time='2025-03-04'><Cube currency='USD' rate='1.0557'/>
<Cube currency='JPY' rate='156.60'/></Cube></Cube></gesmes:Envelope>"""
MARCH = [
    ReferenceRate("usd", date(2025, 3, 4), Decimal("1.0557")),
    ReferenceRate("jpy", date(2025, 3, 4), Decimal("156.60")),
]


def known(**last: str) -> dict[str, tuple[date, Decimal, str]]:
    """Return last rates: `usd="2025-03-04 1.0557"`."""
    found = {}
    for code, text in last.items():
        day, rate = text.split()
        found[code] = (date.fromisoformat(day), Decimal(rate), "ECB")
    return found


def test_every_form_of_the_bank_s_files_says_the_same() -> None:
    assert reference.read(ONE_DAY) == MARCH
    assert reference.read(XML) == MARCH
    assert reference.read(EVERY_DAY)[:2] == MARCH
    assert len(reference.read(b"\xef\xbb\xbf" + EVERY_DAY.replace(b"\n", b"\r\n"))) == 4
    assert len(reference.read(EVERY_DAY.replace(b"\n", b"\r"))) == 4


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (b"", "line 1"),
        (b"PK\x03\x04\xff", "unpack"),
        (b"Date,USD\n", "no rate"),
        (b"Date,USD\n2025-03-04,1.05,3\n", "line 2: 3 cells"),
        (b"Date,USD\n2025-02-30,1.05\n", "line 2: '2025-02-30' is not a day"),
        (b"Date,USD\n2025-03-04,1e5\n", "line 2: '1e5'"),
        (b"Date,USD\n2025-03-04,0\n", "line 2: '0'"),
        (b"Date,USD\n2025-03-04,-1.05\n", "line 2: '-1.05'"),
        (b"Date,USD\n2025-03-04,1.00000000001\n", "line 2"),
        (b"Date,usd\n2025-03-04,1.05\n", "line 1: 'usd'"),
        (b"<Cube><Cube currency='USD' rate='1.05'/></Cube>", "before its day"),
        (b"<a>\n<Cube time='2025-03-04'>\n<Cube currency='usd' rate='1'/>", "line 3: 'usd'"),
        (b"<a>\n<Cube time='2025-03-04'>\n<Cube currency='USD' rate='0'/>", "line 3: '0'"),
        (b"<a>\n\n<Cube time='soon'/></a>", "line 3: 'soon'"),
        (b"<Cube time='2025-03-04'>", "no XML"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "document type"),
        (b"<a/>", "no rate"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "no XML"),
        (b'<?xml version="1.0" encoding="rot13"?><a/>', "no XML"),
        (b"Date," + b"9" * 200_000, "no CSV"),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_line(source: bytes, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        reference.read(source)


@pytest.mark.parametrize(
    ("day", "counts"),
    [
        ("2025-03-04", "2025-03-04"),  # a Tuesday, published
        ("2025-03-05", "2025-03-04"),  # published in the afternoon, or not yet stored
    ],
)
def test_the_rate_of_the_day_or_the_one_before_counts(day: str, counts: str) -> None:
    found = reference.exchange(
        "eur", "usd", date.fromisoformat(day), known(usd="2025-03-04 1.0557")
    )
    assert isinstance(found, Exchange)
    assert found.day == date.fromisoformat(counts)


def test_a_week_end_and_easter_take_the_last_day_before_them() -> None:
    for day in ("2025-04-18", "2025-04-19", "2025-04-21", "2025-04-22"):
        found = reference.exchange(
            "eur", "usd", date.fromisoformat(day), known(usd="2025-04-17 1.1360")
        )
        assert isinstance(found, Exchange), day
    late = reference.exchange("eur", "usd", date(2025, 4, 23), known(usd="2025-04-17 1.1360"))
    assert isinstance(late, Unknown)
    assert "USD" in late.reason
    assert "2025-04-22" in late.reason


@pytest.mark.parametrize(
    "last",
    [
        {},
        {"usd": "2025-03-03 1.0465"},
        {"usd": "2025-03-04 1.0557"},
        {"pln": "2025-03-04 4.17", "usd": "2025-03-05 1.0557"},
    ],
)
def test_a_rate_that_is_not_stored_is_never_guessed(last: dict[str, str]) -> None:
    found = reference.exchange("pln", "usd", date(2025, 3, 5), known(**last))
    assert isinstance(found, Unknown)


def test_a_currency_that_the_bank_no_longer_quotes_converts_nothing() -> None:
    found = reference.exchange("eur", "rub", date(2025, 3, 5), known(rub="2025-02-25 90"))
    assert isinstance(found, Unknown)


@pytest.mark.parametrize(
    ("minor", "currency", "home", "foreign_rate", "home_rate", "converted"),
    [
        (10_557, "usd", "eur", "1.0557", "1", 10_000),
        (1, "usd", "eur", "2", "1", 1),  # half a cent goes away from zero
        (-1, "usd", "eur", "2", "1", -1),
        (15_660, "jpy", "eur", "156.60", "1", 10_000),
        (10_000, "eur", "pln", "1", "4.17", 41_700),
        (10_000, "usd", "jpy", "1.0557", "156.60", 14_834),
        (0, "usd", "eur", "1.0557", "1", 0),
    ],
)
def test_amounts_are_converted_through_the_euro_and_rounded_once(  # noqa: PLR0917 - a table
    minor: int, currency: str, home: str, foreign_rate: str, home_rate: str, converted: int
) -> None:
    by = Exchange(home, date(2025, 3, 4), Decimal(foreign_rate), Decimal(home_rate), "ECB")
    assert reference.converted(minor, currency, by) == converted


@given(
    minor=some.integers(-(10**12), 10**12),
    rate=some.decimals("0.0001", "30000", places=4),
    currency=some.sampled_from(["usd", "jpy", "bhd"]),
)
def test_a_conversion_is_off_by_at_most_half_a_cent(
    minor: int, rate: Decimal, currency: str
) -> None:
    by = Exchange("eur", date(2025, 3, 4), rate, Decimal(1), "ECB")
    exact = Fraction(minor) / 10 ** exponent(currency) / Fraction(rate) * 100
    found = reference.converted(minor, currency, by)
    assert abs(found - exact) <= Fraction(1, 2)
    assert reference.converted(-minor, currency, by) == -found


@pytest.mark.skipif(not HISTORY.exists(), reason="../shared/data does not exist here")
def test_the_calendar_is_that_of_every_day_on_which_the_bank_ever_published() -> None:
    with gzip.open(HISTORY, "rt") as source:
        days = {date.fromisoformat(row["Date"]) for row in csv.DictReader(source)}
    day, last = date(2002, 1, 1), max(days)
    while day <= last:
        assert reference.is_published_on(day) is (day in days), day
        day += timedelta(days=1)


@pytest.mark.skipif(not HISTORY.exists(), reason="../shared/data does not exist here")
def test_the_whole_history_is_read() -> None:
    rates = reference.read(gzip.decompress(HISTORY.read_bytes()))
    assert len({one.day for one in rates}) == 7_126
    assert len({one.currency for one in rates}) == 41
