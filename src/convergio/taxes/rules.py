"""Read the tax file: every day, percentage and overlap is checked before anything is stored."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from convergio.customers.countries import check_country, refuse_code_of_tax_forms
from convergio.kernel.errors import Invalid
from convergio.kernel.money import exponent, parse_rate
from convergio.kernel.periods import instant_text
from convergio.kernel.text import check_text, check_words, refuse_card_number
from convergio.rating.taxing import ZERO, Rate, Registration, TaxBook
from convergio.taxes import errors
from convergio.taxes.model import EVER, Evidence, RateLine, RegistrationLine, TaxFile
from convergio.taxes.reference import EURO

EVIDENCE_SIZE_MAX: Final = 500
ITALY: Final = "IT"
_PERCENT_BOUND: Final = 1000
_DECIMALS_MAX: Final = 6


def book_of(file: TaxFile) -> TaxBook:
    """Return what the file means. Raises: Invalid naming the field."""
    refuse_code_of_tax_forms(file.seller, field="seller")
    if file.currency is not None:
        exponent(file.currency)
    if file.fatturapa and file.seller != ITALY:
        raise errors.not_italian()
    if file.fatturapa and file.currency not in {None, EURO}:
        raise errors.not_euros()
    registrations = tuple(
        _registration(line, f"registrations[{place}]")
        for place, line in enumerate(file.registrations)
    )
    rates = tuple(_rate(line, f"rates[{place}]") for place, line in enumerate(file.rates))
    if not any(one.country == file.seller for one in registrations):
        raise errors.not_at_home(file.seller)
    _refuse_overlaps(
        ((one.country, one.region), one.valid_from, one.valid_to, f"registrations[{place}]")
        for place, one in enumerate(registrations)
    )
    _refuse_overlaps(
        ((one.country, one.region, one.category), one.valid_from, one.valid_to, f"rates[{place}]")
        for place, one in enumerate(rates)
    )
    return TaxBook(file.seller, file.one_stop_shop, registrations, rates, file.location_evidence)


def _registration(line: RegistrationLine, path: str) -> Registration:
    refuse_code_of_tax_forms(line.country, field=f"{path}.country")
    since, until = _days(line, path)
    return Registration(line.country, line.region or "", since, until)


def _rate(line: RateLine, path: str) -> Rate:
    refuse_code_of_tax_forms(line.country, field=f"{path}.country")
    since, until = _days(line, path)
    if line.exempt != (line.percent is None) or (line.exempt and not line.reason):
        raise errors.percent_or_exempt(path)
    if line.reason is not None:
        check_text(line.reason, field=f"{path}.reason")
    percent = ZERO if line.percent is None else _percent(line.percent, f"{path}.percent")
    return Rate(
        line.country, line.region or "", line.category, since, until, percent, line.exempt,
        line.reason,
    )  # fmt: skip


def _days(line: RegistrationLine | RateLine, path: str) -> tuple[date, date | None]:
    since = EVER if line.since is None else _day(line.since, f"{path}.from")
    until = None if line.to is None else _day(line.to, f"{path}.to")
    if until is not None and until <= since:
        raise errors.empty_time(f"{path}.to")
    return since, until


def _day(text: str, path: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise errors.bad_day(text, path) from None


def _percent(text: str, path: str) -> Decimal:
    try:
        percent = parse_rate(text)
    except Invalid:
        raise errors.bad_percent(path) from None
    exponent = percent.as_tuple().exponent
    if not 0 <= percent < _PERCENT_BOUND or (
        isinstance(exponent, int) and -exponent > _DECIMALS_MAX
    ):
        raise errors.bad_percent(path)
    return percent


def _refuse_overlaps(
    entries: Iterable[tuple[tuple[str, ...], date, date | None, str]],
) -> None:
    """Refuse two entries of one kind that are in force on one day."""
    by_key: dict[tuple[str, ...], list[tuple[date, date | None, str]]] = {}
    for key, since, until, path in entries:
        by_key.setdefault(key, []).append((since, until, path))
    for key, spans in by_key.items():
        spans.sort(key=lambda span: span[0])
        for before, after in pairwise(spans):
            if before[1] is None or before[1] > after[0]:
                raise errors.overlap(" ".join(filter(None, key)), after[2], before[2])


def check_evidence(text: str) -> str:
    """Return what was looked at. Raises: Invalid, also for a card number in it."""
    refuse_card_number(text, field="evidence")
    if not 1 <= len(text.strip()) <= EVIDENCE_SIZE_MAX or not text.isprintable():
        raise errors.bad_evidence(EVIDENCE_SIZE_MAX)
    return text.strip()


def check_place(country: str, note: str | None) -> None:
    """Refuse a country that there is not, and a note that nobody could read."""
    check_country(country)
    if note is not None:
        check_words(note, field="note", size_max=EVIDENCE_SIZE_MAX)


def evidence_value(seen: Evidence) -> dict[str, Any]:
    """Return what was seen of where a customer is as JSON takes it."""
    return {
        "kind": seen.kind.value,
        "country": seen.country,
        "note": seen.note,
        "seen_at": instant_text(seen.seen_at),
    }
