"""What the caller of taxes can be told, each with the mend."""

from convergio.kernel.errors import Conflict, Invalid, NotFound, Unavailable


def not_at_home(country: str) -> Invalid:
    """Say that a seller taxes at home first."""
    detail = f"the seller is established in {country}; list {country} under registrations"
    return Invalid(detail, code="not_registered", field="registrations")


def other_home(country: str, home: str) -> Invalid:
    """Say that two places disagree about where the seller is."""
    detail = f"the settings say {home} (CONVERGIO_SELLER_COUNTRY), and this file {country}"
    return Invalid(f"{detail}; correct one of them", code="other_home", field="seller")


def bad_day(text: str, field: str) -> Invalid:
    """Say that a day is none of the calendar's."""
    return Invalid(f"'{text}' is not a day; write one such as 2025-01-01", field=field)


def bad_percent(field: str) -> Invalid:
    """Say how a percentage reads."""
    detail = "write a percentage from 0 to below 1000 with at most 6 decimals, such as 22"
    return Invalid(detail, code="bad_percent", field=field)


def percent_or_exempt(field: str) -> Invalid:
    """Say that a rate has a percentage, or is exempt for a reason."""
    detail = "write percent, or exempt: true with its reason"
    return Invalid(detail, code="percent_or_exempt", field=field)


def empty_time(field: str) -> Invalid:
    """Say that an end comes after its beginning."""
    return Invalid("write a day after `from`", code="empty_time", field=field)


def overlap(what: str, field: str, other: str) -> Invalid:
    """Say that two entries are in force on one day."""
    detail = f"{what} overlaps {other}; let one end where the other begins"
    return Invalid(detail, code="overlap", field=field)


def not_configured() -> NotFound:
    """Say that nothing is taxed."""
    detail = "no tax file was applied, so nothing is taxed; see `convergio tax apply`"
    return NotFound(detail, code="no_tax")


def changing() -> Unavailable:
    """Say that the tax file is replaced again and again."""
    return Unavailable("the tax file changes faster than it can be read; try again")


def nothing_to_check(field: str) -> Conflict:
    """Say what a check of a number needs."""
    detail = f"the customer has no {field}; write it first"
    return Conflict(detail, code="nothing_to_check", field=field)


def bad_evidence(size_max: int) -> Invalid:
    """Say that a check names what was looked at."""
    detail = f"write what was looked at, such as the register's answer, in 1 to {size_max} letters"
    return Invalid(detail, code="bad_evidence", field="evidence")


def not_italian() -> Invalid:
    """Say whose e-invoices FatturaPA is."""
    detail = "FatturaPA is issued by sellers in Italy: write seller: IT, or leave it out"
    return Invalid(detail, code="not_italian", field="fatturapa")


def not_euros() -> Invalid:
    """Say which currency FatturaPA is in."""
    detail = "FatturaPA is in euros: write currency: eur, or leave it out if all you issue is"
    return Invalid(detail, code="not_euros", field="currency")


def not_rates(why: str) -> Invalid:
    """Say which files hold reference rates."""
    detail = f"this is no file of the ECB's reference rates: {why}; take eurofxref-hist.csv"
    return Invalid(detail, code="not_rates", field="file")


def no_rates() -> Invalid:
    """Say that a file holds no rate."""
    return not_rates("no rate is in it")


def rates_too_large(size_max: int) -> Invalid:
    """Say how large a file of rates may be."""
    return not_rates(f"it is larger than {size_max >> 20} MiB")


def bad_rate_line(number: int, why: str) -> Invalid:
    """Say which line of a file of rates cannot be read."""
    return Invalid(f"line {number}: {why}", code="bad_rate_line", field="file")


def two_rates(currency: str, day: str, before: str, after: str) -> Invalid:
    """Say that a file contradicts itself."""
    detail = (
        f"{currency.upper()} has two rates on {day}, {before} and {after};"
        " take the file from the bank again, or keep the right one of them"
    )
    return Invalid(detail, code="two_rates", field="file")


def other_rate(currency: str, day: str, before: str, after: str) -> Conflict:
    """Say that a file contradicts what is stored."""
    detail = (
        f"the rate of {currency.upper()} on {day} is stored as {before}, and the file says {after};"
        " import it with --replace if the file is right (issued documents keep theirs)"
    )
    return Conflict(detail, code="other_rate", field="file")


def no_own_currency() -> NotFound:
    """Say that nothing is converted."""
    detail = "nothing is converted: write currency: eur, or yours, in the tax file"
    return NotFound(detail, code="no_own_currency")
