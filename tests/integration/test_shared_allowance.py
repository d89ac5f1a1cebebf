"""One allowance a period, whatever cuts it: seats, plans, late events, voids (RULES 8, 9)."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest

from convergio.entitlements import grants
from convergio.infra.db import Database
from convergio.kernel.errors import Conflict
from tests.fakes.business import at
from tests.fakes.credit import Shop

START = "2025-01-01"
CUT = "2025-01-11"  # ten of the 31 days of January


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database, at(START))


@pytest.fixture
def acme(shop: Shop) -> UUID:
    return shop.customer("acme")


def _windows(shop: Shop, meter: str = "questions") -> list[str]:
    with shop.database.transaction() as tx:
        rows = tx.raw.execute(
            b"SELECT t.start_at, t.end_at FROM usage_total t JOIN meter USING (meter_id)"
            b" WHERE meter_key = %s AND start_at < end_at AND dimensions = '' ORDER BY 1",
            [meter],
        ).fetchall()
    return [f"{start:%m-%d} {end:%m-%d}" for start, end in rows]


def test_a_limit_per_seat_is_that_of_all_seats(shop: Shop, acme: UUID) -> None:
    shop.subscribe(acme, "team", START, seats=3)
    state = shop.quota("2025-01-02")
    assert state.limit == 930
    assert state.included == 93
    assert shop.ask("930", "2025-01-02") is not None
    assert shop.ask("1", "2025-01-02") is None


def test_seats_up_are_seen_by_the_next_request_with_their_share_of_the_period(
    shop: Shop, acme: UUID
) -> None:
    shop.subscribe(acme, "team", START, seats=1)
    shop.use("acme", 300, "2025-01-05")
    assert shop.left("2025-01-10") == 10
    shop.change(acme, CUT, seats=3)
    # 310 x 10/31 + 930 x 21/31 = 730, of which 300 are used
    assert shop.left(f"{CUT}T00:00:01Z") == 430
    assert shop.ask("430", f"{CUT}T00:00:02Z") is not None
    assert shop.ask("1", f"{CUT}T00:00:02Z") is None
    assert shop.left("2025-02-01T00:00:01Z") == 930
    assert shop.verify() == []


def test_seats_down_at_the_period_s_end_keep_the_limit_until_then(shop: Shop, acme: UUID) -> None:
    shop.subscribe(acme, "team", START, seats=3)
    shop.change(acme, CUT, seats=1)
    assert shop.left("2025-01-31T23:59:59Z") == 930
    shop.bill("2025-02-01T02:00:00Z")
    assert shop.left("2025-02-01T03:00:00Z") == 310
    assert shop.verify() == []


def test_seats_in_a_trial_count_from_the_change_on(shop: Shop, acme: UUID) -> None:
    shop.trial(acme, "team", START, days=14)
    shop.use("acme", 300, "2025-01-02")
    shop.change(acme, "2025-01-03", seats=2)
    assert shop.left("2025-01-03T00:00:01Z") == 320
    assert shop.left("2025-01-15T00:00:01Z") == 620
    assert shop.verify() == []


def test_an_upgrade_keeps_what_was_used_against_the_allowance_of_both(
    shop: Shop, acme: UUID
) -> None:
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 200, "2025-01-05")
    shop.change(acme, CUT, plan="capped_big")
    assert shop.left(f"{CUT}T00:00:01Z") == 320  # 310 x 10/31 + 620 x 21/31 - 200
    assert shop.verify() == []


def test_a_change_of_seats_splits_no_usage_without_a_quota_per_seat(shop: Shop, acme: UUID) -> None:
    shop.subscribe(acme, "team", START, seats=1)
    shop.use("acme", 1, "2025-01-05")
    shop.send("ai.peak", "2025-01-05", {"size": 7})
    shop.change(acme, CUT, seats=2)
    shop.send("ai.peak", "2025-01-12", {"size": 5})
    shop.use("acme", 1, "2025-01-12")
    assert _windows(shop) == ["01-01 01-11", "01-11 02-01"]
    assert _windows(shop, "peak") == ["01-01 02-01"]
    shop.bill("2025-02-02")
    lines = [(kind, amount) for kind, _, amount in shop.lines(shop.invoices(acme)[-1])]
    assert ("usage", 7) in lines  # one maximum, not the sum of two
    assert shop.verify() == []


def test_included_per_seat_is_billed_with_the_seats_of_each_stretch(shop: Shop, acme: UUID) -> None:
    shop.subscribe(acme, "team", START, seats=1)
    shop.change(acme, CUT, seats=2)
    shop.use("acme", 60, "2025-01-20")
    # included: 31 x 10/31 + 62 x 21/31 = 52, so that 8 are owed
    assert shop.quota("2025-01-21").overage == 8
    shop.bill("2025-02-02")
    usage = sum(a for k, _, a in shop.lines(shop.invoices(acme)[-1]) if k == "usage")
    assert usage == 8
    assert shop.verify() == []


@pytest.mark.parametrize("grant", [None, "40"])
def test_a_late_event_moves_what_the_current_window_may_use(
    shop: Shop, acme: UUID, grant: str | None
) -> None:
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 100, "2025-01-05")
    if grant:
        shop.grant("pack", grant, "2025-01-06")
    shop.change(acme, CUT, plan="capped_big")
    more = Decimal(grant or 0)
    assert shop.left(f"{CUT}T00:00:01Z") == 420 + more
    late = shop.send("ai.request", "2025-01-07", {"quantity": 30}, now="2025-01-12")
    assert shop.left("2025-01-13") == 390 + more
    state = shop.quota("2025-01-13")
    assert state.included == 390
    shop.send(
        "convergio.amend", "2025-01-14", {"id": late, "source": "test", "data": {"quantity": 80}}
    )
    assert shop.left("2025-01-15") == 340 + more
    shop.send("convergio.void", "2025-01-15", {"id": late, "source": "test"})
    assert shop.left("2025-01-16") == 420 + more
    assert shop.verify() == []


def test_quota_late_events_and_decisions_together_never_pass_the_allowance(
    shop: Shop, acme: UUID
) -> None:
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 300, "2025-01-05")
    shop.change(acme, CUT, plan="capped_big")
    other = Shop(shop.database, at(START))
    assert shop.left(f"{CUT}T00:00:01Z") == 220

    def act(number: int) -> Decimal:
        desk = (shop, other)[number % 2]
        if number % 3 == 0:
            desk.send(
                "ai.request", "2025-01-06", {"quantity": 2}, now="2025-01-12", id=f"late-{number}"
            )
            return Decimal(2)
        held = desk.ask("3", "2025-01-12")
        if held is None:
            return Decimal(0)
        if number % 2:
            desk.gate.commit("acme", held, actual=Decimal(3), now=at("2025-01-12T00:00:01Z"))
        return Decimal(3)

    with ThreadPoolExecutor(6) as threads:
        moved = sum(threads.map(act, range(60)), Decimal(0))
    assert moved == 20 * 2 + 40 * 3
    assert shop.left("2025-01-12T00:00:02Z") == 220 - moved
    assert shop.verify() == []


def test_what_is_reserved_across_a_cut_is_held_back_from_the_window_after(
    shop: Shop, acme: UUID
) -> None:
    shop.subscribe(acme, "capped", START)
    held = shop.ask("100", "2025-01-10T23:59:00Z")
    assert held is not None
    shop.change(acme, CUT, plan="capped_big")
    assert shop.left(f"{CUT}T00:00:01Z") == 420
    shop.gate.commit("acme", held, actual=Decimal(130), now=at(f"{CUT}T00:00:02Z"))
    assert shop.left(f"{CUT}T00:00:03Z") == 390
    assert shop.verify() == []


def test_thresholds_are_of_the_period_and_told_once_across_cuts(shop: Shop, acme: UUID) -> None:
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 200, "2025-01-05")  # 50 of 310
    shop.change(acme, CUT, plan="capped_big")  # 520 in all
    shop.use("acme", 100, "2025-01-12")
    assert _told(shop) == [50]
    shop.send("ai.request", "2025-01-06", {"quantity": 120}, now="2025-01-13")  # 420 of 520
    assert _told(shop) == [50, 80]
    shop.use("acme", 100, "2025-01-14")
    shop.use("acme", 100, "2025-01-15")
    assert _told(shop) == [50, 80, 100]
    shop.use("acme", 400, "2025-02-05")
    assert _told(shop) == [50, 80, 100, 50]


def _told(shop: Shop) -> list[int]:
    with shop.database.transaction() as tx:
        rows = tx.raw.execute(
            b"SELECT (data ->> 'percent')::int FROM outbox_event"
            b" WHERE type = 'usage.threshold_reached' ORDER BY outbox_id"
        ).fetchall()
    return [row[0] for row in rows]


def test_a_pause_keeps_its_part_of_the_allowance_and_a_resume_goes_on(
    shop: Shop, acme: UUID
) -> None:
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 100, "2025-01-05")
    shop.pause(acme, CUT)
    shop.use("acme", 7, "2025-01-15")  # belongs to nobody's allowance
    shop.resume(acme, "2025-01-21")
    assert shop.left("2025-01-21T00:00:01Z") == 110  # 310 x 21/31 - 100
    shop.send("ai.request", "2025-01-06", {"quantity": 10}, now="2025-01-22")
    assert shop.left("2025-01-23") == 100
    assert shop.verify() == []


@pytest.mark.parametrize(
    "tampering",
    [
        b"UPDATE usage_total SET quota_limit = 1000 WHERE period_at IS NOT NULL",
        b"UPDATE usage_total SET earlier = 5 WHERE period_at IS NOT NULL",
        b"UPDATE usage_total SET credit = 99 WHERE period_at IS NOT NULL",
    ],
)
def test_verify_finds_a_window_that_says_something_else(
    shop: Shop, acme: UUID, tampering: bytes
) -> None:
    shop.subscribe(acme, "capped", START)
    shop.use("acme", 100, "2025-01-05")
    shop.grant("pack", "10", CUT)
    shop.use("acme", 1, "2025-01-12")
    with shop.database.transaction() as tx:
        tx.raw.execute(tampering)
    assert [str(one) for one in shop.verify() if "may use" in str(one)]


def test_verify_finds_a_schedule_that_forgot_a_grant(shop: Shop, acme: UUID) -> None:
    shop.grant("pack", "10", CUT)
    with shop.database.transaction() as tx:
        tx.raw.execute(b"UPDATE usage_schedule SET credits = '[]'")
    assert [one.found for one in shop.verify()] == ["nothing"]


def test_a_backdated_grant_moves_no_open_reservation(shop: Shop, acme: UUID) -> None:
    shop.subscribe(acme, "capped", START)
    held = shop.ask("1", "2025-01-12")
    assert held is not None
    with pytest.raises(Conflict) as refused:
        shop.grant("pack", "10", "2025-01-12T00:00:01Z", starts=CUT)
    assert refused.value.code == "open_reservations"
    assert shop.drawn(acme, "2025-01-13") == {}
    assert shop.verify() == []


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_events_grants_and_corrections_draws_the_same(shop: Shop, seed: int) -> None:
    random = Random(seed)
    made = [(f"2025-01-{day:02}", random.randint(1, 90)) for day in range(2, 30, 3)]
    packs = [
        (f"pack-{n}", str(random.randint(5, 60)), f"2025-01-{random.randint(2, 28):02}")
        for n in range(4)
    ]
    voided = random.sample(range(len(made)), 2)
    found = []
    for name in ("one", "two", "three"):
        customer_id = shop.customer(name)
        shop.subscribe(customer_id, "capped", START)
        todo = [("use", number) for number in range(len(made))]
        todo += [("void", number) for number in voided]
        todo += [("grant", number) for number in range(len(packs))]
        random.shuffle(todo)
        for what, number in todo:
            if what == "use":
                when, quantity = made[number]
                shop.send(
                    "ai.request", when, {"quantity": quantity}, now="2025-01-30", name=name,
                    id=f"{name}-{number}",
                )  # fmt: skip
            elif what == "void":
                target: dict[str, object] = {"id": f"{name}-{number}", "source": "test"}
                shop.send("convergio.void", "2025-01-30", target, name=name)
            else:
                key, units, starts = packs[number]
                shop.grant(key, units, "2025-01-30", name=name, starts=starts, priority=number)
        with shop.database.transaction() as tx:
            drawn = grants.page(tx, customer_id, now=at("2025-01-30"))
        state = shop.quota("2025-01-30", name=name)
        found.append((sorted((one.grant.key, one.drawn) for one in drawn), state))
    assert found[0] == found[1] == found[2]
    assert shop.verify() == []
