"""Move what later windows may use when an earlier one moves (RULES 9, 12).

Windows share an allowance when a change has cut their period, and prepaid credit across periods.
Whoever changes what an earlier window used or holds calls `follow` in the same transaction, while
it has that window's lock; who opens a later window locks the earlier ones first. So a limit is
right at every commit. Windows that share nothing never come here.

Windows before the one that moved are read and not locked: who moves one of them follows later. So
locks go forward only, and who moves several meters takes them all beforehand (`leading`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from convergio.catalog import actions as catalog_actions
from convergio.infra.db import Tx
from convergio.infra.outbox import Fact
from convergio.infra.pipe import Question, Values
from convergio.kernel.errors import Difference
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import add_up
from convergio.metering import alerts, rules, store
from convergio.metering.allowance import standings
from convergio.metering.model import Schedule, WindowRow
from convergio.metering.schedule import terms_at

WindowKey = tuple[UUID, int, datetime]
Changed = tuple[WindowRow, WindowRow]  # before and after
_ZERO: Final = Decimal(0)
_PAGE: Final = 500


def follow(tx: Tx, moved: Collection[WindowKey], *, now: datetime) -> None:
    """Bring the windows after these to what they may use now.

    Locks: these and every later window of their meters. Emits: usage.threshold_reached, once a
    period and percent.
    """
    if not moved:
        return
    meters = sorted(store.find_followed(tx, sorted(moved)))
    if not meters:
        return
    tx.together(*leading(moved))
    schedules = store.find_schedules(tx, sorted({customer_id for customer_id, _ in meters}))
    rows = store.find_meter_windows(tx, meters)
    changed = list(changes(rows, schedules, meter_keys(tx)))
    saved = [after for _, after in changed]
    store.save_standing(tx, saved)
    due = [fact for row in saved if row.used for _, fact in reached(row)]
    alerts.raise_once(tx, dict(due), now=now)


def leading(moved: Iterable[WindowKey]) -> list[Question[list[Values]]]:
    """Ask for the locks of all that `follow` may touch when these windows move, in one order."""
    first: dict[tuple[UUID, int], datetime] = {}
    for customer_id, meter_id, start_at in moved:
        key = customer_id, meter_id
        first[key] = min(start_at, first.get(key, start_at))
    return store.lock_later_windows(
        [
            (str(customer_id).encode(), b"%d" % meter_id, start_at.isoformat().encode())
            for (customer_id, meter_id), start_at in sorted(first.items())
        ]
    )


def reached(row: WindowRow) -> Iterator[tuple[int, tuple[alerts.AlertKey, Fact]]]:
    """Yield the percentages that a window's period is past now, told before or not, as facts."""
    period_at, used = row.period_at or row.start_at, add_up((row.earlier or _ZERO, row.used))
    for percent, mark in rules.marks(row):
        if int(row.used * rules.NANO) >= mark:
            yield (
                percent,
                alerts.threshold(row.customer_id, row.meter_id, period_at, percent, used=used),
            )


def changes(
    rows: Sequence[WindowRow], schedules: Mapping[UUID, Schedule], keys: Mapping[int, str]
) -> Iterator[Changed]:
    """Yield the windows that may use something else than they say, and what they should say.

    `rows` are all windows of their meters in order of their key; a meter that the catalog has no
    more is left as it is.
    """
    of: dict[tuple[UUID, int], list[WindowRow]] = defaultdict(list)
    for row in rows:
        of[row.customer_id, row.meter_id].append(row)
    for (customer_id, meter_id), some in of.items():
        key = keys.get(meter_id)
        if key is None or customer_id not in schedules:
            continue
        schedule = schedules[customer_id]
        for row, standing in zip(some, standings(schedule, key, some), strict=True):
            limit = terms_at(schedule, key, row.start_at).limit
            after = replace(
                row,
                **standing._asdict(),
                alerts=row.alerts if limit is None else list(limit.alerts),
            )
            if after != row:
                yield row, after


def meter_keys(tx: Tx) -> dict[int, str]:
    """Return the key of each meter."""
    return {meter.meter_id: meter.key for meter in catalog_actions.current(tx).meters.values()}


def verify(tx: Tx) -> list[Difference]:
    """Return shared windows that may use something else than follows from the windows before."""
    keys = meter_keys(tx)
    found: list[Difference] = []
    after = (UUID(int=0), 0)
    while meters := store.page_shared(tx, after=after, size=_PAGE):
        after = meters[-1]
        ids = sorted({customer_id for customer_id, _ in meters})
        rows = store.find_meter_windows(tx, meters)
        for old, new in changes(rows, store.find_schedules(tx, ids), keys):
            found.append(_difference(old, new, keys))
    return found


def _difference(old: WindowRow, new: WindowRow, keys: Mapping[int, str]) -> Difference:
    return Difference(
        where=(
            f"what customer {old.customer_id} may use of {keys[old.meter_id]}"
            f" in the window from {instant_text(old.start_at)}"
        ),
        expected=_standing_text(new),
        found=_standing_text(old),
    )


def _standing_text(row: WindowRow) -> str:
    values = {
        "limit": row.quota_limit,
        "included": row.included,
        "earlier": row.earlier,
        "free": row.free,
        "credit": row.credit,
    }
    return ", ".join(
        f"{name} {'none' if value is None else rules.plain(value)}"
        for name, value in values.items()
    )
