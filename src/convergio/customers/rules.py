"""What may be written into a customer. Nothing is repaired: what is wrong is refused by name."""

import re
from typing import Final
from uuid import UUID

from convergio.customers.model import Personal
from convergio.infra.ids import parse_typeid
from convergio.kernel.errors import Invalid
from convergio.kernel.money import exponent
from convergio.kernel.text import check_text, clean

ID_PREFIX: Final = "cus"
ADDRESS_SIZE_MAX: Final = 500
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_COUNTRY: Final = re.compile(r"[A-Z]{2}", re.ASCII)
_LOCALE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)


def is_key(key: str) -> bool:
    """Say whether a customer can have this key: clean text that cannot be taken for an id."""
    return clean(key) and read_id(key) is None


def check_key(key: str) -> str:
    """Return the key. Raises: Invalid, also for a key that reads as an id of ours (`cus_01j...`).

    Such a key could name one customer by its key and another by its id.
    """
    check_text(key, field="key")
    if read_id(key) is not None:
        detail = "a key must not look like an id of this system (cus_ and 26 characters)"
        raise Invalid(detail, code="bad_key", field="key")
    return key


def read_id(text: str) -> UUID | None:
    """Return the id that the text is, or None."""
    if not text.startswith(f"{ID_PREFIX}_"):
        return None
    try:
        return parse_typeid(ID_PREFIX, text)
    except Invalid:
        return None


def check_account(*, currency: str, country: str | None, locale: str) -> None:
    """Refuse an unknown currency, and a country or locale that is not written as one."""
    exponent(currency)
    if country is not None and _COUNTRY.fullmatch(country) is None:
        detail = "write the two capital letters of ISO 3166-1, such as IT"
        raise Invalid(detail, code="bad_country", field="country")
    if _LOCALE.fullmatch(locale) is None:
        detail = "write a language tag (BCP 47), such as en or pt-BR"
        raise Invalid(detail, code="bad_locale", field="locale")


def check_personal(personal: Personal) -> None:
    """Refuse text that could not be printed on an invoice, and an e-mail without one @."""
    for field in ("name", "email", "tax_id"):
        text = getattr(personal, field)
        if text is not None:
            check_text(text, field=field)
    if personal.address is not None:
        check_text(personal.address, field="address", size_max=ADDRESS_SIZE_MAX, lines=True)
    if personal.email is not None and _EMAIL.fullmatch(personal.email) is None:
        detail = "write an e-mail address, such as ada@example.com"
        raise Invalid(detail, code="bad_email", field="email")
