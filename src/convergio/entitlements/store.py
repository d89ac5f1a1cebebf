"""SQL of reservations: one function a query, same name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.entitlements.model import Reservation
from convergio.infra import sql
from convergio.infra.db import Tx

_QUERIES: Final = sql.load(Path(__file__).with_name("queries.sql"))


def copy_reservations(tx: Tx, rows: Sequence[Reservation]) -> None:
    """Store new reservations."""
    tx.copy(
        _QUERIES["copy_reservations"],
        (
            (
                row.customer_id,
                row.reservation_id,
                row.meter_id,
                row.start_at,
                row.quantity,
                row.state,
                row.made_at,
                row.expires_at,
            )
            for row in rows
        ),
    )


def lock_reservation(tx: Tx, customer_id: UUID, reservation_id: UUID) -> Reservation | None:
    """Return a reservation. Locks: it."""
    return tx.one(
        _QUERIES["lock_reservation"],
        Reservation,
        customer_id=customer_id,
        reservation_id=reservation_id,
    )


def settle_reservation(tx: Tx, rows: Sequence[Reservation]) -> None:
    """Write what became of reservations."""
    tx.run_many(
        _QUERIES["settle_reservation"],
        [
            {
                "customer_id": row.customer_id,
                "reservation_id": row.reservation_id,
                "state": row.state,
                "settled_at": row.settled_at,
                "settled": row.settled,
            }
            for row in rows
        ],
    )


def lock_due_reservations(tx: Tx, *, now: datetime, size: int) -> list[Reservation]:
    """Return reservations whose time is over. Locks: them."""
    return tx.many(_QUERIES["lock_due_reservations"], Reservation, now=now, size=size)


@dataclass(frozen=True, slots=True)
class Differing:
    """A window and its two sums of what is reserved."""

    customer_id: UUID
    meter_id: int
    start_at: datetime
    found: Decimal
    expected: Decimal


def differing_reserved(tx: Tx) -> list[Differing]:
    """Return windows that hold another quantity than their open reservations."""
    return tx.many(_QUERIES["differing_reserved"], Differing)
