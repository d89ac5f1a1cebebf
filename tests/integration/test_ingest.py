"""An event counts once, for ever, and the totals are always what the events add up to."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from convergio.infra.db import Database, Tx
from convergio.kernel.errors import Unavailable
from convergio.kernel.periods import Interval
from convergio.metering.ingest import Ingestor
from convergio.metering.model import BATCH_MAX, Segment
from tests.fakes.meters import NOW, event
from tests.fakes.usage import (
    FEBRUARY,
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

CATALOG = b"""
currency: usd
events:
  - {type: ai.request, keep: [status, model]}
  - {type: page.view, keep: [path]}
meters:
  - {key: questions, name: Questions, event: ai.request, aggregation: sum, value: quantity,
     default: 1, where: {status: {not_in: [failed]}}}
  - {key: calls, name: Calls, event: ai.request, aggregation: count}
  - {key: cost, name: Cost, event: ai.request, aggregation: sum, value: cost,
     where: {model: {in: [large]}}}
plans: []
"""
DECEMBER = datetime(2024, 12, 20, tzinfo=UTC)


@pytest.fixture
def ingestor(database: Database) -> Ingestor:
    """A fresh process on a database with the catalog above."""
    with_catalog(database, CATALOG)
    return Ingestor(database)


def test_an_event_is_accepted_once_and_its_repetition_is_a_duplicate(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    one = event(data={"quantity": 3})
    assert send(ingestor, one) == ["accepted"]
    assert send(ingestor, one) == ["duplicate"]
    assert send(Ingestor(database), one, now=NOW + timedelta(days=9)) == ["duplicate"]
    assert totals(database, acme) == {JANUARY: "3"}
    assert totals(database, acme, "calls") == {JANUARY: "1"}
    assert differences(database) == []


AGAIN: list[tuple[dict[str, Any], str]] = [
    ({"data": {"model": "m", "quantity": 3}}, "duplicate"),
    ({"data": {"quantity": 3, "model": "m"}}, "duplicate"),
    ({"data": {"quantity": 3, "model": "m", "undeclared": "x"}}, "duplicate"),
    ({"data": {"quantity": 3, "model": "m"}, "time": None}, "duplicate"),
    ({"data": {"quantity": 4, "model": "m"}}, "other_payload"),
    ({"data": {"quantity": "3", "model": "m"}}, "other_payload"),
    ({"data": {"quantity": 3}}, "other_payload"),
    ({"data": {"quantity": 3, "model": "m"}, "time": NOW - timedelta(seconds=1)}, "other_payload"),
    ({"data": {"quantity": 3, "model": "m"}, "type": "page.view"}, "other_payload"),
    ({"data": {"quantity": 3, "model": "m"}, "source": "other"}, "accepted"),
    # what only Python takes for equal
    ({"data": {"quantity": 3, "model": "m", "status": True}}, "other_payload"),
    ({"data": {"quantity": Decimal("3.0"), "model": "m"}}, "other_payload"),
]


def test_the_same_id_with_another_payload_is_a_conflict_and_counts_nothing(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    total = 0
    for case, (again, expected) in enumerate(AGAIN):
        for together in (False, True):
            event_id = f"e{case}{together}"
            first = event(event_id, data={"quantity": 3, "model": "m"})
            second = event(event_id, **again)
            if together:
                found = send(ingestor, first, second)
            else:
                found = send(ingestor, first) + send(ingestor, second)
            assert found == ["accepted", expected], (again, together)
            total += 6 if expected == "accepted" else 3
    assert totals(database, acme) == {JANUARY: str(total)}
    assert differences(database) == []


def test_repetitions_in_a_batch_are_judged_by_what_is_stored(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    right, wrong = event(data={"quantity": 3}), event(data={"quantity": 4})
    assert send(ingestor, right) == ["accepted"]
    assert send(ingestor, wrong, wrong, right, wrong) == [
        "other_payload", "other_payload", "duplicate", "other_payload",
    ]  # fmt: skip
    assert totals(database, acme) == {JANUARY: "3"}


def test_idem_12_an_event_twice_in_a_batch_and_again_in_the_next_counts_once(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    one, other = event("one"), event("other")
    assert send(ingestor, one, other, one) == ["accepted", "accepted", "duplicate"]
    assert send(ingestor, one, one, event("third")) == ["duplicate", "duplicate", "accepted"]
    assert totals(database, acme) == {JANUARY: "3"}


def test_bad_events_get_their_verdicts_and_the_rest_of_the_batch_counts(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    found = send(
        ingestor,
        event("a", data={"quantity": 2}),
        event(""),
        event("b", type="unknown"),
        event("c", subject="nobody"),
        event("d", data={"quantity": -1}),
        event("e", data={"model": "4242 4242 4242 4242"}),
        event("f", data={"model": "a\x00b"}),
        event("g", data={"model": "\ud800"}),
        event("h", data={"model": "large"}),
        event("i", time=NOW + timedelta(hours=1)),
        event("j", time=NOW - timedelta(days=3650)),
        event("01  2345-6789-7abc-8def-0123456789ab", data={"quantity": 5}),
        event("z", subject="x" * 10_000),
    )
    assert found == [
        "accepted", "bad_id", "unknown_type", "unknown_customer", "bad_quantity", "card_number",
        "bad_property", "bad_property", "bad_quantity", "time_ahead", "time_too_old", "accepted",
        "unknown_customer",
    ]  # fmt: skip
    assert totals(database, acme) == {JANUARY: "7"}
    assert stored(database) == 2


def test_a_batch_of_bad_events_only_stores_nothing(database: Database, ingestor: Ingestor) -> None:
    make(database, "acme")
    assert send(ingestor, event(""), event("x", type="none")) == ["bad_id", "unknown_type"]
    assert send(ingestor) == []
    assert stored(database) == 0


def test_a_customer_that_was_not_there_is_found_once_made(
    database: Database, ingestor: Ingestor
) -> None:
    assert send(ingestor, event()) == ["unknown_customer"]
    make(database, "acme")
    assert send(ingestor, event()) == ["accepted"]


def test_a_known_type_that_no_meter_selects_is_accepted_and_counts_nothing(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    assert send(ingestor, event(type="page.view", data={"path": "/", "other": 1})) == ["accepted"]
    assert stored(database) == 1
    assert totals(database, acme) == {}
    assert differences(database) == []


def test_a_late_event_counts_in_the_window_in_which_it_happened(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    assert send(ingestor, event("late", time=DECEMBER), event("now")) == ["accepted"] * 2
    december = datetime(2024, 12, 1, tzinfo=UTC)
    assert totals(database, acme) == {december: "1", JANUARY: "1"}


def test_a_boundary_instant_belongs_to_the_window_that_begins(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    edge = FEBRUARY
    sent = send(
        ingestor, event("a", time=edge - timedelta(microseconds=1)), event("b", time=edge), now=edge
    )
    assert sent == ["accepted"] * 2
    assert totals(database, acme) == {JANUARY: "1", FEBRUARY: "1"}


def test_time_01_only_an_import_may_bring_old_events(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    old = event(time=NOW.replace(year=2015))
    assert send(ingestor, old) == ["time_too_old"]
    assert send(ingestor, old, importing=True) == ["accepted"]
    assert totals(database, acme) == {datetime(2015, 1, 1, tzinfo=UTC): "1"}


def test_an_event_from_before_the_calendar_begins_sinks_no_batch(
    database: Database, ingestor: Ingestor
) -> None:
    """Periods before 1970 cannot be laid out: whoever may import still may not ask for one."""
    (acme,) = make(database, "acme")
    lay(database, acme, Segment(NOW, "Pacific/Honolulu", Interval.YEAR, starts_at=None))
    for year in (1, 1969, 1970):
        old = event(f"old-{year}", time=datetime(year, 1, 1, 0, 30, tzinfo=UTC))
        found = send(ingestor, old, event(f"new-{year}"), importing=True)
        assert found == ["time_too_old", "accepted"]
    far = event("far", time=datetime(1972, 1, 1, tzinfo=UTC))
    assert send(ingestor, far, importing=True) == ["accepted"]
    assert differences(database) == []


def test_qty_12_a_million_tenths_are_exactly_one_hundred_thousand(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    for batch in range(3):
        events = [event(f"{batch}-{n}", data={"quantity": "0.1"}) for n in range(BATCH_MAX)]
        assert set(send(ingestor, *events)) == {"accepted"}
    rest = [event(f"big-{n}", data={"quantity": Decimal("9700.0")}) for n in range(10)]
    assert set(send(ingestor, *rest)) == {"accepted"}
    assert totals(database, acme) == {JANUARY: "100000"}
    assert differences(database) == []


def test_qty_11_the_greatest_quantities_add_up_exactly(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    greatest = "999999999999999999.999999999"
    events = [event(f"e{n}", data={"quantity": greatest}) for n in range(9)]
    assert set(send(ingestor, *events)) == {"accepted"}
    assert set(send(ingestor, event("last", data={"quantity": "0.000000009"}))) == {"accepted"}
    assert totals(database, acme) == {JANUARY: "9000000000000000000"}
    assert differences(database) == []


def test_two_meters_of_one_event_move_together_or_not_at_all(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    one = event(data={"quantity": 2, "cost": "0.25", "model": "large"})
    missing = event("e2", data={"quantity": 2, "model": "large"})
    assert send(ingestor, one, missing) == ["accepted", "bad_quantity"]
    assert totals(database, acme, "questions") == {JANUARY: "2"}
    assert totals(database, acme, "calls") == {JANUARY: "1"}
    assert totals(database, acme, "cost") == {JANUARY: "0.25"}


def test_what_runs_first_in_the_transaction_is_undone_with_it(
    database: Database, ingestor: Ingestor
) -> None:
    make(database, "acme")

    def fail(tx: Tx) -> None:
        tx.raw.execute(b"DELETE FROM customer_directory")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ingestor.ingest([event()], now=NOW, first=fail)
    assert stored(database) == 0
    assert counted(database, make(database, "acme")) == 0


def test_a_connection_that_is_lost_acknowledges_nothing_and_the_retry_counts_once(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    assert send(ingestor, event("warm")) == ["accepted"]
    lost: list[bool] = []

    def lose(tx: Tx) -> None:
        if not lost:
            lost.append(True)
            tx.raw.close()

    with pytest.raises(Unavailable):
        ingestor.ingest([event()], now=NOW, first=lose)
    assert stored(database) == 1
    assert ingestor.ingest([event()], now=NOW, first=lose)[0].status == "accepted"
    assert totals(database, acme) == {JANUARY: "2"}


def test_a_new_event_type_is_known_at_once(database: Database, ingestor: Ingestor) -> None:
    make(database, "acme")
    assert send(ingestor, event(type="audio.minute")) == ["unknown_type"]
    with_catalog(database, CATALOG.replace(b"page.view,", b"audio.minute,"))
    assert send(ingestor, event(type="audio.minute")) == ["accepted"]
