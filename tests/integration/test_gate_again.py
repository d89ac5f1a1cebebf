"""An authorization that is asked again with its id holds once and gets the same answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from convergio.entitlements import spending
from convergio.entitlements.model import Allowed, Ask, Decision, Denied, Refused
from convergio.entitlements.rules import reservation_id
from convergio.infra.db import Database
from convergio.infra.postgres import Embedded
from convergio.kernel.errors import Invalid
from tests.fakes.api import Api, running
from tests.fakes.meters import NOW
from tests.fakes.quota import CATALOG, Desk

COUNTED = CATALOG.replace(
    b"plans:",
    b"  - {key: calls, name: Calls, event: ai.request, aggregation: count}\nplans:",
)


@pytest.fixture
def desk(database: Database) -> Desk:
    """A process whose customer `acme` may use ten."""
    made = Desk(database)
    made.subscribe("ten", "acme")
    return made


@pytest.fixture(scope="module")
def api(server: Embedded, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One product for the whole module."""
    with running(server, template, tmp_path_factory.mktemp("home")) as served:
        yield served


def ask(name: str, quantity: str = "1", *, key: str, meter: str = "questions") -> Ask:
    return Ask(name, meter, Decimal(quantity), reservation_id(key))


def held(found: Decision) -> UUID:
    assert isinstance(found, Allowed), found
    return found.reservation_id


def code(found: Decision) -> str:
    assert isinstance(found, Refused), found
    return found.error.code


def test_the_same_id_is_one_reservation_also_when_it_was_settled_since(desk: Desk) -> None:
    first = desk.gate.authorize([ask("acme", "4", key="one")], now=NOW)
    later = NOW + timedelta(seconds=5)
    assert desk.gate.authorize([ask("acme", "4", key="one")], now=later) == first
    assert desk.quota()["reserved"] == "4"
    desk.commit(held(first[0]))
    assert desk.gate.authorize([ask("acme", "4", key="one")], now=later) == first
    assert (desk.quota()["used"], desk.quota()["reserved"]) == ("4", "0")
    assert desk.verify() == []


def test_an_id_whose_hold_is_over_is_no_yes_for_ever(desk: Desk) -> None:
    desk.gate.authorize([ask("acme", "4", key="late"), ask("acme", "1", key="back")], now=NOW)
    (back,) = desk.gate.authorize([ask("acme", "1", key="back")], now=NOW)
    desk.gate.release("acme", held(back), now=NOW)
    assert code(desk.gate.authorize([ask("acme", "1", key="back")], now=NOW)[0]) == "ask_is_over"
    over = NOW + timedelta(hours=1)
    assert code(desk.gate.authorize([ask("acme", "4", key="late")], now=over)[0]) == "ask_is_over"
    assert isinstance(desk.gate.authorize([ask("acme", "4", key="new")], now=over)[0], Allowed)


def test_another_quantity_or_meter_with_the_same_id_is_a_conflict_and_holds_nothing(
    desk: Desk,
) -> None:
    desk.gate.authorize([ask("acme", "4", key="one")], now=NOW)
    for other in (ask("acme", "5", key="one"), ask("acme", "4", key="one", meter="images")):
        assert code(desk.gate.authorize([other], now=NOW)[0]) == "other_body"
    assert desk.quota()["reserved"] == "4"
    assert desk.quota(meter="images")["reserved"] == "0"
    assert desk.verify() == []


def test_an_id_is_a_customers_own(desk: Desk) -> None:
    desk.subscribe("ten", "other")
    asks = [ask("acme", "4", key="one"), ask("other", "5", key="one")]
    assert all(isinstance(found, Allowed) for found in desk.gate.authorize(asks, now=NOW))
    assert (desk.quota()["reserved"], desk.quota(name="other")["reserved"]) == ("4", "5")


def test_twice_in_a_batch_is_once_and_what_differs_is_refused(desk: Desk) -> None:
    asks = [ask("acme", "4", key="one"), ask("acme", "4", key="one"), ask("acme", "5", key="one")]
    first, second, third = desk.gate.authorize(asks, now=NOW)
    assert held(first) == held(second)
    assert code(third) == "other_body"
    assert desk.quota()["reserved"] == "4"


