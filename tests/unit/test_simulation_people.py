"""Synthetic people and their days: seeded, plausible, and acceptable to the product."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from stdnum.eu import vat

from convergio.customers import rules as customers
from convergio.customers.model import Personal
from convergio.kernel.periods import Period, zone
from convergio.payments.gateways.sandbox import Token
from convergio.simulation import demand
from convergio.simulation.people import PLANS, Person, population, spread

START = datetime(2026, 1, 1, tzinfo=UTC)
DURING = Period(START, START + timedelta(days=90))
DAY = Period(START, START + timedelta(days=1))


def person(plan: str) -> Person:
    found = population(Random(1), 100, DURING)
    return max((one for one in found if one.plan == plan), key=lambda one: one.questions)


def test_the_same_seed_draws_the_same_people() -> None:
    assert population(Random(5), 50, DURING) == population(Random(5), 50, DURING)
    assert population(Random(5), 50, DURING) != population(Random(6), 50, DURING)


@pytest.mark.parametrize("size", [1, 2, 20, 300])
def test_people_sign_up_one_by_one_while_the_world_lives(size: int) -> None:
    found = population(Random(5), size, DURING)
    joins = [one.joins_at for one in found]
    assert len(found) == len(set(joins)) == size
    assert joins == sorted(joins)
    assert all(DURING.contains(one) and one.microsecond == 0 for one in joins)


def test_three_hundred_people_are_on_every_plan_and_pay_in_every_way() -> None:
    found = population(Random(7), 300, DURING)
    assert {one.plan for one in found} == set(PLANS)
    assert {one.token for one in found} == {None, *Token}
    assert {one.locale for one in found} == {"en", "it"}
    assert all((one.token is None) == (one.plan == "free") for one in found)


def test_the_product_takes_everyone_as_a_customer() -> None:
    for one in population(Random(7), 300, DURING):
        customers.check_key(one.key)
        customers.check_account(currency="usd", country=one.country, locale=one.locale)
        personal = Personal(
            name=one.name,
            email=one.email,
            tax_id=one.tax_id,
            street=one.street,
            postal_code=one.postal_code,
            city=one.city,
            region=one.region,
            sdi_code=one.sdi_code,
            purchase_order=one.purchase_order,
        )
        customers.check_personal(personal)
        customers.check_party(personal, one.country)
        assert one.tax_id is None or vat.is_valid(one.tax_id)
        assert one.email.isascii()
        assert one.email.endswith(".example")
        zone(one.time_zone)


def test_a_spread_has_its_size_and_its_rare_names() -> None:
    shares = {"often": 0.9, "rare": 0.05, "rarer": 0.001}
    for size in range(40):
        drawn = spread(Random(size), shares, size)
        assert len(drawn) == size
        assert size < 10 or {"rare", "rarer"} <= set(drawn)


@pytest.mark.parametrize("plan", ["pro", "team", "enterprise"])
def test_a_days_events_happen_in_it_and_have_ids_of_their_own(plan: str) -> None:
    chance = Random(3)
    made = [event for _ in range(30) for event in demand.events(chance, person(plan), DAY)]
    assert len(made) > 30
    assert len({event.id for event in made}) == len(made)
    assert all(event.time is not None and DAY.contains(event.time) for event in made)
    assert plan != "enterprise" or all(event.data and event.data["quantity"] > 1 for event in made)


def test_a_session_asks_for_something_and_never_uses_more() -> None:
    chance, free = Random(3), person("free")
    made = [one for _ in range(200) for one in demand.sessions(chance, free, DAY)]
    assert all(one.wanted > 0 and DAY.contains(one.at) for one in made)
    assert {one.used is None for one in made} == {True, False}
    assert all(one.used in {None, 0, one.wanted} for one in made)


def test_a_spoilt_batch_is_the_batch_and_one_event_more() -> None:
    chance, batch = Random(3), demand.events(Random(3), person("pro"), DAY)
    sent = [demand.spoilt(chance, batch) for _ in range(400)]
    assert all(one[: len(batch)] == batch and len(one) <= len(batch) + 1 for one in sent)
    wrong = [one[-1] for one in sent if len(one) > len(batch)]
    ids = {event.id for event in batch}
    assert any(one.id in ids for one in wrong)
    assert any(one.type != demand.TYPE for one in wrong)
    assert any(one.subject == "nobody" for one in wrong)
    assert any(one.data and one.data["quantity"] == -1 for one in wrong)
