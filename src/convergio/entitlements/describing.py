"""Grants as JSON, for the command line and for HTTP."""

from datetime import datetime
from typing import Any

from convergio.entitlements.model import GrantState
from convergio.infra.ids import typeid
from convergio.kernel.money import Money
from convergio.kernel.periods import instant_text
from convergio.kernel.quantity import quantity_text


def grant_value(found: GrantState) -> dict[str, Any]:
    """Return a grant and what is left of it; one in money has amounts in major units."""
    grant = found.grant
    value: dict[str, Any] = {
        "id": typeid("crg", grant.grant_id),
        "key": grant.key,
        "category": grant.category,
        "state": found.state,
        "priority": grant.priority,
        "starts_at": instant_text(grant.starts_at),
        "expires_at": _when(grant.expires_at),
        "created_at": instant_text(grant.created_at),
        "voided_at": _when(grant.voided_at),
        "note": grant.note,
    }
    if grant.currency is None:
        return value | {
            "meter": found.meter_key,
            "quantity": quantity_text(found.grant.quantity or 0),
            "drawn": quantity_text(found.drawn),
            "remaining": quantity_text(found.remaining),
        }
    return value | {
        "currency": grant.currency,
        "amount": Money(grant.amount or 0, grant.currency).text(),
        "drawn": Money(int(found.drawn), grant.currency).text(),
        "remaining": Money(int(found.remaining), grant.currency).text(),
    }


def _when(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)
