"""However a set of events is ordered, split, repeated and raced, it gives the same totals."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convergio.catalog import actions as catalog_actions
from convergio.catalog import rules as reference
from convergio.catalog.model import Catalog
from convergio.infra.db import Database
from convergio.kernel.errors import Unavailable
from convergio.kernel.periods import Interval
from convergio.metering import intake
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Event, Segment
from tests.fakes.meters import NOW, event
from tests.fakes.usage import (
    JANUARY,
    counted,
    differences,
    lay,
    make,
    send,
    stored,
    totals,
    with_catalog,
)

RUNS = count()
IDS = [f"e{number}" for number in range(8)]
IDS += [f"0194698c-7e00-7000-8000-{number:012}" for number in (1, 2)]
PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "quantity": st.sampled_from([0, 1, "0.1", Decimal("2.50"), 10**17]),  # null is refused
        "status": st.sampled_from(["succeed", "failed", "pending"]),
        "images": st.sampled_from([1, "2", None]),
        "junk": st.just("x"),
    },
)
TIMES = st.sampled_from(
    [
        NOW,
        JANUARY,
        JANUARY - timedelta(microseconds=1),
        NOW - timedelta(days=30),
        NOW + timedelta(seconds=9),
    ]
)


def together(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run functions at the same time; raise what one of them raised."""
    gate = threading.Barrier(len(work))

    def begin(one: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work returns
        gate.wait(20)
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return [done.result(60) for done in [pool.submit(begin, one) for one in work]]


def expected(catalog: Catalog, meter_key: str, events: Sequence[Event]) -> Decimal:
    """Return what distinct events add to a meter, by the catalog's slow reference."""
    meter, total = catalog.meters[meter_key], Decimal(0)
    for one in events:
        if reference.selects(meter, one.type, one.data or {}):
            quantity = reference.quantity(meter, one.data or {})
            assert isinstance(quantity, Decimal)
            total += quantity
    return total


def catalog_of(database: Database) -> Catalog:
    with database.transaction() as tx:
        return catalog_actions.current(tx)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_order_splits_repetition_and_concurrency_make_no_difference(
    database: Database, data: st.DataObject
) -> None:
    with_catalog(database)
    name = f"acme{next(RUNS)}"
    (acme,) = make(database, name)
    facts = st.dictionaries(st.sampled_from(IDS), st.tuples(PAYLOADS, TIMES), min_size=1)
    chosen = data.draw(facts)
    once = [
        event(event_id, subject=name, data=payload, time=when)
        for event_id, (payload, when) in chosen.items()
    ]
    batches = data.draw(
        st.lists(st.lists(st.sampled_from(once), max_size=12), min_size=1, max_size=6)
    )
    batches.append(once)
    processes = [Ingestor(database), Ingestor(database)]
    found = together([partial(send, processes[at % 2], *batch) for at, batch in enumerate(batches)])
    verdicts = Counter(verdict for batch in found for verdict in batch)
    assert verdicts["accepted"] == len(once)
    assert verdicts["duplicate"] == sum(len(batch) for batch in batches) - len(once)
    catalog = catalog_of(database)
    for meter in ("questions", "images"):
        assert counted(database, [acme], meter) == expected(catalog, meter, once)
    assert differences(database) == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from(IDS[:3]), PAYLOADS), min_size=1, max_size=8),
        min_size=1,
        max_size=3,
    )
)
def test_every_verdict_says_how_its_event_compares_with_the_one_that_counted(
    database: Database, batches: list[list[tuple[str, dict[str, Any]]]]
) -> None:
    with_catalog(database)
    name = f"verdicts{next(RUNS)}"
    make(database, name)
    ingestor, first = Ingestor(database), {}
    for batch in batches:
        events = [event(event_id, subject=name, data=payload) for event_id, payload in batch]
        for one, verdict in zip(events, send(ingestor, *events), strict=True):
            kept = {k: v for k, v in (one.data or {}).items() if k != "junk"}
            text = json.dumps(kept, sort_keys=True, default=reference.property_text)
            if one.id not in first:
                assert verdict == "accepted"
                first[one.id] = text
            else:
                assert verdict == ("duplicate" if first[one.id] == text else "other_payload")
    assert differences(database) == []


def test_windows_that_two_processes_open_at_once_are_one_window(database: Database) -> None:
    with_catalog(database)
    names = [f"c{number}" for number in range(20)]
    ids = make(database, *names)

    def begin(at: int) -> list[str]:
        shuffled = random.Random(at).sample(names, len(names))
        return send(Ingestor(database), *[event(f"p{at}-{n}", subject=n) for n in shuffled])

    together([partial(begin, at) for at in range(4)])
    assert [totals(database, each) for each in ids] == [{JANUARY: "4"}] * 20
    assert differences(database) == []


