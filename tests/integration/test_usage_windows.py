"""A plan change cuts the window at its instant and counts what came after it again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors as pg

from convergio.infra.db import Database
from convergio.kernel.errors import Invalid, NotFound
from convergio.kernel.periods import Interval, Period
from convergio.metering import actions as metering
from convergio.metering.ingest import Ingestor
from convergio.metering.model import Limit, Segment
from convergio.subscriptions import actions as subscriptions
from convergio.subscriptions import changes
from convergio.subscriptions.model import Trial, When
from tests.fakes.business import Business, at
from tests.fakes.meters import NOW, event
from tests.fakes.usage import (
    FEBRUARY,
    JANUARY,
    counted,
    differences,
    lay,
    make,
    send,
    totals,
    with_catalog,
)

TENTH = datetime(2025, 1, 10, tzinfo=UTC)
TWELFTH = datetime(2025, 1, 12, tzinfo=UTC)


@pytest.fixture
def ingestor(database: Database) -> Ingestor:
    """A process whose caches outlive every plan change of the test."""
    with_catalog(database)
    return Ingestor(database)


class Undo(Exception):
    """Leaves a transaction without a trace."""


def _change_and_undo(database: Database, customer_id: UUID) -> None:
    with database.transaction() as tx:
        metering.set_schedule(tx, customer_id, Segment(TENTH, starts_at=TENTH), now=NOW)
        raise Undo


def _tamper_and_undo(database: Database, tampering: bytes, found: list[str]) -> None:
    with database.transaction() as tx:
        tx.raw.execute(tampering)
        found += [str(one) for one in metering.verify(tx)]
        raise Undo


def _set_used(database: Database, value: str) -> None:
    with database.transaction() as tx:
        tx.raw.execute(b"UPDATE usage_total SET used = %s::numeric", [value])


def day(number: int) -> datetime:
    """Return noon of a day of January 2025."""
    return datetime(2025, 1, number, 12, tzinfo=UTC)


def use(ingestor: Ingestor, *days: int, now: datetime = NOW, name: str = "acme") -> None:
    """Count one question on each of these days."""
    events = [event(f"{name}-{d}-{now}", subject=name, time=day(d)) for d in days]
    assert set(send(ingestor, *events, now=now)) == {"accepted"}


def test_a_segment_ends_the_window_and_moves_what_came_after_into_its_own(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2, 9, 10, 14)
    lay(database, acme, Segment(TENTH, starts_at=TENTH))
    assert totals(database, acme) == {JANUARY: "2", TENTH: "2"}
    use(ingestor, 3, 11, now=NOW + timedelta(days=1))
    assert totals(database, acme) == {JANUARY: "3", TENTH: "3"}
    assert differences(database) == []


def test_a_segment_from_now_on_leaves_what_was_counted_alone(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2, 9)
    lay(database, acme, Segment(NOW, starts_at=NOW))
    use(ingestor, 14, 15)
    assert totals(database, acme) == {JANUARY: "3", NOW: "1"}


def test_a_later_change_empties_a_window_and_another_one_fills_it_again(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2, 11, 14)
    lay(database, acme, Segment(TENTH, starts_at=TENTH))
    lay(database, acme, Segment(JANUARY, starts_at=JANUARY))
    assert totals(database, acme) == {JANUARY: "3"}
    lay(database, acme, Segment(TENTH, starts_at=TENTH))
    assert totals(database, acme) == {JANUARY: "1", TENTH: "2"}
    use(ingestor, 3, 12)
    assert totals(database, acme) == {JANUARY: "2", TENTH: "3"}
    assert differences(database) == []


def test_an_emptied_window_opens_again_for_an_event(database: Database, ingestor: Ingestor) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2)
    other = Ingestor(database)
    lay(database, acme, Segment(TENTH, starts_at=TENTH))
    assert send(other, event("a", time=day(11))) == ["accepted"]
    lay(database, acme, Segment(JANUARY, starts_at=JANUARY))
    lay(database, acme, Segment(TWELFTH, starts_at=TWELFTH))
    lay(database, acme, Segment(TENTH, starts_at=TENTH))
    for process, event_id in ((other, "b"), (ingestor, "c")):
        assert send(process, event(event_id, time=day(11))) == ["accepted"]
    assert totals(database, acme) == {JANUARY: "1", TENTH: "3"}
    assert differences(database) == []


def test_a_change_from_ever_lays_everything_anew(database: Database, ingestor: Ingestor) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2, 9, 10)
    lay(database, acme, Segment(JANUARY, interval=Interval.DAY, starts_at=None))
    use(ingestor, 9, now=NOW + timedelta(seconds=1))
    assert totals(database, acme) == {
        datetime(2025, 1, 2, tzinfo=UTC): "1",
        datetime(2025, 1, 9, tzinfo=UTC): "2",
        TENTH: "1",
    }
    assert differences(database) == []


def test_windows_follow_the_zone_across_a_change_of_clocks(
    database: Database, ingestor: Ingestor
) -> None:
    """Rome's clocks go forward on 30 March 2025: that day has 23 hours and none counts twice."""
    (acme,) = make(database, "acme")
    anchor = datetime(2024, 12, 31, 23, tzinfo=UTC)
    lay(database, acme, Segment(anchor, "Europe/Rome", Interval.DAY, starts_at=anchor))
    hours = [datetime(2025, 3, 29, 12, tzinfo=UTC) + timedelta(hours=h) for h in range(48)]
    events = [event(f"h{n}", time=hour) for n, hour in enumerate(hours)]
    assert set(send(ingestor, *events, now=hours[-1])) == {"accepted"}
    assert totals(database, acme) == {
        datetime(2025, 3, 28, 23, tzinfo=UTC): "11",
        datetime(2025, 3, 29, 23, tzinfo=UTC): "23",
        datetime(2025, 3, 30, 22, tzinfo=UTC): "14",
    }
    assert differences(database) == []


