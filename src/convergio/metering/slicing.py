"""Usage of a meter by one of its dimensions, for prices that ask a charge for each value.

The groups' totals are moved in the same transaction as the whole, so a value's part is their sum,
and what the listed values do not have is the rest of the whole: also usage beyond the groups that
a period may have.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from convergio.catalog.model import Meter
from convergio.infra.db import Tx
from convergio.kernel.periods import Period
from convergio.kernel.quantity import add_up, subtract
from convergio.metering import actions, store
from convergio.metering.model import Slice, UsageKey

Request = tuple[UUID, Slice, Period]


def sliced_in(
    tx: Tx, requests: Sequence[Request], meters: Mapping[str, Meter]
) -> dict[UsageKey, Decimal]:
    """Return what was used of slices in periods; what is not in the answer is zero."""
    if not requests:
        return {}
    wholes = actions.usage_in(tx, [(who, part.meter_key, at) for who, part, at in requests], meters)
    grouped: dict[tuple[UUID, int], list[tuple[datetime, datetime, list[str | None], Decimal]]]
    grouped = defaultdict(list)
    for customer_id, meter_id, start, end, names, used in store.grouped_totals(
        tx,
        sorted({who for who, _, _ in requests}),
        since=min(period.start for _, _, period in requests),
        until=max(period.end for _, _, period in requests),
    ):
        grouped[customer_id, meter_id].append((start, end, json.loads(f"[{names}]"), used))
    found: dict[UsageKey, Decimal] = {}
    for customer_id, part, period in requests:
        meter = meters[part.meter_key]
        place = meter.group_by.index(part.by)
        rows = [
            (values[place], used)
            for start, end, values, used in grouped.get((customer_id, meter.meter_id), ())
            if period.start <= start and end <= period.end
        ]
        if part.value is not None:
            quantity = add_up(used for value, used in rows if value == part.value)
        else:
            whole = wholes.get((customer_id, part.meter_key, period.start), Decimal(0))
            listed = add_up(used for value, used in rows if value in part.others)
            quantity = subtract(whole, listed)
        if quantity:
            found[customer_id, part, period.start] = quantity
    return found


def usage_of(
    tx: Tx, requests: Iterable[tuple[UUID, str | Slice, Period]], meters: Mapping[str, Meter]
) -> dict[UsageKey, Decimal]:
    """Return what was used in periods, of meters and of slices; what is not there is zero."""
    plain: list[tuple[UUID, str, Period]] = []
    parts: list[Request] = []
    for who, of, at in requests:
        if isinstance(of, Slice):
            parts.append((who, of, at))
        else:
            plain.append((who, of, at))
    return actions.usage_in(tx, plain, meters) | sliced_in(tx, parts, meters)
