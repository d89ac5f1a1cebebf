"""Aggregations, groups, alerts and corrections give the totals of the events, in any order."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import msgspec
import pytest

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.metering import actions, model
from convergio.metering.ingest import Ingestor
from convergio.metering.model import AMEND, VOID, Event, Limit, Segment, Verdict

START = datetime(2025, 1, 1, tzinfo=UTC)
CATALOG = b"""
currency: usd
events:
  - type: job
    keep: [note]
meters:
  - {key: jobs, name: Jobs, event: job, aggregation: count}
  - {key: work, name: Work, event: job, aggregation: sum, value: size, default: 1}
  - {key: peak, name: Peak, event: job, aggregation: max, value: size, default: 0}
  - {key: users, name: Users, event: job, aggregation: unique_count, value: user,
     where: {user: {exists: true}}}
  - {key: level, name: Level, event: job, aggregation: last, value: level,
     where: {level: {exists: true}}}
  - {key: by_model, name: By model, event: job, aggregation: sum, value: size, default: 1,
     group_by: [model]}
plans: []
"""


@pytest.fixture
def ingestor(database: Database, now: datetime) -> Ingestor:
    with database.transaction() as tx:
        catalog.apply(tx, CATALOG, now=now)
        customers.create_many(tx, ["acme"], now=now)
    return Ingestor(database)


def job(name: str, *, minute: int = 0, **data: str) -> Event:
    moment = START + timedelta(days=10, minutes=minute)
    return Event(id=name, source="test", type="job", subject="acme", time=moment, data=data)


def correction(kind: str, name: str, of: str, *, minute: int = 0, **data: object) -> Event:
    moment = START + timedelta(days=12, minutes=minute)
    body: dict[str, Any] = {"id": of, "source": "test"}
    if kind == AMEND:
        body["data"] = data
    return Event(id=name, source="desk", type=kind, subject="acme", time=moment, data=body)


def total(database: Database, meter: str) -> Decimal:
    with database.transaction() as tx:
        found = actions.usage(tx, meter_key=meter, by="month")
        assert actions.verify(tx) == []
    return found[0].quantity if found else Decimal(0)


def stored(database: Database, meter: str) -> Decimal:
    with database.transaction() as tx:
        meter_id = catalog.current(tx).meters[meter].meter_id
        found = tx.value(
            "SELECT sum(used) FROM usage_total WHERE meter_id = %(id)s AND dimensions = ''",
            id=meter_id,
        )
    return Decimal(found or 0)


def one(verdicts: Sequence[Verdict]) -> tuple[str, str | None]:
    return verdicts[0].status, verdicts[0].reason


EVENTS = [
    job("a", minute=1, size="2", user="ann", level="7", model="m1"),
    job("b", minute=3, size="5", user="bob", level="3", model="m2"),
    job("c", minute=2, size="0.5", user="ann", level="9", model="m1"),
]
EXPECTED = {"jobs": "3", "work": "7.5", "peak": "5", "users": "2", "level": "3", "by_model": "7.5"}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_each_aggregation_is_the_same_in_any_order_of_arrival(
    ingestor: Ingestor, database: Database, now: datetime, order: tuple[int, ...]
) -> None:
    for place in order:
        assert one(ingestor.ingest([EVENTS[place]], now=now)) == ("accepted", None)
    for meter, expected in EXPECTED.items():
        assert total(database, meter) == stored(database, meter) == Decimal(expected), meter


def test_usage_can_be_asked_by_group(ingestor: Ingestor, database: Database, now: datetime) -> None:
    ingestor.ingest(EVENTS, now=now)
    with database.transaction() as tx:
        found = actions.usage(tx, meter_key="by_model", by="month", by_group=True)
        page = actions.usage(
            tx,
            meter_key="by_model",
            by="month",
            by_group=True,
            after=(found[0].start, found[0].dimensions),
        )
    assert [(row.dimensions, row.quantity) for row in found] == [
        ('"m1"', Decimal("2.5")),
        ('"m2"', Decimal(5)),
    ]
    assert page == found[1:]


def test_a_group_beyond_the_limit_is_refused_and_told_once(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    most = model.GROUPS_MAX
    events = [job(f"g{n}", model=f"m{n}") for n in range(most + 5)]
    verdicts = ingestor.ingest(events, now=now)
    refused = [verdict for verdict in verdicts if verdict.status == "rejected"]
    assert len(refused) == 5
    assert {(v.reason, v.field) for v in refused} == {("too_many_groups", "data.model")}
    assert one(Ingestor(database).ingest([job("late", model="other")], now=now))[0] == "rejected"
    assert one(ingestor.ingest([job("known", model="m1")], now=now)) == ("accepted", None)
    assert total(database, "by_model") == most + 1
    with database.transaction() as tx:
        told = tx.value(
            "SELECT count(*) FROM outbox_event WHERE type = 'usage.group_limit_reached'"
        )
    assert told == 1


def test_each_threshold_is_told_exactly_once_a_window(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    with database.transaction() as tx:
        customer_id = customers.ids_by_key(tx, ["acme"])["acme"]
        limit = Limit(limit=Decimal(10), alerts=(50, 100))
        segment = Segment(anchor=START, starts_at=START, limits={"jobs": limit})
        actions.set_schedule(tx, customer_id, segment, now=now)
    others = [ingestor, Ingestor(database), Ingestor(database)]
    for number in range(15):
        others[number % 3].ingest([job(f"t{number}")], now=now)
    with database.transaction() as tx:
        rows = tx.tuples(
            "SELECT data ->> 'percent' FROM outbox_event WHERE type = 'usage.threshold_reached'"
            " ORDER BY outbox_id"
        )
    assert [row[0] for row in rows] == ["50", "100"]


def test_a_void_takes_the_event_back_from_every_meter(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest(EVENTS, now=now)
    assert one(ingestor.ingest([correction(VOID, "v1", "b")], now=now)) == ("accepted", None)
    expected = {"jobs": "2", "work": "2.5", "peak": "2", "users": "1", "level": "9"}
    for meter, quantity in expected.items():
        assert total(database, meter) == stored(database, meter) == Decimal(quantity), meter


def test_corrections_have_defined_verdicts(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest(EVENTS, now=now)
    amend = correction(AMEND, "c1", "b", minute=5, size="4", user="bob", model="m2")
    assert one(ingestor.ingest([amend], now=now)) == ("accepted", None)
    assert total(database, "work") == stored(database, "work") == Decimal("6.5")
    assert one(ingestor.ingest([amend], now=now)) == ("duplicate", None)
    older = correction(AMEND, "c0", "b", minute=1, size="100")
    assert one(ingestor.ingest([older], now=now)) == ("accepted", "superseded")
    broken = correction(AMEND, "c9", "b", minute=9, size="-1")
    assert one(ingestor.ingest([broken], now=now)) == ("rejected", "bad_quantity")
    assert total(database, "work") == Decimal("6.5")
    assert one(ingestor.ingest([correction(VOID, "v1", "b")], now=now)) == ("accepted", None)
    again = correction(VOID, "v2", "b")
    assert one(ingestor.ingest([again], now=now)) == ("accepted", "already_void")
    revived = correction(AMEND, "c2", "b", minute=9, size="1")
    assert one(ingestor.ingest([revived], now=now)) == ("conflict", "voided")
    assert total(database, "work") == stored(database, "work") == Decimal("2.5")
    nameless = Event("x", "desk", VOID, "acme", time=START + timedelta(days=12), data={})
    assert one(ingestor.ingest([nameless], now=now)) == ("rejected", "bad_correction")


def test_an_event_that_was_voided_before_it_came_counts_nothing(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    assert one(ingestor.ingest([correction(VOID, "v1", "a")], now=now)) == ("accepted", None)
    assert one(ingestor.ingest([EVENTS[0]], now=now)) == ("accepted", "voided")
    assert one(ingestor.ingest([EVENTS[0]], now=now)) == ("duplicate", None)
    assert total(database, "jobs") == stored(database, "jobs") == 0


def test_an_amendment_opens_the_windows_that_it_needs(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest([job("a", size="1")], now=now)
    amend = correction(AMEND, "c1", "a", size="1", user="ann", level="4")
    assert one(ingestor.ingest([amend], now=now)) == ("accepted", None)
    assert total(database, "users") == 1
    assert total(database, "level") == 4


def test_an_event_that_was_amended_before_it_came_counts_as_amended(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    amend = correction(AMEND, "c1", "a", size="4", user="cid", model="m9")
    assert one(ingestor.ingest([amend], now=now)) == ("accepted", None)
    assert one(ingestor.ingest([EVENTS[0]], now=now)) == ("accepted", "amended")
    assert total(database, "work") == stored(database, "work") == 4


def test_corrections_commute_with_arrival(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    chance = random.Random(7)
    story = [
        *EVENTS,
        correction(VOID, "v1", "a"),
        correction(AMEND, "c1", "b", minute=1, size="3", user="dan", model="m1"),
        correction(AMEND, "c2", "b", minute=2, size="1", user="eve", model="m1"),
    ]
    results: set[tuple[tuple[str, Decimal], ...]] = set()
    for _ in range(12):
        _forget(database)
        fresh = Ingestor(database)
        for event in chance.sample(story, len(story)):
            fresh.ingest([event], now=now)
        results.add(tuple((meter, stored(database, meter)) for meter in EXPECTED))
        assert total(database, "work") == stored(database, "work")
    assert len(results) == 1


def _forget(database: Database) -> None:
    with database.transaction() as tx:
        tx.run("DELETE FROM usage_unique")
        tx.run("DELETE FROM usage_alert")
        tx.run("DELETE FROM usage_total")
        tx.run("DELETE FROM usage_event")  # and its corrections


def test_a_plan_change_counts_every_aggregation_again(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest(EVENTS, now=now)
    cut = START + timedelta(days=10, minutes=2)
    with database.transaction() as tx:
        customer_id = customers.ids_by_key(tx, ["acme"])["acme"]
        segment = Segment(anchor=cut, starts_at=cut)
        actions.set_schedule(tx, customer_id, segment, now=now)
    for meter in EXPECTED:
        total(database, meter)
    ingestor.ingest([job("d", minute=4, size="1", user="ann", level="1", model="m1")], now=now)
    with database.transaction() as tx:
        assert actions.verify(tx) == []


def test_a_meter_changes_its_definition_from_a_moment_on(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    def asked(minutes: int, name: str) -> Event:
        moment = now + timedelta(minutes=minutes)
        return Event(name, "test", "job", "acme", time=moment, data={"size": "2", "note": "free"})

    ingestor.ingest([asked(1, "before")], now=now)
    newer = CATALOG.replace(
        b"key: jobs, name: Jobs, event: job, aggregation: count",
        b"key: jobs, name: Jobs, version: 2, event: job, aggregation: count,\n"
        b"     where: {note: {not_in: [free]}}",
    )
    with database.transaction() as tx:
        catalog.apply(tx, newer, now=now)
    ingestor.ingest([asked(4, "still before")], now=now + timedelta(minutes=2))
    later = now + timedelta(minutes=20)
    ingestor.ingest([asked(19, "after")], now=later)
    Ingestor(database).ingest([asked(5, "late, of before")], now=later)
    assert total(database, "jobs") == stored(database, "jobs") == 3
    assert total(database, "work") == 8


def test_a_new_meter_of_a_known_type_begins_when_every_process_knows_it(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest([job("old")], now=now)
    line = b"  - {key: extra, name: Extra, event: job, aggregation: count}\nplans: []"
    with database.transaction() as tx:
        catalog.apply(tx, CATALOG.replace(b"plans: []", line), now=now)
    later = now + timedelta(minutes=11)
    event = Event("new", "test", "job", "acme", time=later, data={})
    ingestor.ingest([event], now=later)
    assert total(database, "extra") == stored(database, "extra") == 1


BAD_VALUES = ["a\x00", "\ud800", "4242 4242 4242 4242", {"nested": 1}, "x" * 100_000]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("of", ["a", "never-sent"])
def test_a_correction_that_cannot_be_stored_is_refused_and_sinks_nobody(
    ingestor: Ingestor, database: Database, now: datetime, value: object, of: str
) -> None:
    ingestor.ingest(EVENTS[:1], now=now)
    bad = correction(AMEND, "fix", of, note=value)
    found = ingestor.ingest([bad, EVENTS[1]], now=now)
    assert [one_.status for one_ in found] == ["rejected", "accepted"]
    assert total(database, "jobs") == stored(database, "jobs") == Decimal(2)


@pytest.mark.parametrize("kind", [VOID, AMEND])
def test_of_a_correction_only_what_is_understood_is_kept(
    ingestor: Ingestor, database: Database, now: datetime, kind: str
) -> None:
    made = correction(kind, "fix", "never-sent", size="3", secret="4242 4242 4242 4242")
    named: dict[str, Any] = {**(made.data or {}), "junk": "a\x00", "more": "x" * 100_000}
    again = Event(
        id="fix", source="desk", type=kind, subject="acme", time=made.time, data=dict(named)
    )
    assert [one([found])[0] for found in ingestor.ingest([again], now=now)] == ["accepted"]
    assert one(ingestor.ingest([made], now=now))[0] == "duplicate"
    with database.transaction() as tx:
        kept = tx.value("SELECT properties FROM usage_event WHERE event_id = 'fix'")
    amended = {"data": {"size": "3"}} if kind == AMEND else {}
    assert kept == {"id": "never-sent", "source": "test"} | amended


def test_a_correction_from_a_clock_ahead_does_not_keep_later_ones_out(
    ingestor: Ingestor, database: Database, now: datetime
) -> None:
    ingestor.ingest(EVENTS[:1], now=now)
    ahead = correction(AMEND, "fix1", "a", size="100")
    ahead = msgspec.structs.replace(ahead, time=now + timedelta(days=1))
    assert one(ingestor.ingest([ahead], now=now)) == ("rejected", "time_ahead")
    assert (
        one(ingestor.ingest([correction(AMEND, "fix2", "a", size="3")], now=now))[0] == "accepted"
    )
    assert total(database, "work") == Decimal(3)
