"""Reference rates of the European Central Bank: read from its files, and the one for a day.

Pure. The bank publishes once on each day on which TARGET, the euro's payment system, is open, so it
can be told from a calendar whether the last rate that is stored is the last that was published. One
that is older converts nothing: the invoice waits for the missing days (Directive 2006/112/EC,
article 91(2): the latest rate published when the tax becomes chargeable; between two currencies
neither of which is the euro, by the euro rate of each).
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final
from xml.parsers import expat

from convergio.kernel.errors import Invalid
from convergio.kernel.money import divided, exponent, parse_rate
from convergio.rating.taxing import TaxRow, Unknown
from convergio.taxes import errors
from convergio.taxes.model import Exchange, Kept, ReferenceRate

EURO: Final = "eur"
SIZE_MAX_BYTES: Final = 32 << 20
LOOK_BACK: Final = timedelta(days=10)  # TARGET never rests for longer than five days
_DAY: Final = timedelta(days=1)
_ONE: Final = Decimal(1)
_DECIMALS_MAX: Final = 10
_RATE_BOUND: Final = 10**9
_SATURDAY: Final = 5
_HEAD: Final = 1  # the line of a CSV that names the currencies
_CLOSED: Final = frozenset({(1, 1), (5, 1), (12, 25), (12, 26)})


def easter(year: int) -> date:
    """Return Easter Sunday of a year (the Gregorian computus of Meeus, Jones and Butcher)."""
    golden = year % 19
    century, rest = divmod(year, 100)
    leaps, part = divmod(century, 4)
    moon = (19 * golden + century - leaps - (century - (century + 8) // 25 + 1) // 3 + 15) % 30
    quarter, left = divmod(rest, 4)
    week = (32 + 2 * part + 2 * quarter - moon - left) % 7
    month, day = divmod(moon + week - 7 * ((golden + 11 * moon + 22 * week) // 451) + 114, 31)
    return date(year, month, day + 1)


def is_published_on(day: date) -> bool:
    """Say whether the bank publishes rates on a day: TARGET is open (calendar since 2002)."""
    if day.weekday() >= _SATURDAY or (day.month, day.day) in _CLOSED:
        return False
    sunday = easter(day.year)
    return day not in {sunday - 2 * _DAY, sunday + _DAY}


def exchange(
    home: str, foreign: str, day: date, known: Mapping[str, tuple[date, Decimal, str]]
) -> Exchange | Unknown:
    """Return how a document of a day in a foreign currency becomes the seller's own.

    `known` is the last rate of each currency on or before that day. The day's own rate comes in the
    afternoon, so before it is stored the one of the day before counts; a hole further back does
    not let anything through.
    """
    wanted = [one for one in (foreign, home) if one != EURO]
    lacking = [one for one in wanted if one not in known]
    if lacking:
        return _unknown(lacking[0], day)
    last = {known[one][0] for one in wanted}
    at = min(last)
    missed = at + _DAY
    while missed < day:
        if is_published_on(missed):
            return _unknown(wanted[0] if known[wanted[0]][0] == at else wanted[-1], missed)
        missed += _DAY
    if len(last) > 1:
        return _unknown(next(one for one in wanted if known[one][0] == at), max(last))
    rates = {EURO: _ONE} | {one: known[one][1] for one in wanted}
    return Exchange(home, at, rates[foreign], rates[home], known[wanted[0]][2])


def _unknown(currency: str, day: date) -> Unknown:
    return Unknown(
        f"no reference rate of {currency.upper()} is stored for {day.isoformat()};"
        " import it with `convergio tax rates`"
    )


def converted(minor: int, currency: str, by: Exchange) -> int:
    """Return an amount in the seller's currency. Rounds: once, half away from zero."""
    factor = Fraction(by.home_rate) / Fraction(by.foreign_rate)
    shift = exponent(by.currency) - exponent(currency)
    factor *= Fraction(10) ** shift
    return divided(minor * factor.numerator, factor.denominator)


def stated(rows: Iterable[TaxRow], currency: str, by: Exchange) -> tuple[TaxRow, ...]:
    """Return taxes with net and tax in the seller's currency, each converted once a group."""
    return tuple(
        row._replace(
            stated_net=converted(row.net, currency, by), stated_tax=converted(row.tax, currency, by)
        )
        for row in rows
    )