def test_the_window_carries_the_limit_of_the_segment_in_force(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    limits = {"questions": Limit(limit=Decimal(50), included=Decimal(20))}
    lay(database, acme, Segment(TENTH, starts_at=TENTH, limits=limits))
    use(ingestor, 2, 11)
    query = b"SELECT start_at, quota_limit, included FROM usage_total WHERE customer_id = %s"
    with database.transaction() as tx:
        rows = set(tx.raw.execute(query, [acme]).fetchall())
    assert rows == {(JANUARY, None, None), (TENTH, Decimal(50), Decimal(20))}


def test_usage_in_a_period_is_the_sum_of_the_windows_inside_it(
    database: Database, ingestor: Ingestor
) -> None:
    (acme, beta) = make(database, "acme", "beta")
    use(ingestor, 2, 9, 11, 14)
    use(ingestor, 3, name="beta")
    lay(database, acme, Segment(JANUARY, starts_at=TENTH))
    with database.transaction() as tx:
        found = metering.usage_in(
            tx,
            [
                (acme, "questions", Period(JANUARY, FEBRUARY)),
                (acme, "questions", Period(TENTH, FEBRUARY)),
                (beta, "questions", Period(JANUARY, FEBRUARY)),
                (beta, "images", Period(JANUARY, FEBRUARY)),
                (beta, "questions", Period(JANUARY, TENTH)),
            ],
        )
    assert found == {
        (acme, "questions", JANUARY): Decimal(4),
        (acme, "questions", TENTH): Decimal(2),
        (beta, "questions", JANUARY): Decimal(1),
    }


def test_a_failed_change_leaves_windows_and_schedule_as_they_were(
    database: Database, ingestor: Ingestor
) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2, 11)
    with pytest.raises(Undo):
        _change_and_undo(database, acme)
    assert totals(database, acme) == {JANUARY: "2"}
    use(ingestor, 12)
    assert totals(database, acme) == {JANUARY: "3"}


