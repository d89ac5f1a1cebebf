"""Void and amend: an event that was counted is taken back, or counts with other properties.

A correction is an event itself (type `convergio.void` or `convergio.amend`, its `data` names the
original by `id` and `source`), so it is kept, and sending it twice is once. What the original
counts as is one row of `usage_correction`: a void for ever, else the amendment with the latest
time. So corrections give the same totals in any order, also before the original has arrived: a
tombstone keeps its place (RULES 20).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.metering import rules, store
from convergio.metering.following import follow, leading
from convergio.metering.intake import EventType, refused_payload, too_old
from convergio.metering.model import (
    ACCEPTED,
    AHEAD_SECONDS_MAX,
    AMEND,
    CONFLICT,
    DUPLICATE,
    ID_SIZE_MAX,
    TOMBSTONE,
    VOID,
    Correction,
    Event,
    StoredEvent,
    Verdict,
)
from convergio.metering.windows import Moment, ensure_windows, recount

_MOMENT = timedelta(microseconds=1)
_AHEAD = timedelta(seconds=AHEAD_SECONDS_MAX)


def correct(
    tx: Tx, event: Event, customer_id: UUID, types: Mapping[str, EventType], *, now: datetime
) -> Verdict:
    """Apply one void or amendment, and move the totals in the same transaction.

    Locks: the original, then its windows. Emits: usage.corrected. A second void changes nothing
    and is accepted as `already_void`; an amendment of a voided event is a conflict `voided`; one
    that is older than the amendment in force is accepted as `superseded`.
    """
    data = event.data or {}
    target = Target(str(data.get("source", event.source)), str(data.get("id", "")))
    properties = _declared(event, types)
    broken = _broken(event, target, now=now) or refused_payload(properties, frozenset(properties))
    if broken is not None:
        return broken
    key = target.key
    closed = _closed(tx, event, customer_id, key, now=now)
    if closed is not None:
        return closed
    known = _record(tx, event, target, properties, customer_id, now=now)
    if known is not None:
        return known
    original = _lock(tx, event, target, customer_id, now=now)
    if event.type == AMEND and original.type != TOMBSTONE:
        bad = _bad_amendment(original, properties, types)
        if bad is not None:
            return bad
    wanted = Correction(
        customer_id=customer_id,
        event_key=key,
        kind="void" if event.type == VOID else "amend",
        properties=_kept(properties, types.get(original.type)),
        corrected_at=event.time or now,
        correction_key=_own_key(event),
    )
    in_force = store.find_correction(tx, customer_id, key)
    answer = _judge(in_force, wanted)
    if answer is not None:
        return answer
    store.save_correction(tx, wanted)
    kind = types.get(original.type)
    if kind is not None:
        _recount(tx, customer_id, kind, original.occurred_at, wanted.properties, now=now)
    outbox.emit(tx, "usage.corrected", now=now, customer_id=customer_id, data={"kind": wanted.kind})
    return ACCEPTED


def counted_late(
    tx: Tx, values: Sequence[Any], moment: int, types: Mapping[str, EventType], *, now: datetime
) -> Verdict | None:
    """Put an event in the place that its correction kept for it; None when there is no such place.

    It counts as the correction says: nothing, or with the amended properties.
    """
    if _is_closed(tx, values[0], rules.instant(moment), store.find_retention(tx).accepts_from):
        return None
    if not store.fill_tombstone(tx, values):
        return None
    found = store.find_correction(tx, values[0], values[1])
    amended = found.properties if found is not None else {}
    _recount(tx, values[0], types[values[2]], rules.instant(moment), amended, now=now)
    return Verdict("accepted", "voided" if found and found.kind == "void" else "amended")


def _recount(
    tx: Tx,
    customer_id: UUID,
    kind: EventType,
    moment: datetime,
    properties: Mapping[str, Any],
    *,
    now: datetime,
) -> None:
    """Count the windows that hold a moment again, and open those that an amendment needs.

    Locks: the windows, and those that depend on them.
    """
    wanted = []
    for newest in kind.meters:
        meter = newest.at(rules.microseconds(moment))
        if meter is not None and meter.measure(properties) not in {None, rules.BAD_VALUE}:
            wanted.append(Moment(customer_id, meter.meter_id, meter.key, moment))
    ensure_windows(tx, wanted, now=now)
    rows = store.find_windows(tx, [customer_id], since=moment, until=moment)
    keys = sorted((row.customer_id, row.meter_id, row.start_at) for row in rows)
    shared = {(row.customer_id, row.meter_id, row.start_at) for row in rows if row.period_at}
    if shared:
        tx.together(*leading(shared))
    locked = store.lock_windows(tx, keys)
    for row in locked:
        span = store.Span(customer_id, row.start_at, row.start_at + _MOMENT, row.meter_id)
        recount(tx, span)
    follow(tx, sorted(shared), now=now)


def _closed(tx: Tx, event: Event, customer_id: UUID, key: UUID, *, now: datetime) -> Verdict | None:
    """Refuse what would count again a window whose events are archived (docs/adr/0007).

    Locks: the retention boundary, shared; the original.
    """
    boundary = store.share_retention(tx).accepts_from
    original = store.lock_event(tx, customer_id, key)
    if (event.time or now) < boundary:
        return too_old("time", rules.microseconds(boundary))
    if original is None or not _is_closed(tx, customer_id, original.occurred_at, boundary):
        return None
    return too_old("data.id", rules.microseconds(boundary))


def _is_closed(tx: Tx, customer_id: UUID, moment: datetime, boundary: datetime) -> bool:
    """Say whether a window that holds the moment begins before the boundary."""
    rows = store.find_windows(tx, [customer_id], since=moment, until=moment)
    return moment < boundary or any(row.start_at < boundary for row in rows)


class Target(NamedTuple):
    """The event that a correction names."""

    source: str
    event_id: str

    @property
    def key(self) -> UUID:
        """Its identity."""
        return UUID(bytes=rules.event_key(self.source.encode(), self.event_id))


def _declared(event: Event, types: Mapping[str, EventType]) -> dict[str, Any]:
    """Return the new properties that some type declares; the rest is dropped at the door.

    Which type the original has may not be known yet.
    """
    found = (event.data or {}).get("data")
    if event.type != AMEND or not isinstance(found, dict):
        return {}
    declared = frozenset[str]().union(*(kind.kept for kind in types.values()))
    return {name: value for name, value in found.items() if name in declared}


def _broken(event: Event, target: Target, *, now: datetime) -> Verdict | None:
    for name, text in (("id", event.id), ("source", event.source)):
        if not _is_id(text):
            detail = f"write 1 to {ID_SIZE_MAX} printable characters"
            return Verdict("rejected", "bad_id", name, detail)
    for name, text in (("data.id", target.event_id), ("data.source", target.source)):
        if not _is_id(text):
            detail = "name the event to correct by its id and source"
            return Verdict("rejected", "bad_correction", name, detail)
    if event.time is not None and event.time > now + _AHEAD:
        detail = f"the time is more than {AHEAD_SECONDS_MAX} seconds ahead; check the clock"
        return Verdict("rejected", "time_ahead", "time", detail)
    data = event.data or {}
    if event.type == AMEND and not isinstance(data.get("data"), dict):
        detail = "write the properties that the event shall count with"
        return Verdict("rejected", "bad_correction", "data.data", detail)
    return None


def _is_id(text: str) -> bool:
    return 0 < len(text) <= ID_SIZE_MAX and text.isprintable()


def _own_key(event: Event) -> UUID:
    return UUID(bytes=rules.event_key(event.source.encode(), event.id))


def _record(
    tx: Tx,
    event: Event,
    target: Target,
    properties: Mapping[str, Any],
    customer_id: UUID,
    *,
    now: datetime,
) -> Verdict | None:
    """Keep the correction as an event; return the verdict when it was there already.

    Of its data only what is understood is kept: whom it corrects, and the declared properties.
    """
    kept: dict[str, Any] = {"id": target.event_id}
    if "source" in (event.data or {}):
        kept["source"] = target.source
    if event.type == AMEND:
        kept["data"] = properties
    payload = msgspec.json.encode(kept).decode()
    key, moment = _own_key(event), event.time or now
    row = (customer_id, key, event.type, moment, now, payload, event.source, event.id)
    if store.insert_new_events(tx, [row]):
        return None
    asked = (customer_id, key, event.type, event.time, payload)
    same = store.compare_events(tx, [asked]).get((customer_id, key), False)
    return DUPLICATE if same else CONFLICT


def _lock(tx: Tx, event: Event, target: Target, customer_id: UUID, *, now: datetime) -> StoredEvent:
    """Return the original, or the tombstone that keeps its place until it arrives."""
    moment, key = event.time or now, target.key
    row = (customer_id, key, TOMBSTONE, moment, now, "{}", target.source, target.event_id)
    store.insert_new_events(tx, [row])
    found = store.lock_event(tx, customer_id, key)
    return found or StoredEvent(customer_id, key, TOMBSTONE, moment, {})


def _bad_amendment(
    original: StoredEvent, properties: Mapping[str, Any], types: Mapping[str, EventType]
) -> Verdict | None:
    """Say why a meter could not count the original with these properties."""
    kind = types.get(original.type)
    if kind is None:
        detail = "a correction cannot be corrected; void or amend the event itself"
        return Verdict("rejected", "bad_correction", "data.id", detail)
    refused = refused_payload(properties, kind.kept)
    if refused is not None:
        return refused
    for newest in kind.meters:
        meter = newest.at(rules.microseconds(original.occurred_at))
        if meter is not None and (
            meter.measure(properties) == rules.BAD_VALUE or rules.is_null(meter, properties)
        ):
            detail = f"the meter '{meter.key}' cannot count this value"
            return Verdict("rejected", "bad_quantity", f"data.data.{meter.value}", detail)
    return None


def _kept(properties: Mapping[str, Any], kind: EventType | None) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if kind is None or name in kind.kept}


def _judge(in_force: Correction | None, wanted: Correction) -> Verdict | None:
    """Return the answer when what is in force stays in force."""
    if in_force is None:
        return None
    if in_force.kind == "void":
        if wanted.kind == "void":
            return Verdict("accepted", "already_void")
        detail = "the event was voided; send the usage as a new event"
        return Verdict("conflict", "voided", "data.id", detail)
    if wanted.kind == "amend" and _order(wanted) < _order(in_force):
        return Verdict("accepted", "superseded")
    return None


def _order(correction: Correction) -> tuple[datetime, UUID]:
    return correction.corrected_at, correction.correction_key