def stated_tax(rows: Iterable[TaxRow], kept: Kept) -> tuple[str, int] | None:
    """Return the tax in the seller's currency, and which that is; None where none is stated."""
    parts = [row.stated_tax for row in rows]
    if kept.exchange is None or not parts or None in parts:
        return None
    return kept.exchange.currency, sum(part for part in parts if part is not None)


def read(source: bytes) -> list[ReferenceRate]:
    """Return the rates of a file of the bank: CSV (of one day or all of them) or XML.

    Raises: Invalid naming the line.
    """
    if len(source) > SIZE_MAX_BYTES:
        raise errors.rates_too_large(SIZE_MAX_BYTES)
    text = _text(source)
    rates = list(_xml(source) if text.lstrip().startswith("<") else _csv(text))
    if not rates:
        raise errors.no_rates()
    return rates


def once_each(rates: Iterable[ReferenceRate]) -> list[ReferenceRate]:
    """Return rates with what is said again left out. Raises: Invalid where one says otherwise."""
    found: dict[tuple[str, date], ReferenceRate] = {}
    for one in rates:
        known = found.setdefault((one.currency, one.day), one)
        if known.rate != one.rate:
            raise errors.two_rates(
                one.currency, one.day.isoformat(), f"{known.rate:f}", f"{one.rate:f}"
            )
    return list(found.values())


def _text(source: bytes) -> str:
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise errors.not_rates("it is no text; unpack a .zip or .gz first") from None


def _csv(text: str) -> Iterator[ReferenceRate]:
    """Read `Date,USD,...` and a row a day; the bank puts blanks after commas, and one at the end.

    A currency that was not quoted is `N/A`.
    """
    rows = _rows(text)
    head = [cell.strip() for cell in next(rows, [])]
    if not head or head[0] != "Date":
        raise errors.not_rates("line 1 must begin with Date, as in eurofxref-hist.csv")
    for number, row in enumerate(rows, _HEAD + 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) != len(head):
            raise errors.bad_rate_line(number, f"{len(cells)} cells, and line 1 has {len(head)}")
        day = _day(cells[0], number)
        for code, cell in zip(head[1:], cells[1:], strict=True):
            if code and cell not in {"", "N/A"}:
                yield ReferenceRate(_currency(code, _HEAD), day, _rate(cell, number))


def _rows(text: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=None))
    except csv.Error as error:
        raise errors.not_rates(f"it is no CSV: {error}") from None


def _day(text: str, number: int) -> date:
    """Read 2026-10-30, or 30 October 2026 as the file of one day has it."""
    for form in ("%Y-%m-%d", "%d %B %Y"):
        try:
            return datetime.strptime(text, form).date()  # noqa: DTZ007 - a day has no zone
        except ValueError:
            continue
    raise errors.bad_rate_line(number, f"'{text[:20]}' is not a day")


def _currency(code: str, number: int) -> str:
    if not (len(code) == len("USD") and code.isascii() and code.isalpha() and code.isupper()):
        raise errors.bad_rate_line(number, f"'{code[:20]}' is no currency")
    return code.lower()


def _rate(text: str, number: int) -> Decimal:
    try:
        rate = parse_rate(text)
    except Invalid:
        raise errors.bad_rate_line(number, f"'{text[:20]}' is not a rate") from None
    places = rate.as_tuple().exponent
    if not 0 < rate < _RATE_BOUND or (isinstance(places, int) and -places > _DECIMALS_MAX):
        raise errors.bad_rate_line(number, f"'{text[:20]}' is not a rate above zero")
    return rate


def _xml(source: bytes) -> Iterator[ReferenceRate]:
    """Read `<Cube time=...><Cube currency=... rate=.../>`; a document type is refused unread."""
    found: list[ReferenceRate] = []
    day: list[date] = []
    parser = expat.ParserCreate()

    def begin(_: str, attributes: dict[str, str]) -> None:
        line = parser.CurrentLineNumber
        if "time" in attributes:
            day[:] = [_day(attributes["time"], line)]
        if "currency" in attributes:
            if not day:
                raise errors.bad_rate_line(line, "a rate stands before its day")
            code = _currency(attributes["currency"], line)
            rate = _rate(attributes.get("rate", ""), line)
            found.append(ReferenceRate(code, day[0], rate))

    def refuse(*_: object) -> None:
        raise errors.not_rates("it declares a document type, which the bank's files never do")

    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(source, True)  # noqa: FBT003 - the whole of it, at once
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: its encoding
        raise errors.not_rates(f"it is no XML: {error}") from None
    yield from found
