"""Meters, events and prepared batches by hand, for tests of the pure half of ingest."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from convergio.catalog.model import Filter, Meter
from convergio.metering import intake, rules
from convergio.metering.model import Event, Schedule, Segment, Verdict

NOW = datetime(2025, 1, 15, 12, tzinfo=UTC)
CUSTOMER = UUID(int=7)
FINISHED = Filter("status", "not_in", ("failed", "pending"))


def meter(
    key: str = "questions",
    *,
    value: str | None = "quantity",
    default: str | None = "1",
    filters: Sequence[Filter] = (FINISHED,),
    meter_id: int = 1,
) -> Meter:
    """Return a meter of `ai.request`: the example's `questions`, unless told otherwise."""
    return Meter(
        meter_id=meter_id,
        key=key,
        name=key,
        event_type="ai.request",
        aggregation="count" if value is None else "sum",
        value=value,
        default=None if default is None or value is None else Decimal(default),
        filters=tuple(filters),
    )


def types(
    *meters: Meter, kept: str = "status model quantity images"
) -> dict[str, intake.EventType]:
    """Return one event type, `ai.request`, that these meters select from."""
    plans = tuple(rules.compile_meter(one) for one in meters)
    part = (10).to_bytes(4, "big") + b"ai.request" + (8).to_bytes(4, "big")
    return {"ai.request": intake.EventType("ai.request", part, frozenset(kept.split()), plans)}


def event(
    event_id: str = "e1",
    *,
    subject: str = "acme",
    source: str = "test",
    **more: Any,  # noqa: ANN401 - an event's own fields
) -> Event:
    """Return an event; `data` is given as a mapping or not at all."""
    return Event(
        id=event_id,
        source=source,
        type=more.pop("type", "ai.request"),
        subject=subject,
        time=more.pop("time", NOW),
        data=more.pop("data", None),
        **more,
    )


def customer(*meter_ids: int) -> intake.Customer:
    """Return a cached customer with this month's windows of these meters."""
    known = intake.Customer(CUSTOMER)
    for meter_id in meter_ids:
        start = rules.microseconds(datetime(2025, 1, 1, tzinfo=UTC))
        end = rules.microseconds(datetime(2025, 2, 1, tzinfo=UTC))
        known.add(intake.Window(known, meter_id, start, end, 1))
    return known


def prepared(
    *events: Event,
    kinds: Mapping[str, intake.EventType] | None = None,
    customers: Mapping[str, intake.Customer | None] | None = None,
    now: datetime = NOW,
    back: timedelta = timedelta(days=35),
) -> intake.Prepared:
    """Prepare events for the customer `acme`, whose windows are open."""
    return intake.prepare(
        events,
        types(meter()) if kinds is None else kinds,
        {"acme": customer(1), "ghost": None} if customers is None else customers,
        now=rules.microseconds(now),
        oldest=rules.microseconds(now - back),
    )


def verdict(one: Event, **how: Any) -> Verdict | None:  # noqa: ANN401 - as prepared takes them
    """Return the verdict of an event that is alone in its batch; None when it may count."""
    return prepared(one, **how).verdicts[0]


def schedule(*segments: Segment) -> Schedule:
    """Return a schedule of these segments."""
    return Schedule(1, segments)
