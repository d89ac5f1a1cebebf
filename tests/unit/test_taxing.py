"""Which tax a sale bears, by hand: place, number, registration, category, day."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from convergio.kernel.errors import Invalid
from convergio.kernel.money import Money
from convergio.rating.taxing import (
    GroupKey,
    Place,
    Priced,
    Rate,
    Registration,
    TaxBook,
    Taxed,
    Treatment,
    Unknown,
    tax_groups,
    tax_of,
)
from convergio.taxes import rules
from convergio.taxes.model import RateLine, RegistrationLine, TaxFile
from convergio.taxes.numbers import OfflineChecker

DAY = date(2025, 6, 30)
EVER = date(2000, 1, 1)


def rate(country: str, percent: str, category: str = "standard", region: str = "") -> Rate:
    return Rate(country, region, category, EVER, None, Decimal(percent))


def book(*, one_stop_shop: bool = False, **extra: str) -> TaxBook:
    abroad = [Registration(code, region, EVER, None) for code, region in extra.items()]
    return TaxBook(
        "IT",
        one_stop_shop,
        (Registration("IT", "", EVER, None), *abroad),
        (
            Rate("IT", "", "standard", EVER, date(2013, 10, 1), Decimal(21)),
            Rate("IT", "", "standard", date(2013, 10, 1), None, Decimal(22)),
            rate("IT", "10", "reduced"),
            rate("IT", "0", "zero"),
            Rate("IT", "", "school", EVER, None, Decimal(0), is_exempt=True, reason="Art. 10"),
            rate("FR", "20"),
            rate("US", "7.25", region="CA"),
            rate("US", "4", region="NY"),
            rate("GB", "20"),
        ),
    )


def decided(place: Place, category: str = "standard", *, of: TaxBook | None = None) -> str:
    found = (of or book()).decide(place, category, DAY)
    assert isinstance(found, Taxed), found
    return f"{found.treatment} {found.rate}"


def test_a_customer_at_home_bears_the_rate_of_the_category() -> None:
    assert decided(Place("IT")) == "standard 22"
    assert decided(Place("IT"), "reduced") == "standard 10"
    assert decided(Place("IT"), "zero") == "zero 0"
    assert decided(Place("IT"), "school") == "exempt 0"
    assert decided(Place("IT", is_verified=True)) == "standard 22"


def test_the_rate_in_force_on_the_day_counts() -> None:
    before = book().decide(Place("IT"), "standard", date(2013, 9, 30))
    after = book().decide(Place("IT"), "standard", date(2013, 10, 1))
    assert isinstance(before, Taxed)
    assert isinstance(after, Taxed)
    assert (before.rate, after.rate) == (Decimal(21), Decimal(22))


def test_only_a_verified_number_of_another_member_state_is_reverse_charged() -> None:
    assert decided(Place("FR", is_verified=True)) == "reverse_charge 0"
    assert decided(Place("FR"), of=book(one_stop_shop=True)) == "standard 20"


def test_without_the_one_stop_shop_a_consumer_elsewhere_bears_the_sellers_own_rate() -> None:
    assert decided(Place("FR")) == "standard 22"
    assert decided(Place("FR"), of=book(FR="")) == "standard 20"


def test_a_customer_outside_of_the_union_is_an_export_unless_the_seller_is_registered() -> None:
    assert decided(Place("GB")) == "export 0"
    assert decided(Place("GB", is_verified=True)) == "export 0"
    assert decided(Place("GB"), of=book(GB="")) == "standard 20"


def test_a_registration_of_a_region_counts_there_only_and_asks_for_the_region() -> None:
    registered = book(US="CA")
    assert decided(Place("US", "CA"), of=registered) == "standard 7.25"
    assert decided(Place("US", "NY"), of=registered) == "export 0"
    found = registered.decide(Place("US"), "standard", DAY)
    assert isinstance(found, Unknown)
    assert "region" in found.reason


@pytest.mark.parametrize(
    ("place", "category", "word"),
    [
        (Place(None), "standard", "country"),
        (Place("IT"), "luxury", "luxury"),
        (Place("DE"), "standard", "in force in DE"),
    ],
)
def test_what_cannot_be_told_is_unknown_and_says_what_would_mend_it(
    place: Place, category: str, word: str
) -> None:
    found = book(one_stop_shop=True).decide(place, category, DAY)
    assert isinstance(found, Unknown)
    assert word in found.reason


def test_an_exemption_that_the_seller_granted_comes_first() -> None:
    exempt = Place(None, exemption=Treatment.EXEMPT, reason="Embassy")
    assert book().decide(exempt, "standard", DAY) == Taxed(
        "standard", Decimal(0), Treatment.EXEMPT, "Embassy"
    )
    assert decided(Place("FR", exemption=Treatment.REVERSE_CHARGE)) == "reverse_charge 0"


def test_a_seller_whose_registration_at_home_ended_charges_nothing_at_home() -> None:
    ended = TaxBook(
        "IT",
        one_stop_shop=False,
        registrations=(Registration("IT", "", EVER, DAY),),
        rates=(rate("IT", "22"),),
    )
    assert decided(Place("IT"), of=ended) == "none 0"


@pytest.mark.parametrize(
    ("minor", "percent", "inclusive", "tax"),
    [
        (25, "10", False, 3),  # 2.5, away from zero
        (-25, "10", False, -3),
        (12_000, "20", True, 2_000),
        (100, "22", True, 18),  # 18.03
        (0, "22", False, 0),
        (999, "8.875", False, 89),  # 88.66
    ],
)
def test_tax_is_rounded_once_half_away_from_zero(
    minor: int, percent: str, *, inclusive: bool, tax: int
) -> None:
    assert tax_of(Money(minor, "eur"), Decimal(percent), inclusive=inclusive).minor == tax


def test_money_12_tax_is_computed_on_the_sum_of_a_group_and_not_line_by_line() -> None:
    key = GroupKey("standard", Decimal(10), Treatment.STANDARD, inclusive=False)
    (row,) = tax_groups([Priced(Money(4, "eur"), key) for _ in range(3)])
    assert (row.net, row.tax) == (12, 1)  # line by line it would be nothing


def test_prices_with_tax_inside_keep_their_total() -> None:
    key = GroupKey("standard", Decimal(22), Treatment.STANDARD, inclusive=True)
    (row,) = tax_groups([Priced(Money(1_000, "eur"), key), Priced(Money(22, "eur"), key)])
    assert row.priced == row.net + row.tax == 1_022
    assert row.tax == 184


def file(**given: object) -> TaxFile:
    values = {
        "seller": "IT",
        "registrations": (RegistrationLine(country="IT"),),
        "rates": (RateLine(country="IT", percent="22"),),
    }
    return TaxFile(**(values | given))  # type: ignore[arg-type] # one wrong value a case


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"seller": "EL"}, "seller"),
        ({"registrations": ()}, "registrations"),
        ({"rates": (RateLine(country="UK", percent="20"),)}, "rates[0].country"),
        ({"rates": (RateLine(country="IT"),)}, "rates[0]"),
        ({"rates": (RateLine(country="IT", percent="0", exempt=True),)}, "rates[0]"),
        ({"rates": (RateLine(country="IT", exempt=True),)}, "rates[0]"),
        ({"rates": (RateLine(country="IT", percent="-1"),)}, "rates[0].percent"),
        ({"rates": (RateLine(country="IT", percent="1.1234567"),)}, "rates[0].percent"),
        ({"rates": (RateLine(country="IT", percent="22", since="2025-02-30"),)}, "rates[0].from"),
        (
            {"rates": (RateLine(country="IT", percent="22", since="2025-01-02", to="2025-01-02"),)},
            "rates[0].to",
        ),
        (
            {"rates": tuple(RateLine(country="IT", percent=text) for text in ("21", "22"))},
            "rates[1]",
        ),
        ({"registrations": (RegistrationLine(country="IT"),) * 2}, "registrations[1]"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_the_name_of_the_field(
    given: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid) as error:
        rules.book_of(file(**given))
    assert error.value.field == field


def test_rates_may_follow_each_other_to_the_day() -> None:
    found = rules.book_of(
        file(
            rates=(
                RateLine(country="IT", percent="22", since="2013-10-01"),
                RateLine(country="IT", percent="21", to="2013-10-01"),
            )
        )
    )
    assert [one.percent for one in found.rates] == [22, 21]


@pytest.mark.parametrize(
    ("country", "number", "valid"),
    [
        ("IT", "IT00743110157", True),
        ("IT", "00743110158", False),
        ("FR", "IT00743110157", False),
        ("GR", "EL094259216", True),
        ("DE", "DE136695976", True),
        ("GB", "anything", False),
        ("US", "12-3456789", True),  # no such number has a known form
    ],
)
def test_the_offline_check_knows_form_and_check_digits(
    country: str, number: str, *, valid: bool
) -> None:
    assert OfflineChecker().check(country, number).is_valid is valid


@pytest.mark.parametrize(
    ("evidence", "least", "is_certain"),
    [
        ("", 1, True),
        ("", 2, False),
        ("FR", 2, True),
        ("IT", 1, False),
        ("IT", 2, False),
        ("IT FR", 1, True),
        ("IT FR IT", 1, False),
        ("IT FR IT FR", 1, True),
        ("IT DE FR", 2, True),
        ("GB", 1, False),
    ],
)
def test_a_consumer_is_where_more_evidence_says_so_than_says_anything_else(
    evidence: str, least: int, *, is_certain: bool
) -> None:
    seen = tuple(("card", country) for country in evidence.split())
    asking = replace(book(one_stop_shop=True), evidence_min=least)
    found = asking.decide(Place("FR", evidence=seen), "standard", DAY)
    assert isinstance(found, Taxed) is is_certain
    if isinstance(found, Taxed):
        assert (found.rate, found.country) == (Decimal(20), "FR")
    business = asking.decide(Place("FR", is_verified=True, evidence=seen), "standard", DAY)
    assert isinstance(business, Taxed)
    assert (business.treatment, business.country) == (Treatment.REVERSE_CHARGE, None)


def test_the_country_of_a_tax_is_whose_tax_it_is() -> None:
    found = book().decide(Place("FR"), "standard", DAY)  # neither registered there nor in the OSS
    assert isinstance(found, Taxed)
    assert (found.rate, found.country) == (Decimal(22), "IT")
    abroad = book().decide(Place("GB"), "standard", DAY)
    assert isinstance(abroad, Taxed)
    assert abroad.country is None