def test_usage_is_shown_in_buckets_of_local_time(database: Database, ingestor: Ingestor) -> None:
    (acme, _) = make(database, "acme", "beta")
    change = datetime(2025, 3, 30, 1, tzinfo=UTC)  # 02:00 becomes 03:00 in Rome
    times = [change - timedelta(minutes=30), change, change + timedelta(minutes=59)]
    times += [datetime(2025, 3, 31, 21, 59, tzinfo=UTC), datetime(2025, 3, 31, 22, tzinfo=UTC)]
    events = [event(f"e{n}", time=when) for n, when in enumerate(times)]
    events += [event("b", subject="beta", time=change)]
    assert set(send(ingestor, *events, now=times[-1])) == {"accepted"}

    def shown(by: str, **more: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - as usage takes them
        with database.transaction() as tx:
            found = metering.usage(
                tx, meter_key="questions", by=by, time_zone="Europe/Rome", customer_id=acme, **more
            )
        return [(row.start.isoformat(), str(row.quantity.normalize())) for row in found]

    assert shown("hour")[:2] == [
        ("2025-03-30T00:00:00+00:00", "1"), ("2025-03-30T01:00:00+00:00", "2"),
    ]  # fmt: skip
    assert shown("day") == [
        ("2025-03-29T23:00:00+00:00", "3"),
        ("2025-03-30T22:00:00+00:00", "1"),
        ("2025-03-31T22:00:00+00:00", "1"),
    ]
    assert shown("month") == [
        ("2025-02-28T23:00:00+00:00", "4"), ("2025-03-31T22:00:00+00:00", "1"),
    ]  # fmt: skip
    assert shown("month", since=change, until=times[-1]) == [("2025-02-28T23:00:00+00:00", "3")]


WRONG = [
    ({"meter_key": "nope"}, "meter"),
    ({"by": "second"}, "by"),
    ({"by": "month; DROP TABLE meter"}, "by"),
    ({"time_zone": "Europe/Atlantis"}, "time_zone"),
    ({"time_zone": "../../etc/passwd"}, "time_zone"),
    ({"time_zone": "UTC\x00"}, "time_zone"),
    ({"time_zone": ""}, "time_zone"),
]


def test_a_wrong_question_about_usage_names_its_field(
    database: Database, ingestor: Ingestor
) -> None:
    for wrong, field in WRONG:
        asked: dict[str, Any] = {"meter_key": "questions", "by": "month", **wrong}
        with pytest.raises((Invalid, NotFound)) as caught, database.transaction() as tx:
            metering.usage(tx, **asked)
        assert caught.value.field == field


def test_every_zone_that_python_knows_is_answered_or_refused_by_name(
    database: Database, ingestor: Ingestor
) -> None:
    for name in ("posixrules", "right/UTC", "posix/Europe/Rome", "localtime", "Factory", "EST5EDT"):
        with database.transaction() as tx:
            try:
                metering.usage(tx, meter_key="questions", by="day", time_zone=name)
            except Invalid as error:
                assert error.field == "time_zone"  # noqa: PT017 - either answer is right


TAMPERING = [
    b"UPDATE usage_total SET used = used + 0.000000001",
    b"UPDATE usage_total SET used = 0",
    b"DELETE FROM usage_total",
    b"DELETE FROM usage_event",
    b"UPDATE usage_event SET properties = '{\"quantity\": 7}'",
    b"UPDATE usage_event SET occurred_at = occurred_at + interval '40 days'",
]


def test_verify_names_what_was_tampered_with(database: Database, ingestor: Ingestor) -> None:
    (acme,) = make(database, "acme")
    use(ingestor, 2, 9)
    assert differences(database) == []
    for tampering in TAMPERING:
        found: list[str] = []
        with pytest.raises(Undo):
            _tamper_and_undo(database, tampering, found)
        assert found, tampering
        assert all("questions" in one and str(acme) in one for one in found), found
    assert differences(database) == []


def test_no_total_goes_below_zero_or_to_nan_whatever_writes_it(
    database: Database, ingestor: Ingestor
) -> None:
    """The constraint holds when the code does not (QTY-03: a plain check lets NaN through)."""
    (acme,) = make(database, "acme")
    use(ingestor, 2)
    for value in ("-1", "NaN", "Infinity"):
        with pytest.raises((pg.CheckViolation, pg.NumericValueOutOfRange)):
            _set_used(database, value)
    assert counted(database, [acme]) == 1


def test_two_changes_at_one_instant_that_end_where_they_began_leave_a_window_to_count_in(
    database: Database,
) -> None:
    shop = Business(database, at("2024-04-06"))
    acme = shop.customer("acme")
    with database.transaction() as tx:
        subscriptions.create(
            tx, customer_id=acme, plan_key="pro", start=at("2024-04-06"), now=at("2024-04-06"),
            trial=Trial(30),
        )  # fmt: skip
    shop.use("acme", 1, "2024-04-11")
    for plan in ("team", "pro"):
        with database.transaction() as tx:
            changes.change(
                tx, customer_id=acme, plan_key=plan, when=When.NOW, now=at("2024-04-25T18:53:22Z")
            )
    shop.use("acme", 10, "2024-05-03")
    with database.transaction() as tx:
        assert tx.value("SELECT sum(used) FROM usage_total") == 11
    assert shop.verify() == []
