"""SQL of reservations, leases and spend caps: one function a query, same name."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

from convergio.entitlements.model import Lease, Reservation, SpendCap
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


def lock_stale_reservations(
    tx: Tx, customer_id: UUID, meter_id: int, start_at: datetime, *, now: datetime
) -> list[Reservation]:
    """Return reservations of a window whose time is over. Locks: them."""
    return tx.many(
        _QUERIES["lock_stale_reservations"],
        Reservation,
        customer_id=customer_id,
        meter_id=meter_id,
        start_at=start_at,
        now=now,
    )


def stale_reserved(
    tx: Tx, customer_ids: Sequence[UUID], *, now: datetime
) -> dict[tuple[UUID, int], Decimal]:
    """Return what is held in vain, by customer and meter; what is not there is zero."""
    rows = tx.tuples(_QUERIES["stale_reserved"], customer_ids=list(customer_ids), now=now)
    return {(row[0], row[1]): row[2] for row in rows}


def insert_lease(tx: Tx, lease: Lease) -> None:
    """Store a new lease."""
    tx.run(_QUERIES["insert_lease"], **asdict(lease))


def find_lease(tx: Tx, customer_id: UUID, lease_id: UUID) -> Lease | None:
    """Return a lease as it stands."""
    return tx.one(_QUERIES["find_lease"], Lease, customer_id=customer_id, lease_id=lease_id)


def lock_lease(tx: Tx, customer_id: UUID, lease_id: UUID) -> Lease | None:
    """Return a lease. Locks: it."""
    return tx.one(_QUERIES["lock_lease"], Lease, customer_id=customer_id, lease_id=lease_id)


def save_lease(tx: Tx, leases: Sequence[Lease]) -> None:
    """Write what became of leases."""
    tx.run_many(_QUERIES["save_lease"], [asdict(lease) for lease in leases])


def lock_ended_leases(tx: Tx, *, now: datetime, size: int) -> list[Lease]:
    """Return open leases whose window has ended. Locks: them."""
    return tx.many(_QUERIES["lock_ended_leases"], Lease, now=now, size=size)


def page_open_leases(
    tx: Tx,
    *,
    after: tuple[UUID, UUID],
    size: int,
    customer_id: UUID | None,
    expired_by: datetime | None,
) -> list[Lease]:
    """Return the next open leases in order of customer and id."""
    return tx.many(
        _QUERIES["page_open_leases"],
        Lease,
        after_customer=after[0],
        after_lease=after[1],
        customer_id=customer_id,
        expired_by=expired_by,
        size=size,
    )


def lock_spend_caps(tx: Tx, customer_ids: Sequence[UUID]) -> list[SpendCap]:
    """Return the caps of these customers. Locks: them."""
    return tx.many(_QUERIES["lock_spend_caps"], SpendCap, customer_ids=list(customer_ids))


def find_spend_cap(tx: Tx, customer_id: UUID) -> SpendCap | None:
    """Return one customer's cap."""
    return tx.one(_QUERIES["find_spend_cap"], SpendCap, customer_id=customer_id)


def save_spend_cap(tx: Tx, cap: SpendCap) -> None:
    """Set a customer's cap."""
    tx.run(_QUERIES["save_spend_cap"], **asdict(cap))


def delete_spend_cap(tx: Tx, customer_id: UUID) -> None:
    """Take a customer's cap away."""
    tx.run(_QUERIES["delete_spend_cap"], customer_id=customer_id)


@dataclass(frozen=True, slots=True)
class Differing:
    """A window and its two sums of what is reserved."""

    customer_id: UUID
    meter_id: int
    start_at: datetime
    found: Decimal
    expected: Decimal


def differing_reserved(tx: Tx) -> list[Differing]:
    """Return windows that hold another quantity than their open reservations and leases."""
    return tx.many(_QUERIES["differing_reserved"], Differing)