def test_one_process_may_be_used_by_many_threads(database: Database) -> None:
    """Unknown customers, new windows and duplicates, through one cache."""
    with_catalog(database)
    names = [f"c{number}" for number in range(10)]
    ids = make(database, *names)
    shared = Ingestor(database)
    pool = [*names, *(f"ghost{number}" for number in range(5))]
    months = [NOW, NOW - timedelta(days=20), NOW - timedelta(days=33)]

    def work(seed: int) -> list[str]:
        pick = random.Random(seed)
        found = []
        for step in range(12):
            batch = [
                event(f"{seed}-{step}-{n}", subject=pick.choice(pool), time=pick.choice(months))
                for n in range(8)
            ]
            found += send(shared, *batch)
            shared.windows([(pick.choice(pool), "questions") for _ in range(4)], now=NOW)
            assert shared.customer(pick.choice(pool[10:]), now=NOW) is None
        return found

    answers = together([partial(work, seed) for seed in range(6)])
    verdicts = Counter(verdict for found in answers for verdict in found)
    assert set(verdicts) == {"accepted", "unknown_customer"}
    assert verdicts["accepted"] == stored(database) == counted(database, ids)
    assert differences(database) == []


class Renewed(intake.Customer):
    """A customer whose windows another thread reads anew between any two events."""

    __slots__ = ()

    def window(self, meter_id: int, moment: int) -> intake.Window | None:
        found = super().window(meter_id, moment)
        if found is None:
            return None
        return intake.Window(self, meter_id, found.start, found.end, found.version)


def test_a_batch_that_meets_two_copies_of_a_window_is_given_up_whole(database: Database) -> None:
    with_catalog(database)
    (acme,) = make(database, "acme")
    ingestor = Ingestor(database)
    assert send(ingestor, event("warm")) == ["accepted"]
    cache = ingestor._customers  # noqa: SLF001 - stands for a race that no test can time
    cached, cache["acme"] = cache["acme"], Renewed(acme)
    with pytest.raises(Unavailable):
        ingestor.ingest([event("a"), event("b")], now=NOW)
    cache["acme"] = cached
    assert send(ingestor, event("a"), event("b")) == ["accepted"] * 2
    assert totals(database, acme) == {JANUARY: "3"}


def test_totals_follow_the_events_while_plans_change_under_two_stale_processes(
    database: Database,
) -> None:
    with_catalog(database)
    (acme,) = make(database, "acme")
    processes, done = [Ingestor(database), Ingestor(database)], threading.Event()

    def ingest(at: int) -> list[str]:
        found, pick = [], random.Random(at)
        for step in range(60):
            batch = [
                event(
                    f"{at}-{step}-{n}",
                    time=JANUARY + timedelta(minutes=pick.randrange(14 * 24 * 60)),
                    data={"quantity": "0.1", "images": 1},
                )
                for n in range(5)
            ]
            for _ in range(20):
                try:
                    found += send(processes[at], *batch)
                    break
                except Unavailable:
                    continue
        return found

    def change() -> int:
        pick, changes = random.Random(9), 0
        while not done.is_set():
            start = JANUARY + timedelta(minutes=pick.randrange(20 * 24 * 60))
            segment = Segment(
                anchor=start,
                time_zone=pick.choice(["UTC", "Europe/Rome"]),
                interval=pick.choice([Interval.MONTH, Interval.WEEK, Interval.DAY]),
                starts_at=start,
            )
            lay(database, acme, segment)
            changes += 1
            done.wait(0.01)
        return changes

    def both() -> list[str]:
        try:
            first, second = together([partial(ingest, 0), partial(ingest, 1)])
        finally:
            done.set()
        return [*first, *second]

    verdicts, changes = together([both, change])
    assert changes >= 5
    assert Counter(verdicts) == {"accepted": 600}
    assert counted(database, [acme]) == Decimal(60)
    assert counted(database, [acme], "images") == Decimal(600)
    assert differences(database) == []


def test_the_same_batch_from_eight_processes_at_once_counts_once(database: Database) -> None:
    with_catalog(database)
    (acme,) = make(database, "acme")
    batch = [event(f"e{number}") for number in range(300)]
    found = together(
        [
            partial(send, Ingestor(database), *random.Random(seed).sample(batch, len(batch)))
            for seed in range(6)
        ]
    )
    assert Counter(verdict for each in found for verdict in each) == {
        "accepted": 300, "duplicate": 1500,
    }  # fmt: skip
    assert totals(database, acme) == {JANUARY: "300"}
