"""What may be written into a customer, and what is refused by name."""

from uuid import UUID

import pytest

from convergio.customers import rules
from convergio.customers.model import Personal
from convergio.infra.ids import typeid
from convergio.kernel.errors import Invalid


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
        ("address", "1 High Street\r"), ("name", ""),
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


@pytest.mark.parametrize(
    ("currency", "country", "locale", "field"),
    [
        ("xxx", None, "en", "currency"), ("USD", None, "en", "currency"),
        ("usd", "it", "en", "country"), ("usd", "ITA", "en", "country"),
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


def test_personal_data_do_not_show_in_a_repr() -> None:
    shown = repr(Personal("Ada", "ada@example.com", "1 High Street", "IT00743110157"))
    assert shown == "Personal()"
