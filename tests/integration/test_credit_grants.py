"""Prepaid credit in units: what may be used, what is drawn, and what the bill leaves out."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal

import pytest

from convergio.entitlements import spending
from convergio.entitlements.model import Leased
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict, Invalid, NotFound
from tests.fakes.business import at
from tests.fakes.credit import Shop

START = "2025-01-01"


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database, at(START))


def test_usage_beyond_what_is_included_draws_a_grant_and_is_not_billed(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", START)
    shop.use("acme", 300, "2025-01-05")
    shop.grant("pack", "100", "2025-01-10")
    shop.use("acme", 60, "2025-01-11")
    assert shop.drawn(acme, "2025-01-12") == {"pack": "50"}
    shop.use("acme", 70, "2025-01-12")
    assert shop.drawn(acme, "2025-01-13") == {"pack": "100"}
    report = shop.bill("2025-02-02")
    assert not report.problems
    invoice = shop.invoices(acme)[-1]
    assert [(kind, amount) for kind, _, amount in shop.lines(invoice)] == [
        ("fixed", 3100),
        ("usage", 20),
    ]
    assert shop.verify() == []


def test_a_hard_limit_is_the_allowance_and_what_the_grants_have_left(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 300, "2025-01-05")
    assert shop.left("2025-01-06") == 10
    shop.grant("pack", "5", "2025-01-06")
    state = shop.quota("2025-01-06T01:00:00Z")
    assert state.remaining == 15
    assert state.credit == 5
    assert state.reason is None
    assert shop.ask("16", "2025-01-06T02:00:00Z") is None
    held = shop.ask("15", "2025-01-06T02:00:00Z")
    assert held is not None
    assert shop.ask("0.000000001", "2025-01-06T02:00:00Z") is None
    shop.gate.commit("acme", held, actual=None, now=at("2025-01-06T02:01:00Z"))
    assert shop.drawn(acme, "2025-01-07") == {"pack": "5"}
    assert shop.quota("2025-01-07").credit == 0
    assert shop.verify() == []


def test_what_costs_nothing_within_a_hard_limit_draws_nothing(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.grant("pack", "100", "2025-01-02")
    shop.use("acme", 50, "2025-01-03")
    assert shop.drawn(acme, "2025-01-04") == {"pack": "0"}
    assert shop.left("2025-01-04") == 100
    shop.use("acme", 30, "2025-01-05")
    assert shop.drawn(acme, "2025-01-06") == {"pack": "30"}
    # the next period has its 50 again, and the 70 that are left
    assert shop.left("2025-02-03") == 120
    assert shop.verify() == []


def test_grants_are_drawn_by_priority_then_expiry_then_creation(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.grant("forever", "10", "2025-01-01T01:00:00Z")
    shop.grant("march", "10", "2025-01-01T02:00:00Z", expires="2025-03-01")
    shop.grant("february", "10", "2025-01-01T03:00:00Z", expires="2025-02-01")
    shop.grant("second", "10", "2025-01-01T04:00:00Z")
    shop.grant("first", "10", "2025-01-01T05:00:00Z", priority=1)
    found = []
    for used in range(50, 110, 5):
        shop.use("acme", used if used == 50 else 5, f"2025-01-02T{(used - 50) // 5:02}:00:00Z")
        drawn = shop.drawn(acme, "2025-01-03")
        found.append(next((k for k, v in drawn.items() if 0 < Decimal(v) < 10), None))
    # every second use leaves one of them half drawn
    assert found[1::2] == ["first", "february", "march", "forever", "second", None]
    assert shop.left("2025-01-03") == 0
    assert shop.verify() == []


def test_the_time_of_usage_decides_which_grant_it_draws(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", START)
    shop.grant("old", "10", "2025-01-02", expires="2025-01-10")
    shop.grant("new", "10", "2025-01-02", starts="2025-01-20")
    shop.use("acme", 310, "2025-01-03")
    shop.use("acme", 4, "2025-01-15")  # between the two: billed
    shop.use("acme", 3, "2025-01-25")
    late = at("2025-01-26")
    shop.send("ai.request", "2025-01-09T23:59:59Z", {"quantity": 2}, now="2025-01-26")
    assert late > at("2025-01-09")
    assert shop.drawn(acme, "2025-01-27") == {"old": "2", "new": "3"}
    shop.bill("2025-02-02")
    assert [(k, a) for k, _, a in shop.lines(shop.invoices(acme)[-1])] == [
        ("fixed", 3100),
        ("usage", 4),
    ]
    assert shop.verify() == []


def test_late_usage_of_a_billed_period_takes_credit_from_the_period_after(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", START)
    shop.grant("pack", "10", "2025-01-02")
    shop.use("acme", 310, "2025-01-03")
    shop.bill("2025-02-02")
    shop.use("acme", 318, "2025-02-03")
    assert shop.drawn(acme, "2025-02-04") == {"pack": "8"}
    shop.bill("2025-03-02")
    shop.send("ai.request", "2025-01-31", {"quantity": 6}, now="2025-03-03")
    assert shop.drawn(acme, "2025-03-04") == {"pack": "10"}
    shop.bill("2025-04-02")
    # 324 used in all beyond 620 - 10 of credit: 4 units are owed, where none was billed before
    late = [(k, a) for k, _, a in shop.lines(shop.invoices(acme)[-1]) if k == "usage" and a]
    assert late == [("usage", 4)]
    assert shop.verify() == []


def test_a_grant_is_one_grant_however_often_it_is_sent(shop: Shop) -> None:
    acme = shop.customer("acme")
    first = shop.grant("pack", "10", "2025-01-02")
    again = shop.grant("pack", "10", "2025-01-03")
    assert again == first
    with pytest.raises(Conflict):
        shop.grant("pack", "11", "2025-01-03")
    assert shop.drawn(acme, "2025-01-04") == {"pack": "0"}


def test_void_takes_back_the_rest_and_leaves_what_was_used_before(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "capped", START)
    grant = shop.grant("pack", "10", "2025-01-02")
    shop.use("acme", 314, "2025-01-03")
    assert shop.left("2025-01-04") == 6
    voided = shop.void(grant, "2025-01-05")
    assert shop.void(grant, "2025-01-06") == voided
    assert shop.left("2025-01-06") == 0
    assert shop.ask("1", "2025-01-06") is None
    shop.use("acme", 3, "2025-01-06T01:00:00Z")
    assert shop.drawn(acme, "2025-01-07") == {"pack": "4"}
    shop.send("ai.request", "2025-01-04", {"quantity": 2}, now="2025-01-08")
    assert shop.drawn(acme, "2025-01-09") == {"pack": "6"}
    assert shop.verify() == []


def test_a_void_of_what_has_not_begun_leaves_no_trace_in_the_windows(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 100, "2025-01-03")
    grant = shop.grant("pack", "10", "2025-01-04", starts="2025-01-20")
    shop.void(grant, "2025-01-05")
    shop.use("acme", 100, "2025-01-25")
    assert shop.left("2025-01-26") == 110
    with shop.database.transaction() as tx:
        rows = tx.raw.execute("SELECT count(*) FROM usage_total WHERE start_at < end_at")
        assert rows.fetchall() == [(1,)]
    assert shop.verify() == []


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        (("pack", "0", None, 1), "bad_grant"),
        (("pack", "1", "2025-01-02", 1), "bad_grant"),
        (("pack", "1", "2024-12-31", 1), "bad_grant"),
        (("pack", "1", None, -1), "bad_grant"),
        (("", "1", None, 1), "bad_text"),
    ],
)
def test_what_no_grant_can_be_is_refused_and_leaves_nothing(
    shop: Shop, terms: tuple[str, str, str | None, int], code: str
) -> None:
    acme = shop.customer("acme")
    key, quantity, expires, priority = terms
    with pytest.raises(Invalid) as refused:
        shop.grant(key, quantity, "2025-01-02", expires=expires, priority=priority)
    assert refused.value.code == code
    assert shop.drawn(acme, "2025-01-03") == {}


def test_nobody_voids_the_grant_of_another(shop: Shop) -> None:
    shop.customer("acme")
    shop.customer("other")
    grant = shop.grant("pack", "10", "2025-01-02")
    with pytest.raises(NotFound):
        shop.void(grant, "2025-01-03", name="other")


def test_quota_credit_is_never_oversold_by_many_at_once(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    other = Shop(shop.database, at(START))
    shop.grant("one", "7", "2025-01-02", expires="2025-01-20")
    shop.grant("two", "6", "2025-01-02T00:00:01Z")

    def ask(number: int) -> bool:
        desk = (shop, other)[number % 2]
        held = desk.ask("1", "2025-01-03")
        if held is not None:
            desk.gate.commit("acme", held, actual=None, now=at("2025-01-03T00:00:01Z"))
        return held is not None

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(ask, range(80)))
    assert taken == 63
    assert shop.drawn(acme, "2025-01-04") == {"one": "7", "two": "6"}
    assert shop.verify() == []


def test_a_grant_given_while_many_ask_opens_exactly_as_much(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.use("acme", 50, "2025-01-02")

    def ask(number: int) -> bool:
        if number == 20:
            shop.grant("pack", "9", "2025-01-03")
        return shop.ask("1", "2025-01-03T00:00:01Z") is not None

    with ThreadPoolExecutor(6) as threads:
        taken = sum(threads.map(ask, range(60)))
    taken += sum(shop.ask("1", "2025-01-03T00:00:02Z") is not None for _ in range(12))
    assert taken == 9
    assert shop.left("2025-01-03T00:00:03Z") == 0
    assert shop.verify() == []


def test_a_reservation_from_before_a_grant_ends_is_counted_where_it_was_made(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.use("acme", 45, "2025-01-02")
    shop.grant("pack", "10", "2025-01-03", expires="2025-01-20")
    held = shop.ask("12", "2025-01-19T23:59:00Z")
    assert held is not None
    # the allowance has 5, which the reservation may yet use
    assert shop.left("2025-01-20T00:00:01Z") == 0
    shop.gate.release("acme", held, now=at("2025-01-20T00:00:02Z"))
    assert shop.left("2025-01-20T00:00:03Z") == 5
    assert shop.drawn(acme, "2025-01-21") == {"pack": "0"}
    assert shop.verify() == []


def test_each_threshold_of_the_allowance_is_told_once_however_often_grants_cut(shop: Shop) -> None:
    shop.customer("acme")
    acme = shop.customer("acme2")
    shop.subscribe(acme, "capped", START)
    days = iter(range(2, 28))
    for used in (100, 60, 90, 60, 50, 50):  # 310 is the allowance; 160, 250 and 310 pass
        day = next(days)
        shop.use("acme2", used, f"2025-01-{day:02}")
        shop.grant(f"pack-{day}", "100", f"2025-01-{day:02}T12:00:00Z", name="acme2")
    assert _thresholds(shop) == [50, 80, 100]


def _thresholds(shop: Shop) -> list[int]:
    with shop.database.transaction() as tx:
        rows = tx.raw.execute(
            "SELECT (data ->> 'percent')::int FROM outbox_event"
            " WHERE type = 'usage.threshold_reached' ORDER BY outbox_id"
        ).fetchall()
    return [row[0] for row in rows]


def test_a_trial_draws_no_credit_unless_its_limit_is_reached(database: Database) -> None:
    shop = Shop(database, datetime.fromisoformat("2025-01-01T00:00:00Z"))
    acme = shop.customer("acme")
    shop.trial(acme, "pro", START, days=14)
    shop.grant("pack", "100", "2025-01-02")
    shop.use("acme", 400, "2025-01-03")
    assert shop.drawn(acme, "2025-01-04") == {"pack": "0"}
    shop.use("acme", 312, "2025-01-20")
    assert shop.drawn(acme, "2025-01-21") == {"pack": "2"}
    assert shop.verify() == []


def test_quota_01_one_unit_of_credit_is_taken_by_one_of_a_hundred(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.use("acme", 50, "2025-01-02")
    shop.grant("pack", "1", "2025-01-02T12:00:00Z")
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: shop.ask("1", "2025-01-03"), range(100)))
    assert len([one for one in taken if one is not None]) == 1
    assert shop.verify() == []


def test_quota_05_a_downgrade_in_flight_leaves_one_limit_with_its_credit(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "capped_big", START)
    shop.grant("pack", "10", "2025-01-02")
    other = Shop(shop.database, at(START))

    def act(number: int) -> Decimal:
        if number == 30:
            shop.change(acme, "2025-01-11", plan="capped", now=True)
        held = (shop, other)[number % 2].ask("10", "2025-01-11T00:00:01Z")
        return Decimal(0) if held is None else Decimal(10)

    with ThreadPoolExecutor(6) as threads:
        taken = sum(threads.map(act, range(90)), Decimal(0))
    # 620 x 10/31 + 310 x 21/31 = 410, and 10 of credit; what was held before counts towards it
    assert shop.left("2025-01-11T00:00:02Z") == max(Decimal(0), 420 - taken)
    assert taken <= 630
    if taken > 420:
        assert other.ask("1", "2025-01-11T00:00:02Z") is None
    assert shop.verify() == []


@pytest.mark.parametrize(
    ("when", "left"),
    [
        ("2025-01-19T23:59:59.999999Z", 60),
        ("2025-01-20", 50),
        ("2025-01-31T23:59:59.999999Z", 50),
        ("2025-02-01", 54),
    ],
)
def test_quota_10_an_instant_is_of_one_window_also_where_credit_begins_or_ends(
    shop: Shop, when: str, left: int
) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.grant("ends", "10", "2025-01-02", expires="2025-01-20")
    shop.grant("begins", "4", "2025-01-02", starts="2025-02-01")
    assert shop.left(when) == left
    assert shop.ask(str(left), when) is not None
    assert shop.ask("0.000000001", when) is None
    assert shop.verify() == []


def test_what_credit_pays_does_not_count_towards_a_spend_cap(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", START)
    shop.grant("pack", "40", "2025-01-02")
    with shop.database.transaction() as tx:
        spending.set_cap(tx, "acme", "0.05", now=at("2025-01-02"))
    assert shop.ask("356", "2025-01-03") is None  # 310 included, 40 prepaid, 6 at a cent
    assert shop.ask("355", "2025-01-03") is not None
    assert shop.ask("1", "2025-01-03") is None
    spend = shop.quota("2025-01-03").spend
    assert spend is not None
    assert spend.minor == 5


def test_leases_hand_out_credit_and_never_more(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "free", START)
    shop.use("acme", 50, "2025-01-02")
    shop.grant("pack", "3", "2025-01-02T12:00:00Z")
    found = [
        shop.gate.leases.acquire("acme", "questions", Decimal(2), now=at("2025-01-03"))
        for _ in range(5)
    ]
    granted = [one.lease for one in found if isinstance(one, Leased)]
    assert [one.granted for one in granted] == [1, 1, 1]
    for one in granted:
        shop.gate.leases.settle("acme", one.lease_id, used=Decimal(1), now=at("2025-01-03"))
    assert shop.drawn(acme, "2025-01-04") == {"pack": "3"}
    assert shop.verify() == []


def test_pausing_leaves_drawn_what_is_beyond_the_part_that_was_served(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", START)
    shop.grant("pack", "500", "2025-01-01T00:00:01Z")
    shop.use("acme", 150, "2025-01-05")
    assert shop.drawn(acme, "2025-01-06") == {"pack": "0"}
    shop.pause(acme, "2025-01-11")  # 310 x 10/31 = 100 were included so far
    assert shop.drawn(acme, "2025-01-12") == {"pack": "50"}
    shop.bill("2025-02-02")
    amounts = [a for inv in shop.invoices(acme) for k, _, a in shop.lines(inv) if k == "usage"]
    assert sum(amounts) == 0
    assert shop.verify() == []


def test_a_backdated_grant_pays_for_what_a_run_has_billed(shop: Shop) -> None:
    acme = shop.customer("acme")
    shop.subscribe(acme, "pro", START)
    shop.use("acme", 330, "2025-01-20")
    shop.bill("2025-02-02")
    shop.grant("sorry", "15", "2025-02-03", starts="2025-01-15")
    assert shop.drawn(acme, "2025-02-04") == {"sorry": "15"}
    shop.bill("2025-03-02")
    billed = sum(a for inv in shop.invoices(acme) for k, _, a in shop.lines(inv) if k == "usage")
    assert billed == 5
    assert shop.verify() == []
