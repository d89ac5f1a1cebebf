"""Whatever is sent, corrected, repeated and reordered: totals equal an independent reading."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convergio.catalog import actions as catalog
from convergio.customers import actions as customers
from convergio.infra.db import Database
from convergio.metering import actions
from convergio.metering.ingest import Ingestor
from convergio.metering.model import AMEND, VOID, Event, Verdict

START = datetime(2025, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=20)
CATALOG = b"""
currency: usd
events: [{type: job}]
meters:
  - {key: work, name: Work, event: job, value: size, group_by: [model]}
  - {key: peak, name: Peak, event: job, aggregation: max, value: size}
  - {key: users, name: Users, event: job, aggregation: unique_count, value: user}
  - {key: level, name: Level, event: job, aggregation: last, value: size}
plans: []
"""
Properties = dict[str, str]
Story = list[tuple[str, int, int, Properties]]

properties = st.fixed_dictionaries(
    {
        "size": st.integers(0, 50).map(str),
        "user": st.sampled_from(["ann", "bob", "cid"]),
        "model": st.sampled_from(["m1", "m2"]),
    }
)
# (what, which event, which moment, properties): every correction has a moment of its own
steps = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "void", "amend"]), st.integers(0, 5), st.none(), properties
    ),
    min_size=1,
    max_size=14,
)


@pytest.fixture
def filled(database: Database, now: datetime) -> Database:
    with database.transaction() as tx:
        catalog.apply(tx, CATALOG, now=now)
        customers.create_many(tx, ["acme"], now=now)
    return database


def expected(events: Sequence[Event]) -> dict[str, Decimal]:
    """Read the story by itself: an event counts if it came, as its latest correction says."""
    sent = {event.id: event for event in events if event.type == "job"}
    voided = {(event.data or {})["id"] for event in events if event.type == VOID}
    amended: dict[str, Event] = {}
    for event in events:
        if event.type == AMEND:
            of = (event.data or {})["id"]
            known = amended.get(of)
            if known is None or (event.time or NOW) > (known.time or NOW):
                amended[of] = event
    counted = []
    for name, event in sent.items():
        if name not in voided:
            data = (amended[name].data or {})["data"] if name in amended else event.data
            counted.append((event.time, dict(data or {})))
    sizes = [Decimal(data["size"]) for _, data in counted]
    newest = max(counted, key=lambda one: one[0] or NOW, default=None)
    return {
        "work": sum(sizes, Decimal(0)),
        "peak": max(sizes, default=Decimal(0)),
        "users": Decimal(len({data["user"] for _, data in counted})),
        "level": Decimal(newest[1]["size"]) if newest else Decimal(0),
    }


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=steps, chance=st.randoms(use_true_random=False), repeats=st.integers(0, 4))
def test_totals_do_not_depend_on_order_repetition_or_batches(
    filled: Database, story: Story, chance: object, repeats: int
) -> None:
    events = _events(story)
    _forget(filled)
    shuffled = list(events)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own Random
    shuffled += shuffled[:repeats]
    ingestors = [Ingestor(filled), Ingestor(filled)]
    for place in range(0, len(shuffled), 3):
        ingestors[place % 2].ingest(shuffled[place : place + 3], now=NOW)
    _assert_totals(filled, events)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=steps, chance=st.randoms(use_true_random=False), size=st.integers(1, 4))
def test_totals_do_not_depend_on_who_comes_first_when_all_come_at_once(
    filled: Database, story: Story, chance: object, size: int
) -> None:
    """Four processes send the same story in pieces: each event and correction arrives twice."""
    events = _events(story)
    _forget(filled)
    pieces = []
    for _ in range(2):
        shuffled = list(events)
        chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own Random
        pieces += [shuffled[at : at + size] for at in range(0, len(shuffled), size)]
    ingestors = [Ingestor(filled) for _ in range(4)]

    def send(place: int) -> list[Verdict]:
        return ingestors[place % 4].ingest(pieces[place], now=NOW)

    with ThreadPoolExecutor(4) as pool:
        verdicts = [one for found in pool.map(send, range(len(pieces))) for one in found]
    assert {one.status for one in verdicts} <= {"accepted", "duplicate", "conflict"}
    _assert_totals(filled, events)


def _assert_totals(filled: Database, events: Sequence[Event]) -> None:
    with filled.transaction() as tx:
        assert actions.verify(tx) == []
        meters = catalog.current(tx).meters
        rows = tx.tuples(
            "SELECT meter_id, sum(used) FROM usage_total WHERE dimensions = '' GROUP BY meter_id"
        )
    found = {row[0]: row[1] for row in rows}
    for meter, quantity in expected(events).items():
        assert found.get(meters[meter].meter_id, 0) == quantity, meter


def _events(story: Story) -> list[Event]:
    """Return a story's events: each event is sent once at most, corrections differ in time."""
    events: dict[str, Event] = {}
    for place, (what, number, _, data) in enumerate(story):
        moment = START + timedelta(days=1, minutes=number)
        name = f"e{number}"
        if what == "send":
            events.setdefault(name, Event(name, "test", "job", "acme", time=moment, data=data))
        else:
            body: dict[str, object] = {"id": name, "source": "test"}
            if what == "amend":
                body["data"] = data
            later = START + timedelta(days=5, minutes=place)
            kind = VOID if what == "void" else AMEND
            events[f"c{place}"] = Event(f"c{place}", "desk", kind, "acme", time=later, data=body)
    return list(events.values())


def _forget(database: Database) -> None:
    with database.transaction() as tx:
        tx.run("DELETE FROM usage_unique")
        tx.run("DELETE FROM usage_alert")
        tx.run("DELETE FROM usage_total")
        tx.run("DELETE FROM usage_event")  # and its corrections
