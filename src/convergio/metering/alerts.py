"""Tell once what is told once: that a period has reached a percentage, or admits no more groups."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from convergio.infra import outbox
from convergio.infra.db import Tx
from convergio.infra.outbox import Fact
from convergio.kernel.periods import instant_text
from convergio.metering import rules, store
from convergio.metering.model import GROUPS_MAX

# customer, meter, start of the period or window, what it is
AlertKey = tuple[UUID, int, datetime, str]


def raise_once(tx: Tx, due: Mapping[AlertKey, Fact], *, now: datetime) -> None:
    """Emit each fact whose key nobody has noted before."""
    if due:
        fresh = store.raise_alerts(tx, [(*key, now) for key in sorted(due)])
        outbox.emit_many(tx, [due[key] for key in sorted(fresh)], now=now)


def threshold(
    customer_id: UUID, meter_id: int, period_at: datetime, percent: int, *, used: Decimal
) -> tuple[AlertKey, Fact]:
    """Return that the usage of a period, `used` so far, has reached a percentage; and its key."""
    data = {
        "meter_id": meter_id,
        "window_start": instant_text(period_at),
        "percent": percent,
        "used": rules.plain(used),
    }
    key = (customer_id, meter_id, period_at, f"threshold:{percent}")
    return key, Fact("usage.threshold_reached", customer_id, None, data)


def groups_full(customer_id: UUID, meter_id: int, start_at: datetime) -> tuple[AlertKey, Fact]:
    """Return the fact that a window admits no further group, and its key."""
    data = {
        "meter_id": meter_id,
        "window_start": instant_text(start_at),
        "groups_max": GROUPS_MAX,
    }
    fact = Fact("usage.group_limit_reached", customer_id, None, data)
    return (customer_id, meter_id, start_at, "groups"), fact