def test_a_full_limit_a_cap_or_lost_access_does_not_change_what_was_answered(desk: Desk) -> None:
    first = desk.gate.authorize([ask("acme", "10", key="one")], now=NOW)
    mixed = [ask("acme", "1", key="two"), ask("acme", "10", key="one")]
    denied, again = desk.gate.authorize(mixed, now=NOW)
    assert isinstance(denied, Denied)
    assert again == first[0]
    with desk.database.transaction() as tx:
        spending.set_cap(tx, "acme", "0.00", now=NOW)
    assert desk.gate.authorize([ask("acme", "10", key="one")], now=NOW) == first
    desk.commit(held(first[0]))
    desk.end(first[0].customer_id if isinstance(first[0], Allowed) else UUID(int=0))
    assert desk.gate.authorize([ask("acme", "10", key="one")], now=NOW) == first
    assert desk.reason() == "no_subscription"
    assert desk.verify() == []


def test_a_retry_takes_no_room_from_others_of_its_batch(desk: Desk) -> None:
    desk.gate.authorize([ask("acme", "9", key="one")], now=NOW)
    mixed = [ask("acme", "9", key="one"), ask("acme", "1", key="two")]
    assert all(isinstance(found, Allowed) for found in desk.gate.authorize(mixed, now=NOW))
    assert desk.quota()["remaining"] == "0"


def test_processes_that_ask_at_once_with_one_id_hold_once(database: Database) -> None:
    desks = [Desk(database) for _ in range(4)]
    desks[0].subscribe("ten", "acme")

    def work(number: int) -> UUID:
        asks = [ask("acme", "1", key=f"round-{number // 8}")]
        return held(desks[number % 4].gate.authorize(asks, now=NOW)[0])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(80)))
    assert len(set(found)) == 10  # exactly the limit: one unit held twice would deny somebody
    assert desks[0].quota()["reserved"] == "10"
    assert desks[0].verify() == []


def test_who_is_denied_does_not_hinder_whoever_asks_beside_them(desk: Desk) -> None:
    desk.subscribe("ten", "full", "capped")
    desk.subscribe("thousand", "free")
    desk.subscribe(None, "none")
    desk.hold("10", name="full")
    with desk.database.transaction() as tx:
        spending.set_cap(tx, "capped", "0.00", now=NOW)
    names = ["free", "full", "none", "nobody", "acme", "capped", "free"]
    for _ in range(3):
        found = desk.gate.authorize([Ask(n, "questions", Decimal(1)) for n in names], now=NOW)
        told = [one.reason if isinstance(one, Denied) else "yes" for one in found]
        assert told == [
            "yes", "limit_reached", "no_subscription", "unknown_customer", "yes", "yes", "yes",
        ]  # fmt: skip
    assert [desk.quota(name=n)["reserved"] for n in ("free", "acme", "full")] == ["6", "3", "10"]
    assert desk.verify() == []


def test_a_meter_that_counts_one_an_event_is_asked_for_one(database: Database) -> None:
    desk = Desk(database, source=COUNTED)
    desk.subscribe("ten", "acme")
    assert code(desk.ask("2", meter="calls")) == "bad_quantity"
    assert code(desk.ask("0.5", meter="calls")) == "bad_quantity"
    assert desk.quota(meter="calls")["reserved"] == "0"
    found = desk.ask("1", meter="calls")
    assert desk.commit(held(found)) == "committed"
    assert desk.quota(meter="calls")["used"] == "1"


def test_ids_of_one_text_are_one_and_those_that_cannot_be_printed_none() -> None:
    assert reservation_id("x") == reservation_id("x") != reservation_id("y")
    early, late = ("0190f3c0-0000-7000-8000-000000000000", "0190f3c1-0000-7000-8000-000000000000")
    assert reservation_id(early) < reservation_id(late)  # so that they stay together in the index
    with pytest.raises(Invalid):
        reservation_id("a\nb")


def test_over_http_an_id_holds_once_and_another_body_is_409(api: Api) -> None:
    name, _ = api.customer("free")
    body = {"customer": name, "meter": "questions", "quantity": "3", "id": "order-17"}
    first, second = api.post("/v1/authorize", body), api.post("/v1/authorize", body)
    assert (first.status_code, first.json()) == (200, second.json())
    other = api.post("/v1/authorize", body | {"quantity": "4"})
    assert (other.status_code, other.json()["code"]) == (409, "other_body")
    assert api.get(f"/v1/quota?customer={name}&meter=questions").json()["reserved"] == "3"
    for bad in ("", "x" * 129, "a\nb", 7):
        assert api.post("/v1/authorize", body | {"id": bad}).status_code == 422
