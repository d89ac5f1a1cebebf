"""What may be written into a customer. Nothing is repaired: what is wrong is refused by name."""

import re
from dataclasses import fields, replace
from typing import Any, Final, cast, get_args
from uuid import UUID

from convergio.customers.countries import check_country
from convergio.customers.model import Customer, Details, Personal, TaxExempt
from convergio.infra.ids import parse_typeid, typeid
from convergio.kernel.errors import Invalid
from convergio.kernel.money import exponent
from convergio.kernel.periods import instant_text
from convergio.kernel.text import check_text, check_words, clean

ID_PREFIX: Final = "cus"
ADDRESS_SIZE_MAX: Final = 500
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_LOCALE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)

_SDI_CODE: Final = re.compile(r"[A-Z0-9]{7}", re.ASCII)
_CAP: Final = re.compile(r"[0-9]{5}", re.ASCII)
_PROVINCE: Final = re.compile(r"[A-Z]{2}", re.ASCII)
_SIZES: Final = {
    "street": 200, "postal_code": 20, "city": 100, "region": 100, "sdi_code": 20, "pec": 200,
    "purchase_order": 50,
}  # fmt: skip
_NOBODY: Final = Personal()
_PERSONAL_FIELDS: Final = tuple(one.name for one in fields(Personal))


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


def personal_of(details: Details, before: Personal = _NOBODY) -> Personal:
    """Return personal data with what is named changed. Raises: Invalid."""
    named = {name: value for name, value in details.items() if name in _PERSONAL_FIELDS}
    personal = replace(before, **named)  # type: ignore[arg-type] # Details names the types
    check_personal(personal)
    return personal


def account_of(before: Customer, details: Details) -> Customer:
    """Return an account with what is named changed. Raises: Invalid.

    A country that is not named stays, also one that was written before its code was looked at.
    """
    country = details.get("country", before.country)
    locale = details.get("locale", before.locale)
    check_account(currency=before.currency, country=details.get("country"), locale=locale)
    tax_exempt = before.tax_exempt
    reason = details.get("tax_exempt_reason", before.tax_exempt_reason)
    if "tax_exempt" in details:
        tax_exempt = check_exempt(details["tax_exempt"])
    if reason is not None:
        check_words(reason, field="tax_exempt_reason")
        if tax_exempt is None:
            detail = "a reason needs tax_exempt: write exempt or reverse_charge there"
            raise Invalid(detail, code="bad_exempt", field="tax_exempt_reason")
    return replace(
        before, country=country, locale=locale, tax_exempt=tax_exempt, tax_exempt_reason=reason
    )


def check_exempt(text: str | None) -> TaxExempt | None:
    """Read why a customer is charged no tax. Raises: Invalid."""
    for known in get_args(TaxExempt):
        if text == known:
            return cast("TaxExempt", known)
    if text is None:
        return None
    detail = "write exempt or reverse_charge, or leave it out"
    raise Invalid(detail, code="bad_exempt", field="tax_exempt")


def check_account(*, currency: str, country: str | None, locale: str) -> None:
    """Refuse an unknown currency or country, and a locale that is not written as one."""
    exponent(currency)
    if country is not None:
        check_country(country)
    if _LOCALE.fullmatch(locale) is None:
        detail = "write a language tag (BCP 47), such as en or pt-BR"
        raise Invalid(detail, code="bad_locale", field="locale")


def check_personal(personal: Personal) -> None:
    """Refuse text that could not be printed on an invoice, and an e-mail without one @."""
    for field, check in (("name", check_words), ("email", check_text), ("tax_id", check_text)):
        text = getattr(personal, field)
        if text is not None:
            check(text, field=field)
    if personal.address is not None:
        check_words(personal.address, field="address", size_max=ADDRESS_SIZE_MAX, lines=True)
    if personal.email is not None and _EMAIL.fullmatch(personal.email) is None:
        detail = "write an e-mail address, such as ada@example.com"
        raise Invalid(detail, code="bad_email", field="email")
    for field, size_max in _SIZES.items():
        text = getattr(personal, field)
        if text is not None:
            check_text(text, field=field, size_max=size_max)
    if personal.pec is not None and _EMAIL.fullmatch(personal.pec) is None:
        detail = "write a certified e-mail address (PEC), such as fatture@pec.example.it"
        raise Invalid(detail, code="bad_email", field="pec")
    if personal.sdi_code is not None and _SDI_CODE.fullmatch(personal.sdi_code) is None:
        detail = (
            "write the seven capital letters and digits of the recipient's code at the Sistema"
            " di Interscambio; the six of a public office need another format than ours"
        )
        raise Invalid(detail, code="bad_sdi_code", field="sdi_code")


def check_party(personal: Personal, country: str | None) -> None:
    """Refuse half an address, and an Italian one that no Italian e-invoice could carry."""
    parts = (personal.street, personal.postal_code, personal.city)
    if any((*parts, personal.region)) and not all((personal.street, personal.city, country)):
        detail = "an address in parts needs street, city and country"
        field = "street" if not personal.street else "city" if not personal.city else "country"
        raise Invalid(detail, code="half_address", field=field)
    if country != "IT" or not any(parts):
        return
    if _CAP.fullmatch(personal.postal_code or "") is None:
        detail = "write the five digits of an Italian postal code (CAP), such as 00144"
        raise Invalid(detail, code="bad_postal_code", field="postal_code")
    if personal.region is not None and _PROVINCE.fullmatch(personal.region) is None:
        detail = "write the two capital letters of an Italian province, such as RM"
        raise Invalid(detail, code="bad_region", field="region")


def account_value(customer: Customer) -> dict[str, Any]:
    """Return a customer as JSON takes it, without personal data."""
    verified = customer.tax_id_verified_at
    value: dict[str, Any] = {
        "id": typeid(ID_PREFIX, customer.customer_id),
        "key": customer.customer_key,
        "currency": customer.currency,
        "country": customer.country,
        "locale": customer.locale,
        "created_at": instant_text(customer.created_at),
    }
    if customer.tax_exempt is not None:
        value["tax_exempt"] = customer.tax_exempt
        value["tax_exempt_reason"] = customer.tax_exempt_reason
    if verified is not None:
        value["tax_id_verified_at"] = instant_text(verified)
    return value


def personal_value(personal: Personal) -> dict[str, str | None]:
    """Return personal data as JSON takes them; for whoever may see them, never for a log.

    What only e-invoices ask for is there where it is known.
    """
    every = {name: getattr(personal, name) for name in _PERSONAL_FIELDS}
    always = {"name", "email", "address", "tax_id"}
    return {name: value for name, value in every.items() if name in always or value is not None}
