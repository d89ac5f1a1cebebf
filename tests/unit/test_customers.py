"""What may be written into a customer, and what is refused by name."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from convergio.customers import rules
from convergio.customers.countries import check_country, countries
from convergio.customers.model import Customer, Details, Personal
from convergio.infra.ids import typeid
from convergio.kernel.errors import Invalid

NOW = datetime(2025, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize("key", ["acme", "42", "cus_NffrFeUfNV2Hib", "org/7:é", "k" * 200])
def test_a_key_of_the_sellers_own_system_passes(key: str) -> None:
    assert rules.check_key(key) == key
    assert rules.is_key(key)


@pytest.mark.parametrize("key", ["", "k" * 201, "a\x00b", "a\ud800", " a", "a\n"])
def test_a_key_that_postgres_or_a_log_could_not_bear_is_refused(key: str) -> None:
    assert not rules.is_key(key)
    with pytest.raises(Invalid) as caught:
        rules.check_key(key)
    assert caught.value.field == "key"


def test_a_key_that_reads_as_an_id_of_ours_is_refused() -> None:
    taken = typeid("cus", UUID(int=5))
    assert rules.read_id(taken) == UUID(int=5)
    assert not rules.is_key(taken)
    with pytest.raises(Invalid):
        rules.check_key(taken)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("name", "Ada\x00"), ("name", "x" * 201), ("email", "no at sign"), ("email", "a@b@c"),
        ("email", "a b@c"), ("email", "@c"), ("tax_id", "\ud800"), ("address", "x" * 501),
        ("address", "1 High Street\r"), ("name", ""), ("street", "Via Roma\n1"),
        ("city", "Roma\x00"), ("region", "x" * 101), ("postal_code", "1" * 21),
        ("sdi_code", "abc1234"), ("sdi_code", "UFY9MH"), ("sdi_code", "ABC12345"),
        ("pec", "no at sign"), ("pec", "a@b\r\nBcc: c@d"), ("purchase_order", "PO\t1"),
    ],
)  # fmt: skip
def test_personal_data_that_cannot_be_printed_are_refused_unseen(field: str, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.check_personal(Personal(**{field: text}))
    assert caught.value.field == field
    assert len(text) < 3 or text not in str(caught.value)


def test_ordinary_personal_data_pass() -> None:
    rules.check_personal(
        Personal("Ada", "ada+bills@example.com", "1 High Street\nOxford OX1", "IT00743110157")
    )


ROME = {"street": "Via Roma 1", "postal_code": "00144", "city": "Roma", "region": "RM"}


@pytest.mark.parametrize(
    ("country", "change", "field"),
    [
        ("IT", {"street": None}, "street"),
        ("IT", {"city": None}, "city"),
        (None, {}, "country"),
        ("IT", {"postal_code": None}, "postal_code"),
        ("IT", {"postal_code": "144"}, "postal_code"),
        ("IT", {"region": "Roma"}, "region"),
        ("DE", {"street": None, "city": None}, "street"),
    ],
)
def test_half_an_address_is_refused_by_what_it_lacks(
    country: str | None, change: dict[str, str | None], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        rules.check_party(Personal(**(ROME | change)), country)
    assert caught.value.field == field


def test_an_address_in_parts_or_none_at_all_passes() -> None:
    rules.check_party(Personal(**ROME), "IT")
    rules.check_party(Personal(street="Maple Avenue 5", city="Boston", region="Mass."), "US")
    rules.check_party(Personal(address="1 High Street, Oxford"), None)


@pytest.mark.parametrize(
    ("details", "field"),
    [
        ({"tax_exempt": "yes"}, "tax_exempt"),
        ({"tax_exempt_reason": "Article 10"}, "tax_exempt_reason"),
        ({"tax_exempt": "exempt", "tax_exempt_reason": "a\x00"}, "tax_exempt_reason"),
    ],
)
def test_an_exemption_is_one_that_is_known_and_a_reason_needs_one(
    details: Details, field: str
) -> None:
    account = Customer(UUID(int=1), "acme", "eur", "IT", "it", NOW, NOW)
    with pytest.raises(Invalid) as caught:
        rules.account_of(account, details)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("currency", "country", "locale", "field"),
    [
        ("xxx", None, "en", "currency"), ("USD", None, "en", "currency"),
        ("usd", "it", "en", "country"), ("usd", "ITA", "en", "country"),
        ("usd", "XX", "en", "country"), ("usd", "EU", "en", "country"),
        ("usd", "", "en", "country"),
        ("usd", "IT", "", "locale"), ("usd", "IT", "en_US", "locale"),
        ("usd", "IT", "x" * 99, "locale"),
    ],
)  # fmt: skip
def test_an_unknown_currency_country_or_locale_is_named(
    currency: str, country: str | None, locale: str, field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        rules.check_account(currency=currency, country=country, locale=locale)
    assert caught.value.field == field


def test_the_countries_are_those_of_iso_3166_and_kosovo() -> None:
    assert len(countries()) == 249 + 1
    assert {"IT", "GB", "GR", "US", "XK", "AX", "SS"} <= countries()
    assert not {"XX", "ZZ", "EU", "UK", "EL", "AN", "XA", "QO"} & countries()


def test_a_code_of_tax_forms_is_answered_with_that_of_iso_3166() -> None:
    for wrong, right in (("EL", "GR"), ("UK", "GB")):
        with pytest.raises(Invalid, match=f"write {right}, ") as caught:
            check_country(wrong, field="seller")
        assert caught.value.field == "seller"


def test_personal_data_do_not_show_in_a_repr() -> None:
    shown = repr(Personal("Ada", "ada@example.com", "1 High Street", "IT00743110157"))
    assert shown == "Personal()"
